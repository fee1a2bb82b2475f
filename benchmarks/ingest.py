"""How many clicks a second does the worker bring from the stream into Postgres, and what does a click cost?

`make bench-ingest`. Reach, on two cores with Postgres beside: 30,000 clicks a second, at most 250 bytes of disk for
each and 200 MB of memory for the worker; and below that rate at most 2 s, for 99 of 100 clicks, until they are counted.

The worker as it is run, on a Postgres and a Valkey of its own. First it drains a stream that was filled before it
began, with batches as the shipper makes them; then batches come at a pace.
"""

import argparse
import asyncio
import json
import random
import tempfile
import time
from collections import deque
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote_plus

import asyncpg
import redis as redis_py

from admin import database, embedded
from admin.database import Connection
from benchmarks.servers import cpu_of_all_s, rss_mb, started, started_worker
from shared import clicks
from shared.clicks import Batch, Click

RESULTS = Path(__file__).parent / "results"
LINKS, ORGANIZATIONS = 100_000, 50
SPOOLS = 4
BATCH = 2_000
"""Records in a MiB of heads."""
SHIPPED_EVERY_S = 0.05
PROMISED_RATE, PROMISED_BYTES, PROMISED_MB, PROMISED_DELAY_S = 30_000, 250, 200, 2.0


class Running(NamedTuple):
    """A worker, and what it works with."""

    connection: Connection
    redis: redis_py.Redis
    processes: dict[str, int]
    """Their pids, and those of the servers."""


class Feed:
    """Clicks of now, in batches of several spools."""

    def __init__(self, chance: random.Random) -> None:
        self._clicks = clicks_of(chance)
        self._positions = {f"bench-{number}": 0 for number in range(SPOOLS)}

    @property
    def count(self) -> int:
        """How many clicks there have been."""
        return sum(self._positions.values())

    def next_round(self, each: int) -> list[Batch]:
        """A batch of each spool, with so many records."""
        batches = []
        for spool, first in self._positions.items():
            batches.append(Batch(spool, first, [click.to_bytes() for click in islice(self._clicks, each)]))
            self._positions[spool] = batches[-1].end
        return batches


