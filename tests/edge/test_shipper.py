"""The shipper, on a real Valkey: what it puts on the stream, when it ships again, and when a spool may go."""

import asyncio
import signal
import subprocess
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from admin import embedded
from edge.settings import EdgeSettings
from edge.shipper import Shipper
from edge.shipper import run as run_shipper
from edge.spool import SUFFIX, Spool
from shared import clicks
from shared.clicks import Batch
from shared.redis import LOST, Redis, open_redis
from shared.settings import load
from tests.conftest import Servers
from tests.conftest import run as start
from tests.shared.waiting import until

OwnValkey = tuple[embedded.Server, "subprocess.Popen[bytes]"]


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    directory = tmp_path / "spool"
    directory.mkdir()
    return directory


@pytest.fixture
def shipper(directory: Path, redis: Redis) -> Shipper:
    return Shipper(directory, redis)


def write(directory: Path, name: str, content: bytes) -> Path:
    """A spool that nobody writes to any more."""
    path = directory / (name + SUFFIX)
    path.write_bytes(content)
    return path


def spools(directory: Path) -> set[str]:
    return {path.stem for path in directory.glob("*" + SUFFIX)}


async def on_stream(redis: Redis) -> list[tuple[bytes, Batch]]:
    """The entries of the stream, oldest first."""
    entries: Any = await redis.xrange(clicks.STREAM)
    return [(entry_id, Batch.from_fields(fields)) for entry_id, fields in entries]


async def shipped(redis: Redis) -> list[Batch]:
    return [batch for _, batch in await on_stream(redis)]


async def commit(redis: Redis, spool: str, position: int) -> None:
    """Tell the shipper, as ingest does after its transaction."""
    await redis.hset(clicks.COMMITTED_KEY, spool, str(position))


async def ship_all(shipper: Shipper) -> int:
    """Step until there is nothing to ship; the number of records."""
    count = 0
    for _ in range(200):
        taken = await shipper.step()
        if not taken:
            return count
        count += taken
    raise AssertionError("it ships without end")


# Batches.


async def test_a_batch_says_its_spool_the_number_of_its_first_record_and_the_records(
    directory: Path, shipper: Shipper, redis: Redis
) -> None:
    spool = Spool(directory)
    spool.append(b"a")
    spool.append(b"b")
    assert await shipper.step() == 2
    spool.append(b"c")
    assert await shipper.step() == 1
    [name] = spools(directory)
    assert await shipped(redis) == [Batch(name, 0, [b"a", b"b"]), Batch(name, 2, [b"c"])]
    spool.close()


async def test_without_a_doubt_nothing_is_shipped_twice(directory: Path, shipper: Shipper, redis: Redis) -> None:
    spool = Spool(directory)
    spool.append(b"a")
    [name] = spools(directory)
    assert [await shipper.step() for _ in range(4)] == [1, 0, 0, 0]
    await commit(redis, name, 1)
    assert await shipper.step() == 0
    spool.close()
    assert await shipper.step() == 0
    assert await shipped(redis) == [Batch(name, 0, [b"a"])]


async def test_the_spools_of_all_workers_are_shipped_also_of_dead_ones(
    directory: Path, shipper: Shipper, redis: Redis
) -> None:
    write(directory, "dead", b"a\nb\n")
    living = Spool(directory)
    living.append(b"c")
    [name] = spools(directory) - {"dead"}
    assert await shipper.step() == 3
    assert sorted(await shipped(redis)) == sorted([Batch("dead", 0, [b"a", b"b"]), Batch(name, 0, [b"c"])])
    living.close()


async def test_a_spool_that_has_no_name_yet_is_left_alone(directory: Path, shipper: Shipper) -> None:
    (directory / ".0123456789abcdef.new").write_bytes(b"a\n")
    assert await shipper.step() == 0


