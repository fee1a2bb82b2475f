"""Answering: what a request asks, understood and answered in one moment of the database, within a time.

Whoever asks for much waits longer than for anything else; who asks for too much gets `QueryTooLarge`, not a server that
has no time for others.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import NamedTuple

import asyncpg
from starlette.requests import Request

from admin import database
from admin.database import Connection, Pool
from admin.errors import QueryTooLarge, Unavailable
from admin.links import links
from admin.stats import counting
from admin.stats.asked import Asked, Form
from admin.stats.source import Question
from admin.turns import Turns

ANSWER_S = 6.0
"""In all."""
STATEMENT_S = 5.0
FILE_S = 900.0
"""Of a file: whoever takes it may be slow."""


class Understood(NamedTuple):
    """What was asked, and where the answer is."""

    connection: Connection
    asked: Asked
    question: Question


# The rest of the connections is for requests that are short: nobody's questions may keep others from logging in.
_turns = Turns(4, wait_s=2.0, sorry="Too many questions are being answered at the moment. Please try again.")


@contextlib.asynccontextmanager
async def moment(
    pool: Pool, *, within_s: float | None = None, turns: Turns = _turns, holds_months: bool = False
) -> AsyncIterator[Connection]:
    """A snapshot for questions, for `within_s` (or `ANSWER_S`); `holds_months` for one that is read for long. Raises
    `QueryTooLarge`, `Unavailable`."""
    clock = asyncio.get_running_loop().time
    begun_at = None
    try:
        async with turns, database.snapshot(pool, within_s=ANSWER_S if within_s is None else within_s) as connection:
            if holds_months:
                await _hold_months(connection)
            # A plan that is made for any range reads a year for an hour: a second instead of 10 ms. And to begin a
            # process that helps, or to compile a plan, takes longer than most answers.
            await connection.execute(
                """
                /* answering.moment */
                select set_config('statement_timeout', $1, true),
                       set_config('plan_cache_mode', 'force_custom_plan', true),
                       set_config('max_parallel_workers_per_gather', '0', true), set_config('jit', 'off', true)""",
                str(round(STATEMENT_S * 1000)),
            )
            begun_at = clock()
            yield connection
    except asyncpg.QueryCanceledError as error:
        raise QueryTooLarge from error
    except Unavailable as error:
        # None of several statements took too long, but all of them together.
        if begun_at is not None and clock() >= begun_at + STATEMENT_S:
            raise QueryTooLarge from error
        raise


async def _hold_months(connection: Connection) -> None:
    """Let no month of clicks go before the transaction ends.

    A snapshot has the rows that retention deletes meanwhile, but not those of a month that is dropped for having none.
    So this comes before the first query, which takes the snapshot; neither of these statements does.
    """
    await connection.execute(f"/* answering.hold_months */ set local lock_timeout = {round(STATEMENT_S * 1000)}")
    try:
        await connection.execute("/* answering.hold_months */ lock table clicks in access share mode")  # all of them
    except asyncpg.LockNotAvailableError as error:
        raise Unavailable from error


@contextlib.asynccontextmanager
async def understood(request: Request, organization_id: int, form: Form) -> AsyncIterator[Understood]:
    """Raises `Invalid`, `NotFound` for a link, `QueryTooLarge`, `Unavailable`."""
    async with moment(request.app.state.pool) as connection:
        yield await understand(connection, request, organization_id, form)


async def understand(connection: Connection, request: Request, organization_id: int, form: Form) -> Understood:
    """Raises `Invalid`, `NotFound` for a link."""
    wishes = await counting.of(connection, organization_id)
    asked = form.asked(request.query_params.multi_items(), wishes.time_zone, datetime.now(UTC))
    link_id = None
    if asked.link is not None:
        link_id = (await links.get(connection, organization_id, asked.link, is_deleted=None)).id
    return Understood(connection, asked, asked.question(organization_id, link_id))
