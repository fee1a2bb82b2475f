"""Clearing: what is over goes away by itself, at the start of a worker and again and again; what is not over stays."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from admin import worker
from admin.database import Connection
from admin.http.ids import new_id
from shared.redis import Redis
from tests.admin.conftest import founded, settings_of
from tests.conftest import Servers
from tests.shared.waiting import until

TABLES = (
    "idempotency_keys",
    "oauth_codes",
    "oauth_grants",
    "refresh_tokens where grant_id is not null",
    "refresh_tokens where session_id is not null",
    "sessions",
)


async def begun(connection: Connection, *, is_over: bool) -> None:
    """An answer that is kept, a session and a grant, each with what belongs to it: long over, or as they begin."""
    organization, owner = await founded(connection, new_id())
    expired = "now() - interval '31 days'" if is_over else "now() + interval '1 hour'"
    created = "now() - interval '25 hours'" if is_over else "now()"
    await connection.execute(
        f"""
        insert into idempotency_keys (scope, organization_id, fingerprint, owner, leased_until, created_at)
        values ('{new_id()}', {organization.id}, '', '', now(), {created});
        with made as (
            insert into sessions (public_id, user_id, organization_id, is_remembered, expires_at)
            values ('{new_id()}', {owner.id}, {organization.id}, false, {expired}) returning id)
        insert into refresh_tokens (sha256, session_id) select '{new_id()}', id from made;
        with client as (
            insert into oauth_clients (public_id, organization_id, name, redirect_uris, permissions)
            values ('{new_id()}', {organization.id}, 'app', '{{}}', '{{}}') returning id),
        given as (
            insert into oauth_grants (public_id, client_id, organization_id, permissions, expires_at)
            select '{new_id()}', id, {organization.id}, '{{}}', {expired} from client returning id),
        code as (
            insert into oauth_codes (sha256, grant_id, redirect_uri, challenge, expires_at)
            select '{new_id()}', id, '', '', {expired} from given)
        insert into refresh_tokens (sha256, grant_id) select '{new_id()}', id from given"""
    )


async def counts(connection: Connection) -> list[int]:
    """How many rows each table has."""
    return [await connection.fetchval(f"select count(*) from {table}") for table in TABLES]


@pytest.fixture
async def working(servers: Servers, database_url: str, connection: Connection, redis: Redis) -> AsyncIterator[None]:
    """A worker, started on a database with something that is over and something that is not."""
    await begun(connection, is_over=True)
    await begun(connection, is_over=False)
    assert await counts(connection) == [2] * len(TABLES)
    stop = asyncio.Event()
    running = asyncio.create_task(worker.run(settings_of(servers, database_url), stop))
    yield
    stop.set()
    await running


async def is_cleared(connection: Connection) -> bool:
    return await counts(connection) == [1] * len(TABLES)


async def test_what_is_over_is_removed_at_the_start(working: None, connection: Connection) -> None:
    await until(lambda: is_cleared(connection))


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "_CLEAR_EVERY_S", 0.05)


async def test_and_again_later(often: None, working: None, connection: Connection) -> None:
    await until(lambda: is_cleared(connection))
    await begun(connection, is_over=True)
    await until(lambda: is_cleared(connection))