async def test_a_line_without_its_newline_is_no_record_until_the_newline_is_there(
    directory: Path, shipper: Shipper, redis: Redis
) -> None:
    path = write(directory, "spool", b"one\ntw")
    assert await shipper.step() == 1
    assert await shipper.step() == 0
    with path.open("ab") as file:
        file.write(b"o\nthree")
    assert await shipper.step() == 1
    assert await shipped(redis) == [Batch("spool", 0, [b"one"]), Batch("spool", 1, [b"two"])]


async def test_empty_records_have_their_numbers_too(directory: Path, shipper: Shipper, redis: Redis) -> None:
    write(directory, "spool", b"\n\na\n")
    await ship_all(shipper)
    assert await shipped(redis) == [Batch("spool", 0, [b"", b"", b"a"])]


async def test_a_large_spool_is_shipped_in_batches_of_bounded_size_without_hole_or_overlap(
    directory: Path, shipper: Shipper, redis: Redis
) -> None:
    records = [b"%06d" % number * 25 for number in range(10_000)]
    write(directory, "spool", b"".join(record + b"\n" for record in records))
    assert await ship_all(shipper) == len(records)
    batches = await shipped(redis)
    assert len(batches) > 1
    assert all(len(b"\n".join(batch.records)) <= 256 * 1024 for batch in batches)
    assert [batch.first for batch in batches] == [0, *(batch.end for batch in batches[:-1])]
    assert [record for batch in batches for record in batch.records] == records


async def test_a_record_longer_than_a_batch_is_shipped_whole(directory: Path, shipper: Shipper, redis: Redis) -> None:
    long = b"x" * (600 * 1024)
    write(directory, "spool", b"a\n" + long + b"\nb\n")
    await ship_all(shipper)
    assert [record for batch in await shipped(redis) for record in batch.records] == [b"a", long, b"b"]


async def test_what_waits_uncommitted_on_the_stream_is_bounded(directory: Path, shipper: Shipper, redis: Redis) -> None:
    """20,000 records of a spool, and at most one batch beyond them, so that Redis keeps room for the links."""
    records = [b"%06d" % number * 25 for number in range(30_000)]
    write(directory, "spool", b"".join(record + b"\n" for record in records))
    in_one_batch = 256 * 1024 // len(records[0])
    first = await ship_all(shipper)
    assert 20_000 <= first < 20_000 + in_one_batch
    assert await shipper.step() == 0
    await commit(redis, "spool", 5_000)
    second = await ship_all(shipper)
    assert 25_000 <= first + second < 25_000 + in_one_batch
    await commit(redis, "spool", first + second)
    await ship_all(shipper)
    assert [record for batch in await shipped(redis) for record in batch.records] == records


async def test_a_spool_that_waits_for_its_commits_does_not_hold_up_the_others(
    directory: Path, shipper: Shipper, redis: Redis
) -> None:
    write(directory, "full", b"x\n" * 25_000)
    await ship_all(shipper)
    write(directory, "other", b"a\n")
    await ship_all(shipper)
    assert Batch("other", 0, [b"a"]) in await shipped(redis)


# Doubt.


async def test_a_new_shipper_goes_on_from_what_is_committed(directory: Path, redis: Redis) -> None:
    write(directory, "spool", b"a\nb\nc\n")
    await commit(redis, "spool", 2)
    assert await ship_all(Shipper(directory, redis)) == 1
    assert await shipped(redis) == [Batch("spool", 2, [b"c"])]


async def test_a_new_shipper_ships_again_what_another_one_shipped_and_nobody_committed(
    directory: Path, redis: Redis
) -> None:
    write(directory, "spool", b"a\nb\n")
    for _ in range(2):
        assert await ship_all(Shipper(directory, redis)) == 2
    assert await shipped(redis) == [Batch("spool", 0, [b"a", b"b"])] * 2


async def test_after_redis_lost_its_data_the_shipper_ships_again_from_the_committed_position(
    directory: Path, shipper: Shipper, redis: Redis
) -> None:
    write(directory, "spool", b"a\nb\nc\n")
    assert await ship_all(shipper) == 3
    await commit(redis, "spool", 1)
    assert await ship_all(shipper) == 0
    await redis.flushall()
    assert await ship_all(shipper) == 2
    assert await shipped(redis) == [Batch("spool", 1, [b"b", b"c"])]
    assert await ship_all(shipper) == 0  # once is enough


