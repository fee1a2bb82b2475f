"""The pipeline: what became of every click, in numbers that add up.

For each spool *served = recorded + dropped* and *recorded = stored + set aside + in spool + lost*. What was served,
recorded and dropped is counted by the worker that writes the spool; the rest is what Postgres knows. The report of an
open spool is up to a second old: what Postgres has by now was recorded, whatever the report says.
"""

import asyncio
from typing import NamedTuple

from admin.database import Connection
from admin.stats import sources
from shared.clicks import SpoolReport
from shared.redis import LOST, Redis, RedisError

_CLOSED_SHOWN = 20
_PATIENCE_S = 0.5
"""With a Redis that does not answer; a request has 1.2 seconds for all of its work."""


class Numbers(NamedTuple):
    """What became of clicks."""

    served: int = 0
    recorded: int = 0
    dropped: int = 0
    stored: int = 0
    set_aside: int = 0
    in_spool: int = 0
    lost: int = 0

    def plus(self, other: "Numbers") -> "Numbers":
        """Both together."""
        return Numbers(*(one + another for one, another in zip(self, other, strict=True)))


class Spool(NamedTuple):
    """One spool."""

    spool: str
    host: str | None
    is_open: bool
    numbers: Numbers


class Loss(NamedTuple):
    """Clicks that can't be had any more."""

    spool: str
    clicks: int
    reason: str


class Pipeline(NamedTuple):
    """All spools: the open ones and the last closed ones by themselves, and the sum of all there ever were."""

    total: Numbers
    spools: list[Spool]
    losses: list[Loss]
    is_current: bool
    """Whether the shippers' reports could be read; without them an open spool shows what was last written down."""


async def show(connection: Connection, redis: Redis) -> Pipeline:
    """What became of every click so far."""
    try:
        async with asyncio.timeout(_PATIENCE_S):
            reports, is_current = await sources.reported(redis), True
    except (*LOST, RedisError):
        reports, is_current = {}, False
    rows = await connection.fetch(
        """
        /* pipeline.show */
        select * from click_sources
         where closed_at is null or spool_id = any($1::text[])
            or spool_id in (select spool_id from click_sources where closed_at is not null
                             order by closed_at desc limit $2)
         order by closed_at desc, spool_id""",
        [spool for spool, report in reports.items() if not report.is_finished],
        _CLOSED_SHOWN,
    )
    spools = []
    for row in rows:
        counted: tuple[int, int, int] = (row["served"], row["recorded"], row["dropped"])
        is_open = row["closed_at"] is None
        if is_open and (report := reports.get(row["spool_id"])):
            counted = (
                max(row["served"], report.served),
                max(row["recorded"], report.recorded),
                max(row["dropped"], report.dropped),
            )
        numbers = _numbers(counted, row["position"], row["set_aside"], row["lost"])
        spools.append(Spool(row["spool_id"], row["host"], is_open, numbers))
    known = {row["spool_id"] for row in rows}
    spools += [
        _unheard(spool, report) for spool, report in reports.items() if not report.is_finished and spool not in known
    ]
    shown_open = [spool for spool in spools if spool.is_open]
    # All others, also those that were closed, opened or new since the query above: each spool is in the sum once.
    total = await _sum_without(connection, [spool.spool for spool in shown_open])
    for spool in shown_open:
        total = total.plus(spool.numbers)
    return Pipeline(total, spools, await _losses(connection), is_current)


def _numbers(counted: tuple[int, int, int], position: int, set_aside: int, lost: int) -> Numbers:
    served, recorded, dropped = counted
    recorded = max(recorded, position)
    served = max(served, recorded + dropped)
    return Numbers(
        served=served,
        recorded=recorded,
        dropped=served - recorded,  # what was begun and not recorded, too
        stored=position - set_aside - lost,
        set_aside=set_aside,
        in_spool=recorded - position,
        lost=lost,
    )


def _unheard(spool: str, report: SpoolReport) -> Spool:
    """A spool of which nothing is in Postgres yet."""
    return Spool(spool, report.host, True, _numbers((report.served, report.recorded, report.dropped), 0, 0, 0))


async def _sum_without(connection: Connection, spools: list[str]) -> Numbers:
    """All spools but these, as `_numbers` counts."""
    rows = await connection.fetch(
        """
        /* pipeline.sum_without */
        with counted as (
            select *, greatest(recorded, position) as known,
                   greatest(served, greatest(recorded, position) + dropped) as begun
              from click_sources where spool_id <> all($1::text[])
        )
        select coalesce(sum(begun), 0)::bigint, coalesce(sum(known), 0)::bigint,
               coalesce(sum(begun - known), 0)::bigint, coalesce(sum(position - set_aside - lost), 0)::bigint,
               coalesce(sum(set_aside), 0)::bigint, coalesce(sum(known - position), 0)::bigint,
               coalesce(sum(lost), 0)::bigint
          from counted""",
        spools,
    )
    return Numbers(*rows[0])


async def _losses(connection: Connection) -> list[Loss]:
    rows = await connection.fetch(
        """
        /* pipeline.losses */
        select spool_id, count, reason from clicks_lost order by lost_at desc, position desc limit 20"""
    )
    return [Loss(*row) for row in rows]
