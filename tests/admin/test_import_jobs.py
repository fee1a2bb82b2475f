"""Imports as jobs: how files are received, and who carries them out, whatever dies meanwhile."""

import asyncio
import json
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import asyncpg
import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from admin.database import Connection
from admin.links import candidates, import_jobs, imports
from admin.links.import_jobs import Chunks
from shared.redis import Redis
from tests.admin.conftest import SECRET, Api, client_of, running, settings_of
from tests.admin.files_of_links import imported, send, sent, shown, work
from tests.admin.people import error_of
from tests.conftest import Servers
from tests.shared.waiting import until

FILE = "path,destination\n/a,https://example.com/\n"


def rows(count: int, first: int = 0) -> str:
    """A file of links that are new."""
    lines = [f"/{number},https://example.com/{number}\n" for number in range(first, first + count)]
    return "path,destination\n" + "".join(lines)


async def count(connection: Connection, table: str) -> int:
    return int(await connection.fetchval(f"select count(*) from {table}"))


async def test_a_file_waits_for_the_worker_and_is_gone_afterwards(api: Api, connection: Connection) -> None:
    import_id = await sent(api.one, FILE, source="linkwire", onConflict="update", hostname="One.Example")
    waiting = await shown(api.one, import_id)
    assert waiting["progress"] == {"linesDone": 0, "bytesDone": 0, "bytesTotal": len(FILE)}
    assert [waiting[name] for name in ("status", "format", "startedAt", "finishedAt")] == ["pending", None, None, None]
    assert (waiting["source"], waiting["onConflict"], waiting["hostname"]) == ("linkwire", "update", "one.example")
    assert await count(connection, "import_chunks") == 1
    assert (await work(api), await work(api)) == (1, 0)
    assert (await shown(api.one, import_id))["status"] == "finished"
    assert await count(connection, "import_chunks") == 0
    listed = (await api.one.api.get("/v1/imports?status=finished")).json()["data"]
    assert [one["id"] for one in listed] == [import_id] and listed[0]["type"] == "import"
    assert (await api.other.api.get("/v1/imports")).json()["data"] == []


async def test_a_file_is_received_in_parts_and_read_as_one(api: Api, connection: Connection) -> None:
    long = "".join(f"/{number},https://example.com/{'x' * 2_000}{number}\n" for number in range(1_200))
    first_line_of_a_chunk = "path,destination," + "y" * 1_100_000 + "\n"
    file = first_line_of_a_chunk + long.replace("\n", ",\n")

    async def pieces() -> AsyncIterator[bytes]:
        for first in range(0, len(file), 300_001):
            yield file[first : first + 300_001].encode()

    answer = await api.one.api.post(
        "/v1/imports", content=pieces(), headers={"Content-Type": "text/csv; charset=utf-8"}
    )
    assert answer.status_code == 202, answer.text
    sizes = await connection.fetch("select length(content) as size from import_chunks order by number")
    assert [row["size"] for row in sizes] == [1024 * 1024] * 3 + [len(file) % (1024 * 1024)]
    await work(api)
    assert (await shown(api.one, answer.json()["data"]["id"]))["counts"]["created"] == 1_200


BAD = [
    ({}, b"", "The file is empty."),
    ({}, b"PK\x03\x04....", "It is a ZIP archive or a spreadsheet: unpack it, or save it as CSV."),
    ({}, b"a,b\n1,2\n", "These columns are not known to be of"),
    ({}, b'[{"destination": "https://example.com/"', "Here the JSON is damaged"),
    ({"source": "bitly"}, FILE.encode(), "These columns are not known to be of bitly: path, destination."),
]


@pytest.mark.parametrize(("parameters", "file", "why"), BAD)
async def test_what_is_no_file_of_links_is_refused_at_once(
    api: Api, connection: Connection, parameters: dict[str, str], file: bytes, why: str
) -> None:
    answer = await send(api.one, file, **parameters)
    assert error_of(answer) == (400, "VALIDATION_ERROR")
    [detail] = answer.json()["error"]["details"]
    assert detail["field"] == "body" and detail["message"].startswith(why)
    assert await count(connection, "imports") == 0


