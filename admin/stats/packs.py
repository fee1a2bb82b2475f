"""Packs: counters beside the rows of clicks, in buckets of time, from which almost every question is answered.

Rules of this file:

1. A pack counts what one organization, or one busy link, has in one class and one bucket. Packs of one key add up: a
   batch brings parts, in the transaction that brings its rows, and `fold` makes one of them.
2. Hours are there at once. A coarser bucket is made of finer ones when it is over (`close`); what comes later for it is
   added to it, too. So at every moment the packs of a level, up to where it is closed, are the sums of the rows.
3. Rows that are not kept any longer become packs of quarters of an hour, of the organization and of each link. They
   take the place of the rows (retention.py), and are not among the sums above.
4. A link is busy from the hour after it had `BUSY` clicks. Before that, and of all other links, the rows are few enough
   to be read.
5. Only the holder of the lease of ingest writes packs.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from admin.database import Connection
from admin.stats.rows import Row

QUARTER_S = 900
HOURS = (1, 24, 8 * 24, 64 * 24)
"""How long a bucket of each level is. Days of UTC, and multiples of them: never of a calendar."""

QUARTERS = -1
"""The level of packs that have taken the place of rows. A bucket is a quarter of an hour."""

BUSY = 15_000

_GRACE_H = 1
COLUMNS = (
    *("organization_id", "link_id", "bucket", "level", "class", "is_part", "clicks", "anonymous", "scans", "quarters"),
    *("locations", "referrers", "platforms", "languages", "campaigns", "links", "rules", "variants"),
)
SUMS = """packed(locations), packed(referrers), packed(platforms), packed(languages), packed(campaigns), packed(links),
           packed(rules), packed(variants)"""
"""What a pack is the sum of, but for its numbers and its quarters, in the order of `COLUMNS`."""


class _Key(NamedTuple):
    organization_id: int
    link_id: int
    """0 for the whole organization."""
    bucket: int
    level: int
    class_: int


class Packs:
    """What one process knows of the packs, and adds to them."""

    def __init__(self) -> None:
        self._closed: list[int] = []
        self._busy: dict[int, int] = {}

    async def load(self, connection: Connection) -> None:
        """Read what there is; before anything else."""
        self._closed = await closed(connection)
        rows = await connection.fetch("/* packs.load */ select link_id, since from busy_links")
        self._busy = {row["link_id"]: row["since"] for row in rows}

    async def add(self, connection: Connection, rows: Iterable[Row]) -> None:
        """Count rows, in the transaction that stores them."""
        await copy(connection, parts(rows, self._busy, self._closed))

    async def close(self, connection: Connection, now_s: float) -> None:
        """Make the coarser buckets that are over, and fold what has come in parts."""
        async with connection.transaction():
            await fold(connection)
            ends = await _close(connection, int(now_s) // 3600 - _GRACE_H)
        self._closed = ends

    async def promote(self, connection: Connection, link_ids: Iterable[int]) -> None:
        """Have those of these links busy that have become so."""
        rows = await connection.fetch(
            """
            /* packs.promote */
            insert into busy_links (link_id, organization_id, since)
            select link_id, (select organization_id from clicks where clicks.link_id = link_counts.link_id limit 1),
                   floor(extract(epoch from last_at) / 3600)::integer + 1
              from link_counts where link_id = any($1) and total >= $2
            on conflict do nothing
            returning link_id, since""",
            [link_id for link_id in link_ids if link_id not in self._busy],
            BUSY,
        )
        self._busy |= {row["link_id"]: row["since"] for row in rows}


async def closed(connection: Connection) -> list[int]:
    """Up to which bucket, exclusively, each coarser level is there, from level 1 on."""
    rows = await connection.fetch("/* packs.closed */ select closed from pack_levels order by level")
    return [row["closed"] for row in rows]


def parts(rows: Iterable[Row], busy: Mapping[int, int], closed: Sequence[int]) -> list[tuple[Any, ...]]:
    """The parts that rows bring, for `copy`. `busy`: links, and since which hour; `closed`: of each coarser level."""
    groups: dict[_Key, list[Row]] = defaultdict(list)
    for row in rows:
        hour = int(row.clicked_at.timestamp()) // 3600
        groups[_Key(row.organization_id, 0, hour, 0, row.class_)].append(row)
        if busy and hour >= busy.get(row.link_id, hour + 1):
            groups[_Key(row.organization_id, row.link_id, hour, 0, row.class_)].append(row)
    for key, some in list(groups.items()):
        for level, end in enumerate(closed, start=1):
            if (bucket := key.bucket // HOURS[level]) < end:
                groups[key._replace(bucket=bucket, level=level)] += some
    return [_part(key, some) for key, some in groups.items()]


def quarters_of(rows: Iterable[Row]) -> list[tuple[Any, ...]]:
    """What takes the place of rows, for `copy`."""
    groups: dict[_Key, list[Row]] = defaultdict(list)
    for row in rows:
        quarter = int(row.clicked_at.timestamp()) // QUARTER_S
        for link_id in (0, row.link_id):
            groups[_Key(row.organization_id, link_id, quarter, QUARTERS, row.class_)].append(row)
    return [_part(key, some) for key, some in groups.items()]


def _part(key: _Key, rows: Sequence[Row]) -> tuple[Any, ...]:
    all_of: Any = Row._make(zip(*rows, strict=True))  # each column is of all rows
    return (
        *key,
        True,
        len(rows),
        all_of.visitor.count(None),
        sum(all_of.is_scan),
        _packed(int(at.timestamp()) // QUARTER_S for at in all_of.clicked_at) if key.level < 2 else None,
        _packed(all_of.location),
        _packed(all_of.referrer),
        _packed(all_of.platform),
        _packed(all_of.language),
        _packed(all_of.campaign),
        None if key.link_id else _packed(all_of.link_id),
        _packed(number or 0 for number in all_of.rule_id) if key.link_id else None,
        _packed(number or 0 for number in all_of.variant_id) if key.link_id else None,
    )


def _packed(values: Iterable[int]) -> list[int]:
    return [value << 32 | count for value, count in Counter(values).items()]


async def copy(connection: Connection, parts: Sequence[tuple[Any, ...]]) -> None:
    """Store parts."""
    await connection.copy_records_to_table("packs", records=parts, columns=COLUMNS)


async def fold(connection: Connection) -> None:
    """Make one pack of all parts of a key."""
    await connection.execute(
        f"""
        /* packs.fold */
        with parts as (delete from packs where is_part returning *),
             known as (
                 delete from packs
                  using (select distinct organization_id, link_id, level, bucket, class from parts) as touched
                  where not packs.is_part
                    and (packs.organization_id, packs.link_id, packs.level, packs.bucket, packs.class)
                      = (touched.organization_id, touched.link_id, touched.level, touched.bucket, touched.class)
                 returning packs.*)
        insert into packs ({", ".join(COLUMNS)})
        select organization_id, link_id, bucket, level, class, false, sum(clicks), sum(anonymous), sum(scans),
               packed(quarters), {SUMS}
          from (select * from parts union all select * from known) as pieces
         group by organization_id, link_id, bucket, level, class"""  # noqa: S608
    )


async def _close(connection: Connection, hour: int) -> list[int]:
    """Make what is over at an hour, level by level of the finer one."""
    ends = []
    for level, begin in enumerate(await closed(connection), start=1):
        end = max(begin, hour // HOURS[level])
        ends.append(end)
        if end > begin:
            await _make(connection, level, begin, end)
            await connection.execute(
                "/* packs.close */ update pack_levels set closed = $2 where level = $1", level, end
            )
    return ends


async def _make(connection: Connection, level: int, begin: int, end: int) -> None:
    """Make buckets of a level of those of the finer one."""
    await connection.execute(
        f"""
        /* packs.make */
        insert into packs ({", ".join(COLUMNS)})
        select organization_id, link_id, bucket / $2, level + 1, class, false, sum(clicks), sum(anonymous), sum(scans),
               case when $1 = 0 then packed(quarters) end, {SUMS}
          from packs
         where level = $1 and bucket >= $3 * $2 and bucket < $4 * $2
         group by organization_id, link_id, bucket / $2, level + 1, class""",  # noqa: S608
        level - 1,
        HOURS[level] // HOURS[level - 1],
        begin,
        end,
    )


class Span(NamedTuple):
    """Buckets of one level, from `begin` to before `end`."""

    level: int
    begin: int
    end: int


def spans(begin: int, end: int, closed: Sequence[int]) -> list[Span]:
    """The fewest buckets that are the hours from `begin` to before `end`. `closed`: of each coarser level there may be,
    up to where it is there."""
    found: list[Span] = []
    before, after = begin, end
    for level, length in enumerate(HOURS):
        if level < len(closed):
            coarser = HOURS[level + 1]
            inner = -(-before // coarser) * coarser
            outer = min(after // coarser, closed[level]) * coarser
        else:
            inner = outer = after
        if inner >= outer:  # nothing coarser fits
            found.append(Span(level, before // length, after // length))
            break
        found += [Span(level, before // length, inner // length), Span(level, outer // length, after // length)]
        before, after = inner, outer
    return [span for span in found if span.begin < span.end]