async def test_another_shipper_that_is_first_to_see_the_loss_hides_it_from_nobody(tmp_path: Path, redis: Redis) -> None:
    """Shippers of several machines share the stream and its epoch."""
    shippers = []
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
        write(tmp_path / name, name, b"a\n")
        shippers.append(Shipper(tmp_path / name, redis))
    assert [await ship_all(shipper) for shipper in shippers] == [1, 1]
    assert [await ship_all(shipper) for shipper in shippers] == [0, 0]
    await redis.flushall()
    assert [await ship_all(shipper) for shipper in shippers] == [1, 1]
    assert sorted(await shipped(redis)) == [Batch("here", 0, [b"a"]), Batch("there", 0, [b"a"])]
    assert [await ship_all(shipper) for shipper in shippers] == [0, 0]


async def test_a_reported_gap_is_shipped_again_and_the_report_is_taken_away(
    directory: Path, shipper: Shipper, redis: Redis
) -> None:
    write(directory, "other", b"x\n")
    write(directory, "spool", b"a\nb\nc\n")
    await ship_all(shipper)
    await commit(redis, "spool", 1)
    await redis.delete(clicks.STREAM)
    await redis.hset(clicks.GAPS_KEY, "spool", "1")
    assert await ship_all(shipper) == 2
    assert await shipped(redis) == [Batch("spool", 1, [b"b", b"c"])]  # and nothing of the other spool
    assert not await redis.exists(clicks.GAPS_KEY)
    assert await ship_all(shipper) == 0


async def test_after_an_error_nothing_is_taken_for_shipped(directory: Path, own_valkey: OwnValkey) -> None:
    """The batch of the step that failed may have arrived or not; those before it may be lost as well."""
    server, process = own_valkey
    redis = open_redis(server.url, timeout_s=0.3)
    shipper = Shipper(directory, redis)
    path = write(directory, "spool", b"a\nb\n")
    assert await ship_all(shipper) == 2
    await commit(redis, "spool", 1)
    assert await ship_all(shipper) == 0
    with path.open("ab") as file:
        file.write(b"c\n")
    process.send_signal(signal.SIGSTOP)
    with pytest.raises(LOST):
        await shipper.step()
    process.send_signal(signal.SIGCONT)
    await redis.delete(clicks.STREAM)
    assert await ship_all(shipper) == 2
    assert await shipped(redis) == [Batch("spool", 1, [b"b", b"c"])]
    await redis.aclose()


async def test_a_redis_that_refuses_a_batch_gets_it_again(directory: Path, shipper: Shipper, redis: Redis) -> None:
    """It is full, for example."""
    write(directory, "spool", b"a\n")
    await redis.set(clicks.STREAM, "in the way")
    with pytest.raises(Exception, match="WRONGTYPE"):
        await shipper.step()
    await redis.delete(clicks.STREAM)
    assert await ship_all(shipper) == 1
    assert await shipped(redis) == [Batch("spool", 0, [b"a"])]


async def test_a_gap_before_what_was_thought_to_be_committed_is_shipped_from_there(
    directory: Path, shipper: Shipper, redis: Redis
) -> None:
    """Postgres came back from a backup: what it waits for is the truth, whatever it said before."""
    write(directory, "spool", b"a\nb\nc\n")
    await ship_all(shipper)
    await commit(redis, "spool", 2)
    assert await ship_all(shipper) == 0
    await redis.delete(clicks.STREAM)
    await commit(redis, "spool", 1)
    await redis.hset(clicks.GAPS_KEY, "spool", "1")
    await ship_all(shipper)
    assert await shipped(redis) == [Batch("spool", 1, [b"b", b"c"])]


# When a spool may go.