async def test_what_shows_later_fails_with_its_reason(api: Api) -> None:
    import_id = await sent(api.one, f"a,{'b' * 1_100_000}\n")
    await work(api)
    failed = await shown(api.one, import_id)
    assert failed["status"] == "failed" and failed["finishedAt"]
    assert failed["failure"].startswith("These columns are not known to be of")
    [entry] = (await api.one.api.get("/v1/audit-log?action=import.failed")).json()["data"]
    assert entry["attributes"]["details"]["failure"] == failed["failure"]


async def test_parameters_and_types_that_make_no_sense(api: Api, connection: Connection) -> None:
    wrong = {"source": "excel", "dryRun": "1", "hostname": "a b", "onConflict": "fail", "colour": "red"}
    answer = await send(api.one, FILE, **wrong)
    assert {detail["field"] for detail in answer.json()["error"]["details"]} == set(wrong)
    answer = await send(api.one, FILE, dryRun="true", dry_run="true")
    assert answer.json()["error"]["details"] == [{"field": "dry_run", "message": "It is given twice."}]
    answer = await api.one.api.post("/v1/imports", data={"a": "b"})
    assert answer.json()["error"]["details"][0]["message"].startswith("Send text/csv, ")
    assert await count(connection, "imports") == 0


async def test_a_file_has_a_largest_size(servers: Servers, api: Api, database_url: str, connection: Connection) -> None:
    async with running(settings_of(servers, database_url, LINKWIRE_IMPORT_MAX_BYTES="2000000")) as app:
        client = client_of(app, **api.one.api.headers)

        async def pieces() -> AsyncIterator[bytes]:
            yield b"path,destination\n"
            for _ in range(3):
                yield b"x" * 1_000_000

        for content in (b"path,destination\n" + b"x" * 3_000_000, pieces()):
            answer = await client.post("/v1/imports", content=content, headers={"Content-Type": "text/csv"})
            assert error_of(answer) == (413, "PAYLOAD_TOO_LARGE")
    assert await count(connection, "imports") == await count(connection, "import_chunks") == 0


async def test_a_file_that_ends_early_leaves_nothing(api: Api, connection: Connection) -> None:
    messages: list[dict[str, Any]] = [
        {"type": "http.request", "body": FILE.encode() + b"x" * 2_000_000, "more_body": True},
        {"type": "http.disconnect"},
    ]
    answered = []

    async def receive() -> dict[str, Any]:
        return messages.pop(0)

    async def answer(message: Any) -> None:
        answered.append(message.get("status"))

    headers = [(b"authorization", api.one.api.headers["authorization"].encode()), (b"content-type", b"text/csv")]
    scope = {"type": "http", "method": "POST", "path": "/v1/imports", "raw_path": b"/v1/imports", "query_string": b""}
    server = {
        "http_version": "1.1",
        "scheme": "http",
        "client": ("127.0.0.1", 1),
        "server": ("api", 80),
        "root_path": "",
    }
    await api.app({**scope, **server, "headers": headers, "asgi": {"version": "3.0"}}, receive, answer)
    assert answered[0] == 400
    assert await count(connection, "imports") == await count(connection, "import_chunks") == 0


