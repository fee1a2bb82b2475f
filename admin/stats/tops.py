"""Tops: the links with most clicks, without adding up those of all others.

A year of an organization has a hundred thousand links in each of some packs, and ten of them are asked for. So a pack
that counts many has its heads, too: the links with most clicks in it (migration 0016).

Rules of this file:

1. What is found is exact, or nothing. A link that is not among the heads of a pack has no more clicks in it than the
   least of them has. So no link has more than what the heads say of it and all those leasts together: whoever may be
   among the first by that is looked up in every pack.
2. Whoever asks for more than that can tell has to add up everything.
"""

from admin.database import Connection
from admin.stats.source import Counted, Question, Source

MOST = 500
"""So many are looked up at most; a hundred takes 2 ms in each pack that has heads."""


async def links(connection: Connection, question: Question, limit: int) -> list[Counted] | None:
    """Those of an organization with most clicks, at most `MOST`, or None when heads can't tell."""
    source = await Source.of(connection, question)
    most = source.argument(MOST + 1)
    found = await source.fetch(
        connection,
        "tops.links",
        f"""
        select number, sum(clicks::float8)::bigint as clicks from {{pieces}} (number, clicks)
         group by number order by clicks desc, number limit {most}""",  # noqa: S608
        packs="""
        select item >> 32, item & 4294967295
          from (select unnest(coalesce(heads, links)) as item from {packs}) as items""",
        rows="select link_id, count(*) from {rows} group by 1",
    )
    [row] = await source.fetch(
        connection,
        "tops.unseen",
        "select coalesce(sum(clicks), 0)::bigint as clicks from {pieces} (clicks)",
        packs="select heads[cardinality(heads)] & 4294967295 from {packs} where heads is not null",
        rows="select 0 from {rows} where false",
    ) or [{"clicks": 0}]
    unseen: int = row["clicks"]
    if not unseen:
        return [Counted(*row) for row in found[:limit]]
    if limit > len(found):
        return None
    least = found[limit - 1]["clicks"]
    candidates = [row["number"] for row in found if row["clicks"] + unseen >= least]
    # Of a link that is in no heads nothing is known, and of those behind the last candidate neither.
    if unseen >= least or len(candidates) > MOST:
        return None
    exact = await _counted(connection, source, candidates)
    return sorted(exact, key=lambda one: (-one.clicks, one.value))[:limit]


async def _counted(connection: Connection, source: Source, wanted: list[int]) -> list[Counted]:
    """How many clicks these links have."""
    numbers = source.argument(wanted)
    rows = await source.fetch(
        connection,
        "tops.counted",
        "select number, sum(clicks::float8)::bigint as clicks from {pieces} (number, clicks) group by number",
        packs=f"""
        select found.number, found.clicks
          from {{packs}}, unnest({numbers}::bigint[], counts_in(links, {numbers}::bigint[])) as found (number, clicks)
         where heads is not null
        union all
        select item >> 32, item & 4294967295
          from (select unnest(links) as item from {{packs}} where heads is null) as items
         where item >> 32 = any({numbers}::bigint[])""",  # noqa: S608
        rows=f"select link_id, count(*) from {{rows}} where link_id = any({numbers}::bigint[]) group by 1",  # noqa: S608
    )
    return [Counted(*row) for row in rows]
