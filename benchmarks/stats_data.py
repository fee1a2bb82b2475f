"""Clicks of a year for benchmarks, made in Postgres: rows, and the packs that ingest would have made of them.

The clicks come evenly over the year. Of 100,000 links in 50 organizations, of countries, referrers and so on, the first
of its kind comes most often (Zipf, exponent 1); the first organization has 40 % of all.
"""

from datetime import UTC, datetime, timedelta
from itertools import pairwise

from admin.database import Connection
from admin.stats import packs
from admin.stats.classify import Class
from admin.stats.packs import Packs
from admin.stats.source import FACTS

YEAR = timedelta(days=365)
LINKS, ORGANIZATIONS = 100_000, 50
_AT_ONCE = 1_000_000

# Of a kind of word, the first one's number and how many there are, in the order of `_WORDS`.
_KINDS = {
    "location": "chr(65 + number / 26 % 26) || chr(65 + number % 26)",
    "referrer": "'www' || number || '.example.com'",
    "platform": """(array['desktop', 'mobile', 'tablet'])[1 + number % 3] || E'\\t' ||
                   (array['windows', 'android', 'ios', 'macos', 'linux'])[1 + number % 5] || E'\\t' ||
                   (array['chrome', 'safari', 'firefox', 'edge', 'opera', 'samsung', 'other'])[1 + number % 7]""",
    "language": "chr(97 + number / 26 % 26) || chr(97 + number % 26) || '-XX'",
    "campaign": "'mail' || E'\\temail\\tWeek ' || number || E'\\t\\t'",
    "agent": "'Mozilla/5.0 ' || number",
}
_COUNTS = {"location": 151, "referrer": 5_001, "platform": 60, "language": 40, "campaign": 100, "agent": 200}

_CLASSES = f"""
    case when chance < 0.78 then {Class.HUMAN} when chance < 0.82 then {Class.REPEAT}
         when chance < 0.83 then {Class.HEAD} when chance < 0.89 then {Class.PREVIEW}
         when chance < 0.96 then {Class.CRAWLER} else {Class.TOOL} end"""


async def fill(connection: Connection, count: int, now: datetime) -> None:
    """Store so many clicks of the year before, on an empty database, with all that is kept beside them."""
    await connection.execute("set work_mem = '256MB'; set maintenance_work_mem = '512MB'; set synchronous_commit = off")
    for begin, _ in _months(now):
        await connection.execute("select make_month($1)", begin.date())
    # Indexes are made at the end: entry by entry it takes several times as long.
    indexes = await connection.fetch(
        "select indexname as name, indexdef as made from pg_indexes where tablename = 'clicks'"
    )
    for index in indexes:
        await connection.execute(f'drop index "{index["name"]}"')
    firsts = await _words(connection)
    for first in range(0, count, _AT_ONCE):
        await _clicks(connection, now - YEAR, YEAR / count, (first, min(first + _AT_ONCE, count)), firsts)
    for index in indexes:
        await connection.execute(index["made"].replace(" ON ONLY ", " ON "))  # of the partitions, too
    await connection.execute("analyze clicks")
    await _busy(connection)
    for begin, end in _months(now):
        await _packs(connection, begin, end)
        await _visitor_days(connection, begin, min(end, _midnight(now)))
    known = Packs()
    await known.load(connection)
    await known.close(connection, now.timestamp())
    await connection.execute("vacuum analyze")


