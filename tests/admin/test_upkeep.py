"""What is done beside ingest may fail; clicks are stored all the same, and it is tried again."""

import asyncio
from typing import Any

import pytest

from admin import worker
from admin.database import Connection
from admin.stats import erasing, ingest, reclassify
from shared.clicks import Batch
from shared.redis import Redis
from tests.admin.conftest import settings_of
from tests.admin.test_ingest import deliver, record
from tests.conftest import Servers
from tests.shared.waiting import until


async def is_stored(connection: Connection) -> bool:
    return bool(await connection.fetchval("select exists (select from clicks)"))


@pytest.mark.parametrize(("owner", "name"), [(ingest.Lane, "tend"), (erasing, "step"), (reclassify, "step")])
async def test_clicks_are_stored_whatever_fails_beside_them(
    servers: Servers,
    database_url: str,
    connection: Connection,
    redis: Redis,
    monkeypatch: pytest.MonkeyPatch,
    owner: Any,
    name: str,
) -> None:
    failed = asyncio.Event()
    tries = 0

    async def fails(*_: object) -> bool:
        nonlocal tries
        tries += 1
        if tries == 2:
            failed.set()
        raise LookupError("nobody expected this")

    monkeypatch.setattr(owner, name, fails)
    monkeypatch.setattr(worker, "_AGAIN_S", 0.0)
    stop = asyncio.Event()
    working = asyncio.create_task(worker.run(settings_of(servers, database_url), stop))
    async with asyncio.timeout(30):
        await failed.wait()
    await deliver(redis, Batch("s", 0, [record(0)]))
    await until(lambda: is_stored(connection))
    assert not working.done()
    stop.set()
    await working
