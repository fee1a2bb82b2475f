"""Idempotency-Key: one effect and one answer, however often, however parallel, whoever dies."""

import asyncio
import hashlib
from typing import Any

import httpx2
import pytest

from admin.database import Connection
from tests.admin.conftest import Api, client_of, key_of
from tests.admin.people import error_of

LINK = {"destination": "https://example.com/"}


async def sent(client: httpx2.AsyncClient, key: str, body: Any = LINK, path: str = "/v1/links") -> httpx2.Response:
    return await client.post(path, json=body, headers={"Idempotency-Key": key})


async def links_of(client: httpx2.AsyncClient) -> int:
    return int((await client.get("/v1/links")).json()["meta"]["pagination"]["totalCount"])


async def test_a_repeat_gets_the_first_answer(api: Api) -> None:
    first = await sent(api.one.api, "unique-request-id-123")
    again = await sent(api.one.api, "unique-request-id-123")
    quoted = await sent(api.one.api, '"unique-request-id-123"')
    assert first.status_code == again.status_code == quoted.status_code == 201
    assert first.json() == again.json() == quoted.json()
    assert "idempotent-replayed" not in first.headers
    assert again.headers["idempotent-replayed"] == "true"
    assert again.headers["x-request-id"] != first.headers["x-request-id"]
    assert await links_of(api.one.api) == 1


async def test_both_prefixes_are_one_route(api: Api) -> None:
    first = await sent(api.one.api, "key")
    assert (await sent(api.one.api, "key", path="/api/v1/links")).json() == first.json()


async def test_another_body_is_a_conflict(api: Api) -> None:
    await sent(api.one.api, "key")
    other = await sent(api.one.api, "key", {"destination": "https://example.com/other"})
    assert error_of(other) == (422, "IDEMPOTENCY_KEY_REUSED")
    assert await links_of(api.one.api) == 1


async def test_keys_are_each_callers_own(api: Api, connection: Connection) -> None:
    mine = await sent(api.one.api, "key")
    theirs = await sent(api.other.api, "key")
    colleague = client_of(api.app, await key_of(connection, api.one.organization))
    assert len({answer.json()["data"]["id"] for answer in (mine, theirs, await sent(colleague, "key"))}) == 3
    elsewhere = await sent(api.one.api, "key", {"name": "CI"}, "/v1/api-keys")
    assert elsewhere.status_code == 201


async def test_fifty_at_once_have_one_effect(api: Api) -> None:
    answers = await asyncio.gather(*[sent(api.one.api, "key") for _ in range(50)])
    codes = {answer.status_code for answer in answers}
    assert codes <= {201, 409}
    made = [answer for answer in answers if answer.status_code == 201]
    assert len({answer.json()["data"]["id"] for answer in made}) == 1
    for answer in answers:
        if answer.status_code == 409:
            assert error_of(answer) == (409, "IDEMPOTENCY_KEY_IN_USE")
            assert "retry-after" in answer.headers
    assert await links_of(api.one.api) == 1
    assert (await sent(api.one.api, "key")).json() == made[0].json()


@pytest.mark.parametrize("body", [{"destination": "nonsense"}, {"destination": "https://example.com/", "path": "/a"}])
async def test_what_failed_may_be_tried_again(api: Api, body: dict[str, str]) -> None:
    await api.one.api.post("/v1/links", json={**LINK, "path": "/a"})
    before = await links_of(api.one.api)
    failed = await sent(api.one.api, "key", body)
    assert failed.status_code in (400, 409)
    assert (await sent(api.one.api, "key")).status_code == 201
    assert await links_of(api.one.api) == before + 1


async def test_a_process_that_died_does_not_keep_the_key(api: Api, connection: Connection) -> None:
    await sent(api.one.api, "key")
    await connection.execute("update idempotency_keys set status = null, answer = null, owner = 'dead'")
    assert error_of(await sent(api.one.api, "key")) == (409, "IDEMPOTENCY_KEY_IN_USE")
    await connection.execute("update idempotency_keys set leased_until = now()")
    assert (await sent(api.one.api, "key")).status_code == 201


async def test_whoever_lost_the_lease_has_no_effect(api: Api, connection: Connection) -> None:
    """Another takes the key just when the link is made."""
    await connection.execute("""
        create function take() returns trigger language plpgsql as $$
        begin update idempotency_keys set owner = 'another'; return new; end $$;
        create trigger take before insert on links for each row execute function take()""")
    assert error_of(await sent(api.one.api, "key")) == (409, "IDEMPOTENCY_KEY_IN_USE")
    assert await links_of(api.one.api) == 0


async def test_the_effect_and_its_answer_are_one(api: Api, connection: Connection) -> None:
    """What can't be stored is not done."""
    await connection.execute("alter table idempotency_keys add constraint never check (status is null)")
    assert (await sent(api.one.api, "key")).status_code == 500
    assert await links_of(api.one.api) == 0


async def test_secrets_in_answers_are_sealed(api: Api, connection: Connection) -> None:
    answer = await sent(api.one.api, "key", {"name": "CI"}, "/v1/api-keys")
    secret = answer.json()["data"]["attributes"]["key"]
    assert (await sent(api.one.api, "key", {"name": "CI"}, "/v1/api-keys")).json() == answer.json()
    kept = bytes(await connection.fetchval("select answer from idempotency_keys"))
    assert secret.encode() not in kept and hashlib.sha256(secret.encode()).digest() not in kept


async def test_a_day_later_the_key_is_new(api: Api, connection: Connection) -> None:
    first = await sent(api.one.api, "key")
    await connection.execute("update idempotency_keys set created_at = now() - interval '25 hours'")
    later = await sent(api.one.api, "key", {"destination": "https://example.com/later"})
    assert later.status_code == 201 and later.json()["data"]["id"] != first.json()["data"]["id"]


@pytest.mark.parametrize("key", ["", "a" * 256, "a b", "ü", '"', 'a"b'])
async def test_bad_keys(api: Api, key: str) -> None:
    answer = await api.one.api.post("/v1/links", json=LINK, headers=[(b"Idempotency-Key", key.encode())])
    assert error_of(answer) == (400, "VALIDATION_ERROR")
    assert await links_of(api.one.api) == 0