async def test_a_spool_that_somebody_took_away_does_not_hold_up_the_others(
    directory: Path, shipper: Shipper, redis: Redis
) -> None:
    path = write(directory, "gone", b"a\n")
    await ship_all(shipper)
    path.unlink()
    write(directory, "spool", b"b\n")
    await ship_all(shipper)
    assert await shipped(redis) == [Batch("gone", 0, [b"a"]), Batch("spool", 0, [b"b"])]


async def test_a_finished_spool_is_removed_when_everything_of_it_is_committed_and_not_before(
    directory: Path, shipper: Shipper, redis: Redis
) -> None:
    path = write(directory, "spool", b"a\nb\n")
    await ship_all(shipper)
    await shipper.step()
    assert path.exists()
    await commit(redis, "spool", 1)
    await shipper.step()
    assert path.exists()
    await commit(redis, "spool", 2)
    await shipper.step()
    assert not path.exists()
    assert await redis.hget(clicks.COMMITTED_KEY, "spool") is None
    assert await shipper.step() == 0


async def test_a_spool_that_a_worker_still_writes_to_is_not_removed(
    directory: Path, shipper: Shipper, redis: Redis
) -> None:
    spool = Spool(directory)
    spool.append(b"a")
    [name] = spools(directory)
    await ship_all(shipper)
    await commit(redis, name, 1)
    for _ in range(3):
        await shipper.step()
    assert spools(directory) == {name}
    spool.append(b"b")
    assert await ship_all(shipper) == 1
    spool.close()
    await shipper.step()
    assert spools(directory) == {name}
    await commit(redis, name, 2)
    await shipper.step()
    assert spools(directory) == set()


async def test_a_finished_spool_with_a_torn_line_at_its_end_is_removed_too(
    directory: Path, shipper: Shipper, redis: Redis
) -> None:
    path = write(directory, "spool", b"a\ntorn")
    await ship_all(shipper)
    await commit(redis, "spool", 1)
    await shipper.step()
    assert not path.exists()


async def test_a_finished_spool_without_records_is_removed(directory: Path, shipper: Shipper) -> None:
    path = write(directory, "spool", b"")
    await shipper.step()
    assert not path.exists()


async def test_a_large_spool_that_was_committed_before_the_shipper_started_is_read_to_its_end_and_removed(
    directory: Path, shipper: Shipper, redis: Redis
) -> None:
    path = write(directory, "spool", b"0123456789" * 10 + b"\n")
    path.write_bytes(path.read_bytes() * 10_000)
    await commit(redis, "spool", 9_999)
    steps = 0
    while not await shipper.step():
        assert path.exists()
        steps += 1
        assert steps < 100
    assert [(batch.first, len(batch.records)) for batch in await shipped(redis)] == [(9_999, 1)]
    await commit(redis, "spool", 10_000)
    await shipper.step()
    assert not path.exists()


# All of it at once.

_WHAT_HAPPENS = st.one_of(
    st.tuples(st.just("append"), st.integers(1, 4)),
    st.tuples(st.sampled_from(["step", "ingest", "close", "flush", "restart", "lose a batch"]), st.just(0)),
    st.tuples(st.just("step"), st.just(0)),
)