def _months(now: datetime) -> list[tuple[datetime, datetime]]:
    """Begin and end of those of the year."""
    first = now.year * 12 + now.month - 13
    begins = [datetime(number // 12, number % 12 + 1, 1, tzinfo=UTC) for number in range(first, first + 14)]
    return list(pairwise(begins))


def _midnight(at: datetime) -> datetime:
    return at.replace(hour=0, minute=0, second=0, microsecond=0)


async def _words(connection: Connection) -> dict[str, int]:
    firsts = {}
    for name, text in _KINDS.items():
        await connection.execute(
            f"insert into words (text) select {text} from generate_series(1, $1::integer) as number"
            " on conflict do nothing",
            _COUNTS[name],
        )
        firsts[name] = await connection.fetchval(
            "select min(id) from words where text = " + text.replace("number", "1")
        )
    return firsts


async def _clicks(
    connection: Connection, begin: datetime, step: timedelta, numbers: tuple[int, int], firsts: dict[str, int]
) -> None:
    drawn = ", ".join(f"{firsts[name]} - 1 + {_drawn(_COUNTS[name])} as {name}" for name in _KINDS)
    await connection.execute(
        f"""
        insert into clicks (clicked_at, link_id, organization_id, visitor, {", ".join(_KINDS)}, class, reason, version,
                            is_head, is_prefetch, is_internal, is_use, is_scan)
        select clicked_at, link_id, {organization_of("link_id")},
               case when random() < 0.95
                    then hashint8extended(person, floor(extract(epoch from clicked_at) / 86400)::bigint) end,
               {", ".join(_KINDS)}, {_CLASSES}, 0, 1, {_CLASSES} = {Class.HEAD}, false, false, false, random() < 0.05
          from (select $1::timestamptz + (number + random()) * $2::interval as clicked_at,
                       {_drawn(LINKS)}::bigint as link_id, (random() * 200000)::bigint as person, random() as chance,
                       {drawn}
                  from generate_series($3::bigint, $4::bigint - 1) as number) as made""",
        begin,
        step,
        *numbers,
    )


def _drawn(count: int) -> str:
    """A number from 1 on, by Zipf's law: its logarithm is as likely to be here as there."""
    return f"floor(power({count + 1}, random()))::integer"


def organization_of(link_id: str) -> str:
    """As SQL."""
    return f"case when {link_id} % 3 = 1 or {link_id} = 2 then 1 else 2 + {link_id} % {ORGANIZATIONS - 1} end"


async def _busy(connection: Connection) -> None:
    await connection.execute(
        """
        insert into busy_links (link_id, organization_id, since)
        select link_id, organization_id, floor(extract(epoch from clicked_at) / 3600)::integer + 1
          from (select link_id, organization_id, clicked_at,
                       row_number() over (partition by link_id order by clicked_at) as number
                  from clicks
                 where link_id in (select link_id from clicks group by link_id having count(*) >= $1)) as numbered
         where number = $1""",
        packs.BUSY,
    )


async def _packs(connection: Connection, begin: datetime, end: datetime) -> None:
    """Those of hours, of what came in a month."""
    of_both = {fact.pack: fact.row for fact in FACTS.values() if fact.pack} | {
        "quarters": f"floor(extract(epoch from clicked_at) / {packs.QUARTER_S})::bigint"
    }
    of_links = {name: of_both.pop(name) for name in ("rules", "variants")}
    of_organizations = {"links": of_both.pop("links")}
    await connection.execute(_packing("0", of_both | of_organizations, ""), begin, end)
    join = "join busy_links using (link_id, organization_id)"
    await connection.execute(_packing("link_id", of_both | of_links, join), begin, end)


def _packing(scope: str, arrays: dict[str, str], join: str) -> str:
    bits = {name: 1 << place for place, name in enumerate(reversed(arrays))}
    packed = ", ".join(
        f"array_agg({name} << 32 | clicks) filter (where what & {bit} = 0)" for name, bit in bits.items()
    )
    none = (1 << len(arrays)) - 1
    return f"""
        insert into packs (organization_id, link_id, bucket, level, class, is_part, clicks, anonymous, scans,
                           {", ".join(bits)})
        select organization_id, scope, bucket, 0, class, false, sum(clicks) filter (where what = {none}),
               sum(anonymous) filter (where what = {none}), sum(scans) filter (where what = {none}), {packed}
          from (select organization_id, scope, bucket, class, {", ".join(arrays)},
                       grouping({", ".join(arrays)}) as what, count(*) as clicks,
                       count(*) filter (where visitor is null) as anonymous, count(*) filter (where is_scan) as scans
                  from (select organization_id, {scope} as scope, class, visitor, is_scan,
                               floor(extract(epoch from clicked_at) / 3600)::integer as bucket,
                               {", ".join(f"{row}::bigint as {name}" for name, row in arrays.items())}
                          from clicks {join}
                         where clicked_at >= $1 and clicked_at < $2
                               {"and floor(extract(epoch from clicked_at) / 3600)::integer >= since" if join else ""})
                       as chosen
                 group by organization_id, scope, bucket, class,
                          grouping sets ((), {", ".join(f"({name})" for name in arrays)})) as counted
         group by organization_id, scope, bucket, class"""


async def _visitor_days(connection: Connection, begin: datetime, end: datetime) -> None:
    """Of days (UTC) that are over."""
    await connection.execute(
        f"""
        insert into visitor_days (organization_id, link_id, begins_at, ends_at, firsts, lasts)
        with seen as (
            select organization_id, link_id, visitor, date_trunc('day', clicked_at, 'UTC') as day,
                   floor(extract(epoch from clicked_at) / 900)::integer % 96 as quarter
              from clicks where clicked_at >= $1 and clicked_at < $2 and class = {Class.HUMAN} and visitor is not null),
        visits as (
            select organization_id, 0 as link_id, day, min(quarter) as first, max(quarter) as last
              from seen group by organization_id, day, visitor
            union all
            select organization_id, link_id, day, min(quarter), max(quarter)
              from seen where link_id in (select link_id from busy_links)
             group by organization_id, link_id, day, visitor),
        counted as (
            select organization_id, link_id, day, quarter, sum(is_first) as firsts, sum(1 - is_first) as lasts
              from visits, lateral (values (first, 1), (last, 0)) as ends (quarter, is_first)
             group by organization_id, link_id, day, quarter)
        select organization_id, link_id, day, day + interval '1 day',
               array_agg(coalesce(firsts, 0) order by quarter), array_agg(coalesce(lasts, 0) order by quarter)
          from (select distinct organization_id, link_id, day from counted) as days
               cross join generate_series(0, 95) as quarter
               left join counted using (organization_id, link_id, day, quarter)
         group by organization_id, link_id, day""",
        begin,
        end,
    )
