"""Conversions: what is told of clicks, and how it finds them."""

from datetime import UTC, datetime
from typing import Any

import httpx2
import pytest

from admin.database import Connection
from admin.links import publish
from admin.stats import conversions
from shared.clicks import Batch, Click
from shared.links import Address, Published
from shared.redis import Redis
from tests.admin.conftest import Api, Tenant, client_of, key_of, made
from tests.admin.people import error_of
from tests.admin.test_ingest import AT_MS, deliver, drain
from tests.houses import BROWSER

SPOOL = "0123456789abcdef"


async def told_id(connection: Connection, position: int = 0) -> str:
    """What the destination of a click was told."""
    return (await conversions.ids_of_clicks(connection)).seal(SPOOL, position)


async def clicked(
    connection: Connection, redis: Redis, tenant: Tenant, link: dict[str, Any], *, position: int = 0, variant: int = 3
) -> None:
    """A click of this link, stored."""
    number = await connection.fetchval("select id from links where public_id = $1", link["id"])
    one = Click(AT_MS, number, tenant.organization_id, "GET", "192.0.2.1", BROWSER, "", variant_id=variant, has_id=True)
    await deliver(redis, Batch(SPOOL, position, [one.to_bytes()]))
    await drain(connection, redis)


async def told(client: httpx2.AsyncClient, click: str, status: int = 201, **more: Any) -> dict[str, Any]:
    answer = await client.post("/v1/conversions", json={"clickId": click, "name": "order", **more})
    assert answer.status_code == status, answer.text
    found: dict[str, Any] = answer.json().get("data")
    return found


async def listed(client: httpx2.AsyncClient, query: str = "") -> list[dict[str, Any]]:
    answer = await client.get(f"/v1/conversions{query}")
    assert answer.status_code == 200, answer.text
    return [row["attributes"] for row in answer.json()["data"]]


async def pass_minutes(connection: Connection, minutes: int) -> None:
    await connection.execute(
        """
        update conversions set created_at = created_at - make_interval(mins => $1),
                               next_try_at = next_try_at - make_interval(mins => $1)""",
        minutes,
    )


async def test_a_conversion_finds_its_click(api: Api, connection: Connection, redis: Redis) -> None:
    link = await made(api.one.api)
    await clicked(connection, redis, api.one, link)
    click = await told_id(connection)
    conversion = await told(api.one.api, click, value=19.99, currency="EUR", externalId="order-1")
    assert conversion["id"].startswith("conv_") and conversion["type"] == "conversion"
    shown = conversion["attributes"]
    assert datetime.fromisoformat(shown.pop("createdAt")) > datetime(2026, 1, 1, tzinfo=UTC)
    assert shown == {
        "clickId": click,
        "name": "order",
        "value": 19.99,
        "currency": "EUR",
        "externalId": "order-1",
        "status": "matched",
        "linkId": link["id"],
        "variantId": 3,
        "clickedAt": "2025-06-15T15:06:40.000Z",
    }
    await connection.execute("delete from clicks")
    assert (await listed(api.one.api))[0] | {"createdAt": None} == shown | {"createdAt": None}


async def test_one_that_comes_before_its_click_waits_for_it(api: Api, connection: Connection, redis: Redis) -> None:
    link = await made(api.one.api)
    click = await told_id(connection)
    assert (await told(api.one.api, click))["attributes"]["status"] == "pending"
    looked = 0
    for _ in range(59):
        await pass_minutes(connection, 1)
        looked += await conversions.step(connection)
        assert await conversions.step(connection) == 0  # not again at once
    assert 5 <= looked <= 6  # after 1, 2, 4, 8, 16 and 32 minutes, or a moment later
    await clicked(connection, redis, api.one, link)
    await pass_minutes(connection, 1)
    assert await conversions.step(connection) == 1
    [found] = await listed(api.one.api)
    assert (found["status"], found["linkId"], found["variantId"]) == ("matched", link["id"], 3)
    assert await conversions.step(connection) == 0


async def test_after_an_hour_it_is_unmatched_unless_its_click_comes_after_all(
    api: Api, connection: Connection, redis: Redis
) -> None:
    """As clicks do that had to wait for a worker."""
    link = await made(api.one.api)
    await told(api.one.api, await told_id(connection))
    await pass_minutes(connection, 61)
    assert await conversions.step(connection) == 1
    assert await conversions.step(connection) == 0
    [found] = await listed(api.one.api)
    assert (found["status"], found["linkId"], found["clickedAt"]) == ("unmatched", None, None)
    await clicked(connection, redis, api.one, link)
    assert await conversions.step(connection) == 1
    [found] = await listed(api.one.api)
    assert (found["status"], found["linkId"]) == ("matched", link["id"])


async def test_clicks_of_others_are_no_clicks(api: Api, connection: Connection, redis: Redis) -> None:
    await clicked(connection, redis, api.one, await made(api.one.api))
    conversion = await told(api.other.api, await told_id(connection))
    assert conversion["attributes"]["status"] == "pending"
    await pass_minutes(connection, 61)
    await conversions.step(connection)
    [found] = await listed(api.other.api)
    assert (found["status"], found["linkId"]) == ("unmatched", None)
    assert await listed(api.one.api) == []


