"""Packs: counters beside the rows of clicks, in buckets of time, from which almost every question is answered.

Rules of this file:

1. A pack counts what one organization, or one busy link, has in one class and one bucket. Packs of one key add up: a
   batch brings parts, in the transaction that brings its rows, and `fold` makes one of them.
2. Hours are there at once. A coarser bucket is made of finer ones when it is over (`close`); what comes later for it is
   added to it, too. So at every moment the packs of a level, up to where it is closed, are the sums of the rows.
3. Rows that are not kept any longer become packs of quarters of an hour, of the organization and of each link. They
   take the place of the rows (retention.py), and are not among the sums above.
4. Rows that go, or become something else, are taken out of every pack that counts them, in the transaction that changes
   them (`replace`).
5. A link is busy from the hour after it had `BUSY` clicks. Before that, and of all other links, the rows are few enough
   to be read.
6. Only the holder of the lease of ingest writes packs.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, NamedTuple

import asyncpg

from admin.database import Connection
from admin.stats.classify import Class
from admin.stats.rows import Row

QUARTER_S = 900
HOURS = (1, 24, 8 * 24, 64 * 24)
"""How long a bucket of each level is. Days of UTC, and multiples of them: never of a calendar."""

QUARTERS = -1
"""The level of packs that have taken the place of rows. A bucket is a quarter of an hour."""

BUSY = 15_000

Part = tuple[Any, ...]
"""A pack as it is stored, in the order of `_COLUMNS`. One that takes away has numbers below 0."""

_GRACE_H = 1
_KEY = ("organization_id", "link_id", "bucket", "level", "class")
_NUMBERS = ("clicks", "anonymous", "scans")
_OF_ALL = ("locations", "referrers", "platforms", "languages", "campaigns")
_ARRAYS = (*_OF_ALL, "links", "rules", "variants")
_COLUMNS = ", ".join((*_KEY, "is_part", *_NUMBERS, "quarters", *_ARRAYS))
_GROUP = ", ".join(_KEY)
_SUMS = ", ".join(f"sum({name})" for name in _NUMBERS)
_PACKED = ", ".join(f"packed({name})" for name in _ARRAYS)
_LESS = ", ".join(
    f"less(packed({name}) filter (where clicks > 0), packed({name}) filter (where clicks < 0))"
    for name in ("quarters", *_ARRAYS)
)


class _Key(NamedTuple):
    organization_id: int
    link_id: int
    """0 for the whole organization."""
    bucket: int
    level: int
    class_: int

    def with_coarser(self, closed: Sequence[int]) -> Iterator["_Key"]:
        """That of an hour, and those of the coarser buckets which have the hour and are there."""
        yield self
        for level, end in enumerate(closed, start=1):
            if (bucket := self.bucket // HOURS[level]) < end:
                yield self._replace(bucket=bucket, level=level)


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
        await _copy(connection, _parts(rows, self._busy, self._closed))

    async def replace(self, connection: Connection, gone: Iterable[Row], come: Iterable[Row] = ()) -> None:
        """Count no longer these rows but those, in the transaction that changes them."""
        taken = [_taken(part) for part in _parts(gone, self._busy, self._closed)]
        await _exchange(connection, taken + _parts(come, self._busy, self._closed))

    async def forget_quarters(
        self, connection: Connection, organization_id: int, link_id: int, begin: int, end: int
    ) -> int:
        """Take a link's clicks out of what has taken the place of rows, and of all that counts them, from one quarter
        of an hour to before another; how many."""
        found = await connection.fetch(
            f"""
            /* packs.forget_quarters */
            select {_COLUMNS} from packs
             where organization_id = $1 and link_id = $2 and level = $3 and class = any($4::smallint[])
               and bucket >= $5 and bucket < $6""",  # noqa: S608
            organization_id,
            link_id,
            QUARTERS,
            sorted(Class),  # all of them: the index has the class before the bucket
            begin,
            end,
        )
        await _exchange(connection, [_taken(part) for pack in found for part in self._parts_of_quarter(pack)])
        return sum(pack["clicks"] for pack in found)

    def _parts_of_quarter(self, pack: asyncpg.Record) -> Iterator[Part]:
        """What a link's quarter of an hour has brought, there and wherever else it is counted."""
        hour = pack["bucket"] * QUARTER_S // 3600
        for link_id in (0, pack["link_id"]):
            of_hour = _Key(pack["organization_id"], link_id, hour, 0, pack["class"])
            keys = [of_hour._replace(bucket=pack["bucket"], level=QUARTERS)]
            if not link_id or hour >= self._busy.get(link_id, hour + 1):
                keys += of_hour.with_coarser(self._closed)
            for key in keys:
                yield (
                    *(*key, True, *(pack[name] for name in _NUMBERS)),
                    [pack["bucket"] << 32 | pack["clicks"]] if key.level < 2 else None,
                    *(pack[name] for name in _OF_ALL),
                    None if link_id else [pack["link_id"] << 32 | pack["clicks"]],
                    *((pack["rules"], pack["variants"]) if link_id else (None, None)),
                )

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