async def test_what_was_never_completed_is_not_seen_and_cleared_away(api: Api, connection: Connection) -> None:
    import_id = await sent(api.one, FILE)
    await connection.execute("update imports set status = 'receiving'")
    await imports.clear(connection)
    assert (await api.one.api.get("/v1/imports")).json()["data"] == []
    assert error_of(await api.one.api.get(f"/v1/imports/{import_id}")) == (404, "RESOURCE_NOT_FOUND")
    assert await work(api) == 0
    await connection.execute("update imports set created_at = now() - interval '2 hours'")
    await imports.clear(connection)
    assert await count(connection, "import_chunks") == 1  # which came just now
    await connection.execute("update import_chunks set received_at = now() - interval '2 hours'")
    await imports.clear(connection)
    assert await count(connection, "imports") == await count(connection, "import_chunks") == 0
    old, new = [await imported(api, api.one, f"path,destination\n/{name},nowhere\n") for name in "ab"]
    await connection.execute(
        "update imports set finished_at = now() - interval '91 days' where public_id = $1", old["id"][4:]
    )
    await imports.clear(connection)
    assert [one["id"] for one in (await api.one.api.get("/v1/imports")).json()["data"]] == [new["id"]]
    assert await count(connection, "import_notes") == 1


async def test_a_file_is_imported_once_for_its_key(api: Api, connection: Connection) -> None:
    headers = {"Content-Type": "text/csv", "Idempotency-Key": "k"}

    async def post(file: str = FILE, query: str = "") -> httpx2.Response:
        return await api.one.api.post(f"/v1/imports{query}", content=file, headers=headers)

    failed = await post("nonsense")
    first, again = await post(), await post()
    assert [answer.status_code for answer in (failed, first, again)] == [400, 202, 202]
    assert again.json() == first.json() and again.headers["idempotent-replayed"] == "true"
    for other in (await post(FILE + "\n"), await post(query="?dryRun=true")):
        assert error_of(other) == (422, "IDEMPOTENCY_KEY_REUSED")
    assert await count(connection, "imports") == await count(connection, "import_chunks") == 1
    at_once = await asyncio.gather(*[send(api.other, FILE) for _ in range(2)])
    assert [answer.status_code for answer in at_once] == [202, 202]  # without a key as often as it is sent


async def test_ten_may_wait(api: Api, connection: Connection) -> None:
    for _ in range(10):
        await sent(api.one, FILE)
    await connection.execute("update imports set status = 'receiving' where id = (select min(id) from imports)")
    answer = await send(api.one, FILE)
    assert error_of(answer) == (429, "RATE_LIMIT_EXCEEDED") and answer.headers["retry-after"] == "60"
    await sent(api.other, FILE)
    await work(api)
    await sent(api.one, FILE)


async def test_imports_of_an_organization_are_carried_out_in_their_order(api: Api, connection: Connection) -> None:
    ids = [await sent(api.one, FILE), await sent(api.one, FILE.replace("com/", "com/2")), await sent(api.other, FILE)]
    first = await import_jobs.claim(connection)
    second = await import_jobs.claim(connection)
    assert first and second and await import_jobs.claim(connection) is None
    assert [first.shown_id, second.shown_id] == [ids[0], ids[2]]
    await connection.execute("update imports set claimed_until = now()")
    assert await work(api) == 3
    assert [(await shown(api.one, one))["counts"]["created"] for one in ids[:2]] == [1, 0]


_IMPORTS = textwrap.dedent("""
    import asyncio, sys, asyncpg
    from admin.links import import_jobs
    from admin.links.importing import Importer
    from admin.settings import AdminSettings
    from shared.redis import open_redis
    from shared.settings import load

    async def work():
        database, redis, secret = sys.argv[1:]
        environment = {"DATABASE_URL": database, "REDIS_URL": redis, "LINKWIRE_SECRET": secret}
        settings = load(AdminSettings, {**environment, "LINKWIRE_PUBLIC_URL": "http://localhost:8000"})
        pool = await asyncpg.create_pool(database, min_size=0, max_size=3)
        await import_jobs.step(pool, Importer(pool, open_redis(redis, timeout_s=5), settings))

    asyncio.run(work())
""")


