"""Files of single clicks: nobody has more than a share of what they take, and whoever leaves gives it back."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

import asyncpg
import pytest
from fastapi import FastAPI
from starlette.types import Message

from admin.database import Connection
from admin.stats import answering, months, single_routes
from admin.stats.answering import understand
from tests.admin.conftest import Api, Tenant, key_of
from tests.admin.people import error_of
from tests.admin.test_months import LEAP_DAY, names, store


class Taker:
    """Somebody who begins to take a file, and then takes nothing more."""

    def __init__(self, app: FastAPI, bearer: str) -> None:
        self.began, self._is_gone, self._is_lost = asyncio.Event(), asyncio.Event(), asyncio.Event()
        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": "GET",
            "scheme": "http",
            "path": "/v1/stats/export",
            "query_string": b"",
            "headers": [(b"authorization", f"Bearer {bearer}".encode())],
            "client": ("127.0.0.1", 1),
            "server": ("api", 80),
        }
        self.request = asyncio.create_task(self._ask(app, scope))

    async def _ask(self, app: FastAPI, scope: dict[str, Any]) -> None:
        await app(scope, self._receive, self._send)

    async def _receive(self) -> Message:
        await self._is_gone.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        if message.get("body"):
            self.began.set()
            await self._is_lost.wait()
            raise OSError

    async def leave(self) -> None:
        """The server is told."""
        self._is_gone.set()

    async def break_(self) -> None:
        """What is sent can't be."""
        self._is_lost.set()

    async def be_cancelled(self) -> None:
        """The server stops."""
        self.request.cancel()

    async def wait(self) -> None:
        """Until the server has had enough."""

    async def end(self) -> None:
        """Until the server has done with it."""
        with contextlib.suppress(BaseException):
            async with asyncio.timeout(5):
                await asyncio.shield(self.request)
        assert self.request.done()


@contextlib.asynccontextmanager
async def taking(api: Api, connection: Connection, tenant: Tenant) -> AsyncIterator[Taker]:
    """One who has begun."""
    taker = Taker(api.app, await key_of(connection, tenant.organization))
    async with asyncio.timeout(10):
        await taker.began.wait()
    try:
        yield taker
    finally:
        taker.request.cancel()
        await taker.end()


async def statuses(*tenants: Tenant) -> list[int]:
    """Of exports at once."""
    answers = await asyncio.gather(*(tenant.api.get("/v1/stats/export") for tenant in tenants))
    return [answer.status_code for answer in answers]


async def test_an_organization_has_one_export_at_a_time(api: Api, connection: Connection) -> None:
    async with taking(api, connection, api.one) as taker:
        async with asyncio.timeout(0.9):  # it does not even wait for a turn
            answer = await api.one.api.get("/v1/stats/export")
        assert error_of(answer) == (429, "RATE_LIMIT_EXCEEDED")
        assert answer.headers["retry-after"] and "Your organization" in answer.json()["error"]["message"]
        assert await statuses(api.other) == [200]
        await taker.leave()
        await taker.end()
        assert await statuses(api.one, api.other) == [200, 200]


@pytest.mark.parametrize("way", [Taker.leave, Taker.break_, Taker.be_cancelled, Taker.wait])
async def test_whoever_leaves_lets_the_next_one_in(
    api: Api, connection: Connection, monkeypatch: pytest.MonkeyPatch, way: Callable[[Taker], Awaitable[None]]
) -> None:
    monkeypatch.setattr(single_routes, "FILE_S", 0.5 if way is Taker.wait else 60.0)
    for _ in range(3):  # more often than there are turns
        async with taking(api, connection, api.one) as taker:
            await way(taker)
            await taker.end()
            assert (await api.one.api.get("/v1/stats/export?format=xlsx")).status_code == 400
            assert await statuses(api.one, api.other) == [200, 200]


async def test_files_and_questions_have_turns_of_their_own(
    api: Api, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    for turns in (single_routes._turns, answering._turns):
        monkeypatch.setattr(turns, "_wait_s", 0.01)
    async with taking(api, connection, api.one), taking(api, connection, api.other):
        async with contextlib.AsyncExitStack() as questions:
            for _ in range(4):
                await questions.enter_async_context(answering.moment(api.app.state.pool))
            assert (await api.one.api.get("/v1/stats/clicks")).status_code == 503
            assert (await api.one.api.get("/v1/links")).status_code == 200
        assert (await api.one.api.get("/v1/stats/clicks")).status_code == 200
    async with contextlib.AsyncExitStack() as questions:
        for _ in range(4):
            await questions.enter_async_context(answering.moment(api.app.state.pool))
        assert await statuses(api.one, api.other) == [200, 200]


@pytest.mark.parametrize("is_held", [True, False])
async def test_a_month_that_is_emptied_waits_for_an_export(
    api: Api, connection: Connection, database_url: str, monkeypatch: pytest.MonkeyPatch, is_held: bool
) -> None:
    """Rows are deleted and their month is dropped when an export has its snapshot and has not read anything yet. Not
    `is_held`: what would become of it."""
    await months.step(connection, LEAP_DAY)
    at = LEAP_DAY.replace(day=1)
    await store(connection, at)
    await connection.execute("update clicks set organization_id = $1", api.one.organization_id)

    async def understood_late(*asked: Any) -> answering.Understood:
        found = await understand(*asked)
        other = await asyncpg.connect(database_url)
        await other.execute("delete from clicks")
        async with asyncio.timeout(3):  # it has little patience
            await months.step(other, datetime(2028, 12, 1, tzinfo=UTC))
        assert ("clicks_2028_02" in await names(other)) == is_held
        await other.close()
        return found

    async def hold_nothing(_: Connection) -> None: ...

    monkeypatch.setattr(single_routes, "understand", understood_late)
    if not is_held:
        monkeypatch.setattr(answering, "_hold_months", hold_nothing)
    answer = await api.one.api.get("/v1/stats/export?format=ndjson&startDate=2028-02-01&endDate=2028-03-31")
    assert answer.text.count("\n") == is_held
    await months.step(connection, datetime(2028, 12, 1, tzinfo=UTC))
    assert "clicks_2028_02" not in await names(connection)