def _parts(rows: Iterable[Row], busy: Mapping[int, int], closed: Sequence[int]) -> list[Part]:
    """What rows bring. `busy`: links, and since which hour; `closed`: of each coarser level."""
    groups: dict[_Key, list[Row]] = defaultdict(list)
    for row in rows:
        hour = int(row.clicked_at.timestamp()) // 3600
        groups[_Key(row.organization_id, 0, hour, 0, row.class_)].append(row)
        if busy and hour >= busy.get(row.link_id, hour + 1):
            groups[_Key(row.organization_id, row.link_id, hour, 0, row.class_)].append(row)
    for hour_key, some in list(groups.items()):
        for key in islice(hour_key.with_coarser(closed), 1, None):
            groups[key] += some
    return [_part(key, some) for key, some in groups.items()]


def _taken(part: Part) -> Part:
    """What takes a part away that was added."""
    return (*part[:6], *(-number for number in part[6:9]), *part[9:])


async def keep_quarters(connection: Connection, rows: Iterable[Row]) -> None:
    """Have packs of quarters of an hour that take the place of rows."""
    groups: dict[_Key, list[Row]] = defaultdict(list)
    for row in rows:
        quarter = int(row.clicked_at.timestamp()) // QUARTER_S
        for link_id in (0, row.link_id):
            groups[_Key(row.organization_id, link_id, quarter, QUARTERS, row.class_)].append(row)
    await _copy(connection, [_part(key, some) for key, some in groups.items()])


def _part(key: _Key, rows: Sequence[Row]) -> Part:
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


async def _copy(connection: Connection, parts: Sequence[Part]) -> None:
    await connection.copy_records_to_table("packs", records=parts, columns=_COLUMNS.split(", "))


async def _exchange(connection: Connection, parts: Sequence[Part]) -> None:
    """Add some parts and take others away; of each key that has any there is one pack then, or none."""
    if not parts:
        return
    await _copy(connection, parts)
    await connection.execute(
        f"""
        /* packs.exchange */
        with pieces as (
            delete from packs
             using unnest($1::bigint[], $2::bigint[], $3::integer[], $4::smallint[], $5::smallint[])
                   as key (own, link, place, at, kind)
             where organization_id = own and link_id = link and bucket = place and level = at and class = kind
            returning packs.*)
        insert into packs ({_COLUMNS})
        select {_GROUP}, false, {_SUMS}, {_LESS} from pieces group by {_GROUP} having sum(clicks) <> 0""",  # noqa: S608
        *(list(values) for values in zip(*{part[:5] for part in parts}, strict=True)),
    )


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
        insert into packs ({_COLUMNS})
        select {_GROUP}, false, {_SUMS}, packed(quarters), {_PACKED}
          from (select * from parts union all select * from known) as pieces
         group by {_GROUP}"""  # noqa: S608
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
        insert into packs ({_COLUMNS})
        select organization_id, link_id, bucket / $2, level + 1, class, false, {_SUMS},
               case when $1 = 0 then packed(quarters) end, {_PACKED}
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