async def test_what_a_killed_worker_was_at_is_finished_by_another(
    servers: Servers, api: Api, database_url: str, connection: Connection, redis: Redis
) -> None:
    file = rows(6_000).replace("/4500,https", "/4500,nowhere")
    import_id = await sent(api.one, file)
    killed = subprocess.Popen([sys.executable, "-c", _IMPORTS, database_url, servers.redis_url, SECRET])  # noqa: ASYNC220

    async def has_begun() -> bool:
        return bool(await connection.fetchval("select position >= 1000 from imports"))

    await until(has_begun, 60)
    killed.kill()
    killed.wait()
    left = await connection.fetchrow("select position, counts, status from imports")
    assert left is not None and left["status"] == "running" and 1_000 <= left["position"] < 6_000
    made_before = await count(connection, "links")
    assert made_before == json.loads(left["counts"])["created"] == left["position"]
    assert await work(api) == 0  # until the lease is over
    await connection.execute("update imports set claimed_until = now()")
    assert await work(api) == 1
    done = await shown(api.one, import_id)
    assert (done["status"], done["counts"]["created"], done["counts"]["refused"]) == ("finished", 5_999, 1)
    assert done["counts"]["unchanged"] == done["counts"]["skipped"] == 0
    assert await count(connection, "links") == 5_999
    marked = await connection.fetchval("select count(distinct path) from unpublished")
    assert len(await redis.keys("link:*")) + marked >= 5_999