def main() -> None:
    """Measure and tell."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--clicks", type=int, default=1_000_000)
    arguments.add_argument("--pace", type=int, default=10_000, help="clicks a second, to measure the delay at")
    arguments.add_argument("--seconds", type=int, default=30, help="how long they come at that pace")
    told = arguments.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        figures = asyncio.run(_measure(Path(directory), told.clicks, told.pace, told.seconds))
    for name, value in figures.items():
        print(f"{name:44} {value:12,.1f}")
    print(
        f"promised: {PROMISED_RATE:,} clicks a second, {PROMISED_BYTES} bytes, {PROMISED_MB} MB, {PROMISED_DELAY_S} s"
    )
    RESULTS.joinpath("ingest.json").write_text(json.dumps(figures, indent=2) + "\n")


async def _measure(home: Path, count: int, pace: int, seconds: int) -> dict[str, float]:
    (home / "logs").mkdir()
    async with (
        started(embedded.postgres(home)) as (postgres_url, postgres),
        started(embedded.valkey(home)) as (url, valkey),
    ):
        connection, redis = await asyncpg.connect(postgres_url), redis_py.Redis.from_url(url)
        await database.migrate(connection)
        feed = Feed(random.Random(7))
        for _ in range(count // BATCH // SPOOLS):
            ship(redis, feed.next_round(BATCH))
        with started_worker(home, postgres_url, url) as worker:
            running = Running(connection, redis, {"the worker": worker, "Postgres": postgres, "Valkey": valkey})
            figures = await _drained(running)
            figures |= await _sizes(connection)
            figures |= await _paced(running, feed, pace, seconds)
            figures["worker in the end, MB"] = rss_mb([worker])
        await check(connection, feed.count)
        await connection.close()
    return figures


async def _drained(running: Running) -> dict[str, float]:
    """What it takes to empty the stream. The worker has just been started; it counts from its first commit on."""
    while not (begun_with := await stored(running.connection)):  # noqa: ASYNC110  it says so nowhere else
        await asyncio.sleep(0.01)
    used = {name: cpu_of_all_s([pid]) for name, pid in running.processes.items()}
    begun, seen_mb = time.monotonic(), []
    while running.redis.xlen(clicks.STREAM):
        await asyncio.sleep(0.2)
        seen_mb.append(rss_mb([running.processes["the worker"]]))
    took_s, count = time.monotonic() - begun, await stored(running.connection) - begun_with
    if not count:
        raise SystemExit("the first commit had all of them; more --clicks are needed")
    third = max(1, len(seen_mb) // 3)
    cpu_us = {name: (cpu_of_all_s([pid]) - used[name]) * 1e6 / count for name, pid in running.processes.items()}
    return {
        "clicks": count,
        "clicks a second": count / took_s,
        **{f"CPU of {name}, us a click": us for name, us in cpu_us.items()},
        "CPU of all, us a click": sum(cpu_us.values()),
        "worker in the first third, MB": max(seen_mb[:third]),
        "worker in the last third, MB": max(seen_mb[-third:]),
    }


async def _sizes(connection: Connection) -> dict[str, float]:
    """Bytes of disk for each click, with indexes."""
    rows = await connection.fetch("""
        select case when relname like 'clicks\\_%' and relispartition then 'clicks' else relname end as name,
               sum(pg_total_relation_size(oid)) as size, sum(pg_indexes_size(oid)) as of_indexes
          from pg_class
         where relkind = 'r' and (relname in ('packs', 'words', 'link_counts', 'visitor_salts') or relispartition)
         group by 1 order by 1""")
    count = await stored(connection)
    each = {f"bytes of {row['name']}, a click": float(row["size"]) / count for row in rows}
    indexes = sum(float(row["of_indexes"]) for row in rows if row["name"] == "clicks") / count
    return {**each, "of these in indexes of clicks": indexes, "bytes of all, a click": sum(each.values())}


async def _paced(running: Running, feed: Feed, pace: int, seconds: int) -> dict[str, float]:
    """How long it takes from the oldest click of a batch until it is counted, if so many come in a second."""
    each = round(pace * SHIPPED_EVERY_S / SPOOLS)
    waiting: dict[str, deque[tuple[int, float]]] = {f"bench-{number}": deque() for number in range(SPOOLS)}
    delays_s: list[float] = []
    begun, rounds = time.time(), round(seconds / SHIPPED_EVERY_S)
    for number in range(rounds):
        made_at, batches = time.time(), feed.next_round(each)
        while time.time() < begun + (number + 1) * SHIPPED_EVERY_S:
            await asyncio.sleep(0.01)
            await _look(running.connection, waiting, delays_s)
        for batch in batches:
            waiting[batch.spool].append((batch.end, made_at))
        ship(running.redis, batches)
    while any(waiting.values()):
        await asyncio.sleep(0.01)
        await _look(running.connection, waiting, delays_s)
    delays_s.sort()
    return {
        "paced: clicks a second": each * SPOOLS * rounds / (time.time() - begun),
        "paced: delay of half of them, s": delays_s[len(delays_s) // 2],
        "paced: delay of 99 of 100, s": delays_s[len(delays_s) * 99 // 100],
        "paced: longest delay, s": delays_s[-1],
    }


async def _look(connection: Connection, waiting: dict[str, deque[tuple[int, float]]], delays_s: list[float]) -> None:
    """Note how long those had to wait that are counted now."""
    rows = await connection.fetch("select spool_id, position from click_sources")
    now = time.time()
    for row in rows:
        batches = waiting[row["spool_id"]]
        while batches and batches[0][0] <= row["position"]:
            delays_s.append(now - batches.popleft()[1])


async def stored(connection: Connection) -> int:
    """How many records of the stream are dealt with."""
    found: int = await connection.fetchval("select coalesce(sum(position), 0)::bigint from click_sources")
    return found


async def check(connection: Connection, count: int) -> None:
    """See that so many clicks were shipped, stored and counted."""
    told = await connection.fetchrow("""
        select (select sum(position) from click_sources) as shipped,
               (select count(*) from clicks) as stored,
               (select sum(clicks) from packs where level = 0 and link_id = 0) as packed""")
    assert told is not None
    if set(told.values()) != {count}:
        raise SystemExit(f"the numbers differ: there were {count}, and now there are {dict(told)}")


def ship(redis: redis_py.Redis, batches: list[Batch]) -> None:
    """Put batches on the stream."""
    writing = redis.pipeline(transaction=False)
    for batch in batches:
        writing.xadd(clicks.STREAM, batch.to_fields())  # type: ignore[arg-type]
    writing.execute()


def clicks_of(chance: random.Random, links: int = LINKS) -> Iterator[Click]:
    """Clicks of now for ever. Of all that can be chosen, the first is chosen most often (Zipf, exponent 1)."""
    agents = _agents()
    referrers = ["", *(f"https://www{number}.example.com/news/article-{number}" for number in range(5_000))]
    languages = [
        f"{one},{one.partition('-')[0]};q=0.9,en;q=0.8"
        for one in ("en-US", "pt-BR", "de-DE", "es-ES", "fr-FR", "hi-IN", "id-ID", "ja-JP", "tr-TR", "pl-PL", "ne-NP")
    ]
    campaigns = [
        "utm_source=mail&utm_medium=email&utm_campaign=" + quote_plus(f"Week {number}") for number in range(99)
    ]
    addresses = [
        f"{chance.randrange(1, 224)}.{chance.randrange(256)}.{chance.randrange(256)}.{chance.randrange(256)}"
        for _ in range(200_000)
    ]
    while True:
        link_id = _rank(chance, links)
        yield Click(
            time.time_ns() // 1_000_000,
            link_id,
            organization_of(link_id),
            "HEAD" if chance.random() < 0.01 else "GET",
            chance.choice(addresses),
            agents[_rank(chance, len(agents)) - 1],
            referrers[_rank(chance, len(referrers)) - 1],
            is_scan=chance.random() < 0.05,
            accept_language=languages[_rank(chance, len(languages)) - 1],
            campaign=campaigns[_rank(chance, len(campaigns)) - 1] if chance.random() < 0.3 else "",
        )


def organization_of(link_id: int) -> int:
    """The first of them has 40 % of the clicks."""
    return 1 if link_id % 3 == 1 or link_id == 2 else 2 + link_id % (ORGANIZATIONS - 1)


def _rank(chance: random.Random, count: int) -> int:
    """From 1 to `count`, by Zipf's law: its logarithm is as likely to be here as there."""
    return int((count + 1) ** chance.random())


def _agents() -> list[str]:
    """200, of which a seventh are no people's."""
    systems = [
        "Linux; Android 10; K",
        "Windows NT 10.0; Win64; x64",
        "Macintosh; Intel Mac OS X 10_15_7",
        "X11; Linux x86_64",
        "iPhone; CPU iPhone OS 18_6 like Mac OS X",
    ]
    others = [
        "curl/8.{}",
        "facebookexternalhit/1.{}",
        "Mozilla/5.0 (compatible; Googlebot/2.{}; +http://google.com/bot)",
    ]
    made = []
    for number in range(200):
        version, system = 142 - number // 5, systems[number % 5]
        mobile = " Mobile" if "Android" in system else ""
        browser = f"537.36 (KHTML, like Gecko) Chrome/{version}.0.0.0{mobile} Safari/537.36"
        if "iPhone" in system:
            browser = f"605.1.15 (KHTML, like Gecko) Version/{version - 116}.0 Mobile/15E148 Safari/604.1"
        browser = f"Mozilla/5.0 ({system}) AppleWebKit/{browser}"
        made.append(others[number // 7 % 3].format(number) if number % 7 == 6 else browser)
    return made


if __name__ == "__main__":
    main()
