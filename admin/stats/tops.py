"""Tops: the links with most clicks, without adding up those of all others.

A year of an organization has a hundred thousand links in each of some packs, and ten of them are asked for. So a pack
that counts many has its heads, too: the links with most clicks in it (migration 0016).

Rules of this file:

1. What is found is exact, or nothing. A link that is not among the heads of a pack has no more clicks in it than the
   least of them has. So no link has more than what the heads say of it and all those leasts together: whoever may be
   among the first by that is looked up in every pack.
2. A pack without heads is added up as a whole.
3. Whoever asks for more than that can tell has to add up everything.
"""

from admin.database import Connection
from admin.stats.source import Counted, Question, Source

MOST = 500
"""So many are looked up at most; a hundred takes 2 ms in each pack that has heads."""


async def links(connection: Connection, question: Question, limit: int) -> tuple[list[Counted], int] | None:
    """Those of an organization with most clicks, at most `MOST`, and how many clicks others have; or None when heads
    can't tell."""
    source = await Source.of(connection, question)
    most = source.argument(MOST + 1)
    found = await source.fetch(
        connection,
        "tops.links",
        f"""
        select number, sum(clicks::float8)::bigint as clicks,
               coalesce(sum(clicks::float8) filter (where is_all), 0)::bigint as outside
          from {{pieces}} (number, clicks, is_all)
         group by number order by clicks desc, number limit {most}""",  # noqa: S608
        packs="""
        select item >> 32, item & 4294967295, is_all
          from (select unnest(coalesce(heads, links)) as item, heads is null as is_all from {packs}) as items""",
        rows="select link_id, count(*), true from {rows} group by 1",
    )
    sums = await source.fetch(
        connection,
        "tops.sums",
        "select sum(clicks)::bigint as clicks, sum(unseen)::bigint as unseen from {pieces} (clicks, unseen)",
        packs="select clicks, coalesce(heads[cardinality(heads)] & 4294967295, 0) from {packs}",
        rows="select count(*), 0 from {rows}",
    )
    if not found:
        return [], 0
    unseen: int = sums[0]["unseen"]
    # Of a link that is in no heads nothing is known, and of those behind the last candidate neither.
    least = found[limit - 1]["clicks"] if limit <= len(found) else 0
    candidates = [row for row in found if row["clicks"] + unseen >= least] if unseen else found[:limit]
    if unseen and (unseen >= least or len(candidates) > MOST):
        return None
    inside = await _inside(connection, source, [row["number"] for row in candidates]) if unseen else {}
    exact = [
        Counted(row["number"], row["outside"] + inside[row["number"]] if unseen else row["clicks"])
        for row in candidates
    ]
    first = sorted(exact, key=lambda one: (-one.clicks, one.value))[:limit]
    return first, sums[0]["clicks"] - sum(one.clicks for one in first)


async def _inside(connection: Connection, source: Source, wanted: list[int]) -> dict[int, int]:
    """How many clicks these links have in the packs that have heads."""
    numbers = source.argument(wanted)
    rows = await source.fetch(
        connection,
        "tops.inside",
        "select number, sum(clicks::float8)::bigint as clicks from {pieces} (number, clicks) group by number",
        packs=f"""
        select found.number, found.clicks
          from {{packs}}, unnest({numbers}::bigint[], counts_in(links, {numbers}::bigint[])) as found (number, clicks)
         where heads is not null""",  # noqa: S608
        rows="select 0::bigint, 0::bigint from {rows} where false",
    )
    return {row["number"]: row["clicks"] for row in rows}