async def test_an_import_that_is_cancelled_stops_and_keeps_what_it_has(
    api: Api, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(candidates, "ROWS", 10)
    import_id = await sent(api.one, rows(5_000))
    working = asyncio.create_task(work(api))

    async def has_begun() -> bool:
        return bool(await connection.fetchval("select position > 0 from imports"))

    await until(has_begun)
    cancelled = (await api.one.api.delete(f"/v1/imports/{import_id}")).json()["data"]["attributes"]
    assert await asyncio.wait_for(working, 20) == 1
    assert cancelled["status"] == "cancelled" and 0 < cancelled["counts"]["created"] < 5_000
    assert await count(connection, "links") == cancelled["counts"]["created"]
    assert await count(connection, "import_chunks") == 0
    again = (await api.one.api.delete(f"/v1/imports/{import_id}")).json()["data"]["attributes"]
    assert again == cancelled == await shown(api.one, import_id)
    entries = (await api.one.api.get("/v1/audit-log?objectType=import")).json()["data"]
    assert [entry["attributes"]["action"] for entry in entries] == ["import.cancelled", "import.created"]
    waiting = await sent(api.one, FILE)
    await api.one.api.delete(f"/v1/imports/{waiting}")
    assert await work(api) == 0


async def test_who_has_lost_the_lease_writes_nothing(api: Api, connection: Connection, database_url: str) -> None:
    """Another worker takes the import up just when its first links are made."""
    import_id = await sent(api.one, rows(20))
    await connection.execute("""
        create function take() returns trigger language plpgsql as $$
        begin update imports set claimed_by = 'another'; return null; end $$;
        create trigger take after insert on links for each statement execute function take()""")
    assert await work(api) == 1
    assert await count(connection, "links") == 0
    assert (await shown(api.one, import_id))["status"] == "running"
    await connection.execute("drop trigger take on links")
    await connection.execute("update imports set claimed_until = now()")
    assert await work(api) == 1
    assert (await shown(api.one, import_id))["counts"]["created"] == 20


async def test_an_import_that_gets_nowhere_is_given_up_and_one_that_gets_on_is_not(
    api: Api, connection: Connection, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: Any) -> None:
        raise LookupError("in the middle of it")

    import_id = await sent(api.one, FILE)
    with monkeypatch.context() as patched:
        patched.setattr(candidates, "_candidate", broken)
        for attempt in range(1, 6):
            assert await work(api) == 1
            assert await connection.fetchval("select attempts from imports") == attempt
            assert await work(api) == 0
            assert 0 < await connection.fetchval("select extract(epoch from claimed_until - now()) from imports") <= 5
            await connection.execute("update imports set claimed_until = now()")
        assert (await shown(api.one, import_id))["status"] == "running"
        assert await work(api) == 1
    failed = await shown(api.one, import_id)
    assert failed["status"] == "failed" and failed["failure"].startswith("It was given up")
    assert sum(record.exc_info is not None for record in caplog.records) == 5
    import_id = await sent(api.one, FILE)
    await connection.execute("update imports set attempts = 4")
    await work(api)
    assert (await shown(api.one, import_id))["status"] == "finished"
    assert await connection.fetchval("select attempts from imports where status = 'finished'") == 0


async def test_when_postgres_fails_an_import_is_left_to_the_next_attempt(api: Api, connection: Connection) -> None:
    import_id = await sent(api.one, FILE)
    await connection.execute("alter table links add constraint never check (false)")
    with pytest.raises(asyncpg.CheckViolationError):
        await work(api)
    assert (await shown(api.one, import_id))["status"] == "running"
    await connection.execute("alter table links drop constraint never")
    await connection.execute("update imports set claimed_until = now()")
    await work(api)
    assert (await shown(api.one, import_id))["counts"]["created"] == 1


async def test_without_redis_links_are_made_and_left_to_be_published(
    servers: Servers, api: Api, database_url: str, connection: Connection
) -> None:
    import_id = await sent(api.one, rows(1_100))
    async with running(settings_of(servers, database_url, REDIS_URL="redis://127.0.0.1:1")) as app:
        assert await work(api._replace(app=app)) == 1
    assert (await shown(api.one, import_id))["counts"]["created"] == 1_100
    assert await connection.fetchval("select count(distinct path) from unpublished where path <> ''") == 1_100


async def test_while_a_long_line_is_read_the_lease_is_renewed(
    api: Api, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    from admin.links import importing

    monkeypatch.setattr(importing, "_STAY_S", 0.01)
    import_id = await sent(api.one, "destination\nhttps://example.com/\n" + "x" * 8_000_000)
    lock = await asyncpg.connect(api.app.state.settings.database())
    transaction = lock.transaction()
    await transaction.start()
    await lock.execute("lock table import_chunks in access exclusive mode")
    working = asyncio.create_task(work(api))
    await connection.execute("update imports set claimed_until = now() where status = 'running'")

    async def is_renewed() -> bool:
        return bool(await connection.fetchval("select claimed_until > now() from imports where status = 'running'"))

    await until(is_renewed)
    await connection.execute("update imports set claimed_until = now() where status = 'running'")
    await until(is_renewed)
    await transaction.rollback()
    await lock.close()
    assert await working == 1
    assert (await shown(api.one, import_id))["counts"] | {"created": 1, "refused": 1} == (
        await shown(api.one, import_id)
    )["counts"]


@given(st.binary(max_size=300), st.integers(1, 50), st.lists(st.integers(1, 70), min_size=1))
def test_chunks_are_one_file(content: bytes, size: int, reads: list[int]) -> None:
    chunks = [content[first : first + size] for first in range(0, len(content), size)]

    async def fetch(number: int) -> bytes:
        return chunks[number] if number < len(chunks) else b""

    def read(file: Chunks) -> bytes:
        found, number = b"", 0
        while piece := file.read(reads[number % len(reads)]):
            found, number = found + piece, number + 1
            assert file.tell() == len(found)
        return found

    async def run() -> bytes:
        file = Chunks(fetch)
        with ThreadPoolExecutor(1) as threads:
            found = await asyncio.get_running_loop().run_in_executor(threads, read, file)
        file.close()
        return found

    assert asyncio.run(run()) == content


async def test_to_close_chunks_ends_a_read_that_waits() -> None:
    async def never(_: int) -> bytes:
        await asyncio.Event().wait()
        return b""

    file = Chunks(never)
    reading = asyncio.create_task(asyncio.to_thread(file.read, 10))
    await asyncio.sleep(0)
    file.close()
    with pytest.raises((asyncio.CancelledError, ValueError)):
        await asyncio.wait_for(reading, 5)