class Ingest:
    """What ingest does, with a list for each spool in place of Postgres."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self.stored: dict[str, list[bytes]] = {}

    async def step(self) -> None:
        for entry_id, batch in await on_stream(self._redis):
            stored = self.stored.setdefault(batch.spool, [])
            position = len(stored)
            if batch.first > position:
                await self._redis.hset(clicks.GAPS_KEY, batch.spool, str(position))
            else:
                stored.extend(batch.records[position - batch.first :])
            await commit(self._redis, batch.spool, len(stored))
            await self._redis.xdel(clicks.STREAM, entry_id)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(happening=st.lists(_WHAT_HAPPENS, max_size=25))
async def test_whatever_happens_every_record_is_stored_once_and_in_order_and_no_spool_stays(
    tmp_path_factory: pytest.TempPathFactory, redis: Redis, happening: list[tuple[str, int]]
) -> None:
    await redis.flushall()
    directory = tmp_path_factory.mktemp("spool")
    spool, shipper, ingest = Spool(directory, segment_bytes=40), Shipper(directory, redis), Ingest(redis)
    appended = 0
    for action, number in happening:
        match action:
            case "append":
                for _ in range(number):
                    spool.append(b"record %04d" % appended)
                    appended += 1
            case "step":
                await shipper.step()
            case "ingest":
                await ingest.step()
            case "close":
                spool.close()
            case "flush":
                await redis.flushall()
            case "restart":
                shipper = Shipper(directory, redis)
            case "lose a batch":
                await redis.xtrim(clicks.STREAM, maxlen=max(0, await redis.xlen(clicks.STREAM) - 1))
    spool.close()
    # A lost batch shows when a later one of its spool arrives, or to a new shipper.
    shipper = Shipper(directory, redis)
    for _ in range(100):
        await shipper.step()
        await ingest.step()
        if not spools(directory):
            break
    assert spools(directory) == set()
    in_order = sorted(ingest.stored.values())
    assert [record for stored in in_order for record in stored] == [b"record %04d" % n for n in range(appended)]
    assert not await redis.exists(clicks.COMMITTED_KEY)


# The process.


def edge_settings(home: Path, redis_url: str) -> EdgeSettings:
    return load(EdgeSettings, {"LINKWIRE_HOME": str(home), "REDIS_URL": redis_url}, home)


@pytest.fixture
async def running(tmp_path: Path, servers: Servers, redis: Redis) -> AsyncIterator[Path]:
    """The directory that a running shipper follows."""
    settings, stop = edge_settings(tmp_path, servers.redis_url), asyncio.Event()
    task = asyncio.create_task(run_shipper(settings, stop))
    await until(settings.spool_directory.is_dir)
    yield settings.spool_directory
    stop.set()
    await asyncio.wait_for(task, 10)


async def test_running_it_ships_a_record_soon_after_it_was_appended(running: Path, redis: Redis) -> None:
    spool = Spool(running)
    for number in range(1, 4):
        spool.append(b"x")

        async def is_there(number: int = number) -> bool:
            return sum(len(batch.records) for batch in await shipped(redis)) == number

        appended_at = time.monotonic()
        await until(is_there)
        assert time.monotonic() - appended_at < 1
    spool.close()


async def test_told_to_stop_it_ships_what_the_workers_have_left(tmp_path: Path, servers: Servers, redis: Redis) -> None:
    settings, stop = edge_settings(tmp_path, servers.redis_url), asyncio.Event()
    settings.spool_directory.mkdir()
    write(settings.spool_directory, "spool", b"record of no great length\n" * 15_000)
    stop.set()
    await run_shipper(settings, stop)
    assert sum(len(batch.records) for batch in await shipped(redis)) == 15_000


async def test_clicks_wait_while_redis_is_gone_and_are_shipped_when_it_is_back(
    tmp_path: Path, own_valkey: OwnValkey
) -> None:
    server, process = own_valkey
    settings, stop = edge_settings(tmp_path, server.url), asyncio.Event()
    spool = Spool(settings.spool_directory)
    task = asyncio.create_task(run_shipper(settings, stop))
    await until(settings.spool_directory.is_dir)
    spool.append(b"a")
    await until_shipped(server.url, [b"a"])
    process.kill()
    process.wait()
    spool.append(b"b")
    again = start(server)
    try:
        await embedded.wait_until_ready(server)
        await until_shipped(server.url, [b"a", b"b"])
        stop.set()
        await asyncio.wait_for(task, 10)
    finally:
        again.kill()
        again.wait()
        spool.close()


async def until_shipped(url: str, records: list[bytes]) -> None:
    """The stream has all of these records of one spool, whatever it holds twice."""
    redis = open_redis(url, timeout_s=5.0)

    async def are_there() -> bool:
        numbered: dict[int, bytes] = {}
        for batch in await shipped(redis):
            numbered.update(enumerate(batch.records, start=batch.first))
        return [numbered[position] for position in sorted(numbered)] == records

    try:
        await until(are_there)
    finally:
        await redis.aclose()