async def test_the_same_external_id_is_the_same_conversion(api: Api, connection: Connection) -> None:
    first, other = await told_id(connection), await told_id(connection, 1)
    fields: dict[str, Any] = {"value": 5, "currency": "JPY", "externalId": "order-1"}
    conversion = await told(api.one.api, first, **fields)
    assert await told(api.one.api, first, **fields) == conversion
    for click, more in (
        (other, {}),
        (first, {"name": "refund"}),
        (first, {"value": 5.0001}),
        (first, {"currency": "EUR"}),
        (first, {"value": None, "currency": None}),
    ):
        answer = await api.one.api.post("/v1/conversions", json={"clickId": click, "name": "order", **fields, **more})
        assert error_of(answer) == (409, "RESOURCE_ALREADY_EXISTS")
    assert (await told(api.other.api, first, **fields))["id"] != conversion["id"]
    assert len(await listed(api.one.api)) == 1
    assert await connection.fetchval("select count(*) from audit_log where action = 'conversion.created'") == 2
    assert (await told(api.one.api, first))["id"] != (await told(api.one.api, first))["id"]  # nothing says that it is


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"clickId": "x"}, "clickId"),
        ({"clickId": 7}, "clickId"),
        ({"clickId": "A" * 21 + "B"}, "clickId"),
        ({"name": ""}, "name"),
        ({"name": "a\nb"}, "name"),
        ({"value": 1}, "currency"),
        ({"currency": "EUR"}, "value"),
        ({"value": 1, "currency": "XXX"}, "currency"),
        ({"value": 1, "currency": "eur"}, "currency"),
        ({"value": -1, "currency": "EUR"}, "value"),
        ({"value": 1e11, "currency": "EUR"}, "value"),
        ({"value": 1.00001, "currency": "EUR"}, "value"),
        ({"value": "1.00", "currency": "EUR"}, "value"),
        ({"externalId": "a" * 201}, "externalId"),
    ],
    ids=str,
)
async def test_what_makes_no_sense_is_refused(
    api: Api, connection: Connection, fields: dict[str, Any], field: str
) -> None:
    sent = {"clickId": await told_id(connection), "name": "order", **fields}
    answer = await api.one.api.post("/v1/conversions", json=sent)
    assert error_of(answer) == (400, "VALIDATION_ERROR")
    assert [detail["field"] for detail in answer.json()["error"]["details"]] == [field]


async def test_an_id_that_was_made_up_is_told_at_once(api: Api, connection: Connection) -> None:
    told = await told_id(connection)
    sent = {"clickId": told[:-2] + ("A" if told[-2] != "A" else "B") + told[-1], "name": "order"}
    assert error_of(await api.one.api.post("/v1/conversions", json=sent)) == (404, "RESOURCE_NOT_FOUND")
    assert await connection.fetchval("select count(*) from conversions") == 0


@pytest.mark.parametrize("value", [0, 0.0001, 0.1 + 0.2, 19.99, 99_999_999_998.9999, 7])
async def test_money_is_kept_to_four_places(api: Api, connection: Connection, value: float) -> None:
    await told(api.one.api, await told_id(connection), value=value, currency="EUR")
    [found] = await listed(api.one.api)
    assert found["value"] == round(value, 4)
    assert await connection.fetchval("select value::text from conversions") == f"{value:.4f}"


async def test_who_reads_statistics_does_not_make_them(api: Api, connection: Connection) -> None:
    sent = {"clickId": await told_id(connection), "name": "order"}
    reader = client_of(api.app, await key_of(connection, api.one.organization, "stats:read"))
    writer = client_of(api.app, await key_of(connection, api.one.organization, "links:write"))
    assert (await reader.post("/v1/conversions", json=sent)).status_code == 403
    assert (await writer.post("/v1/conversions", json=sent)).status_code == 201
    assert (await reader.get("/v1/conversions")).status_code == 200
    assert (await writer.get("/v1/conversions")).status_code == 403


async def test_lists_are_filtered(api: Api, connection: Connection, redis: Redis) -> None:
    link = await made(api.one.api)
    await clicked(connection, redis, api.one, link)
    await told(api.one.api, await told_id(connection), externalId="a")
    await told(api.one.api, await told_id(connection, 1), name="signup")
    assert [one["name"] for one in await listed(api.one.api)] == ["signup", "order"]
    for query, names in (
        ("?name=order", ["order"]),
        ("?status=pending", ["signup"]),
        (f"?linkId={link['id']}", ["order"]),
        ("?linkId=0123456789abcdef", []),
        ("?externalId=a", ["order"]),
        ("?cursor=&limit=1", ["signup"]),
        ("?startDate=2999-01-01", []),
        ("?endDate=2999-01-01&page=2&perPage=1", ["order"]),
    ):
        assert [one["name"] for one in await listed(api.one.api, query)] == names, query


async def test_the_edge_gets_the_key_with_links_that_tell_ids(api: Api, connection: Connection, redis: Redis) -> None:
    key = await connection.fetchval("select key from click_key")
    await made(api.one.api, path="/plain")
    await made(api.one.api, path="/telling", clickIdParameter="click")

    async def published(path: str) -> str:
        value = await redis.get(Address("localhost", path).key)
        assert isinstance(value, bytes)
        entry = Published.from_bytes(value).entry
        assert entry is not None
        return entry.terms.click_id_key

    assert [await published("/plain"), await published("/telling")] == ["", key]
    await redis.flushall()
    await publish.rebuild(connection, redis)
    assert [await published("/plain"), await published("/telling")] == ["", key]


async def test_a_click_with_an_id_that_no_edge_told_is_set_aside(connection: Connection, redis: Redis) -> None:
    records = [Click(AT_MS, 1, 7, "GET", "", BROWSER, "", has_id=has_id).to_bytes() for has_id in (True, False)]
    await deliver(redis, Batch("no spool", 0, records))
    await drain(connection, redis)
    assert await connection.fetchval("select count(*) from clicks where click_id is null") == 1
    assert await connection.fetchval("select count(*) from clicks") == 1
    assert await connection.fetchval("select position from clicks_set_aside") == 0
