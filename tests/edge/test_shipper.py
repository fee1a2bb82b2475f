"""The shipper, on a real Valkey: what it puts on the stream, and when it ships again."""

import asyncio
import signal
import subprocess
import time
from pathlib import Path

import orjson
import pytest
from prometheus_client import REGISTRY

from admin import embedded
from edge.segments import link_bytes, peer_bytes, segment_path
from edge.shipper import Shipper
from edge.shipper import run as run_shipper
from shared import clicks
from shared.addresses import networks
from shared.clicks import Batch, Click
from shared.redis import LOST, Redis, open_redis
from tests.conftest import Servers
from tests.edge.spools import (
    Ingest,
    Machine,
    append,
    be_patient,
    dirty_kb,
    edge_settings,
    entries,
    is_kept_in_memory,
    make_machine,
    new_spool,
    reported,
    running,
    visits,
)
from tests.servers import run as start
from tests.shared.waiting import until

OwnValkey = tuple[embedded.Server, "subprocess.Popen[bytes]"]


patience = pytest.fixture(scope="module", autouse=True)(be_patient)
machine = pytest.fixture(make_machine)

# Batches.


async def test_a_batch_says_its_spool_the_number_of_its_first_record_and_the_records(machine: Machine) -> None:
    spool = machine.new_spool()
    append(spool, b"a", b"b")
    assert await machine.step() == 2
    append(spool, b"c")
    assert await machine.step() == 1
    assert await machine.shipped() == [Batch(spool.id, 0, [b"a", b"b"]), Batch(spool.id, 2, [b"c"])]
    spool.close()


async def test_of_a_record_a_click_is_shipped_and_nothing_else(machine: Machine) -> None:
    spool = machine.new_spool()
    before_ms = time.time_ns() // 1_000_000
    request = (
        b"HEAD /x HTTP/1.1\r\nHost: go.example\r\nX-Forwarded-For: 1.1.1.1, 198.51.100.7\r\nCookie: s3cr3t\r\n"
        b"User-Agent: Mozilla/5.0\r\nReferer: https://news.example/\r\nAuthorization: Basic s3cr3t\r\n\r\n"
    )
    spool.append(link_bytes(7, 3), peer_bytes("10.0.0.1"), request)
    await Shipper(machine.directory, machine.redis, networks("10.0.0.0/8")).step()
    [(_, fields)] = await entries(machine.redis)
    [click] = [Click.from_bytes(record) for record in Batch.from_fields(fields).records]
    assert click == Click(click.at_ms, 7, 3, "HEAD", "198.51.100.7", "Mozilla/5.0", "https://news.example/")
    assert before_ms <= click.at_ms <= time.time_ns() // 1_000_000
    assert not any(b"s3cr3t" in value for value in fields.values())
    spool.close()


async def test_a_record_that_can_not_be_read_keeps_its_number_and_says_why(machine: Machine) -> None:
    machine.write("spool", [*visits(b"a"), bytes(30), *visits(b"c")])
    assert await machine.ship_all() == 3
    [(_, fields)] = await entries(machine.redis)
    records = Batch.from_fields(fields).records
    assert [Click.from_bytes(records[place]).user_agent for place in (0, 2)] == ["a", "c"]
    assert orjson.loads(records[1]) == {"unreadable": "the head of the request is torn", "bytes": 30}


async def test_without_a_doubt_nothing_is_shipped_twice(machine: Machine) -> None:
    spool = machine.new_spool(segment_bytes=256)
    append(spool, *[b"a"] * 5)
    assert [await machine.step() for _ in range(4)] == [5, 0, 0, 0]
    await machine.commit(spool.id, 3)
    assert await machine.step() == 0
    await machine.commit(spool.id, 5)
    assert await machine.step() == 0
    spool.close()
    assert await machine.step() == 0
    assert await machine.shipped() == [Batch(spool.id, 0, [b"a"] * 5)]


async def test_the_spools_of_all_workers_are_shipped_also_of_dead_ones(machine: Machine) -> None:
    machine.write("dead", visits(b"a", b"b"))
    living = machine.new_spool()
    append(living, b"c")
    assert await machine.step() == 3
    assert sorted(await machine.shipped()) == sorted([Batch("dead", 0, [b"a", b"b"]), Batch(living.id, 0, [b"c"])])
    living.close()


async def test_a_spool_that_has_no_name_yet_is_left_alone(machine: Machine) -> None:
    for name in (".0123456789abcdef.spool.new", ".0123456789abcdef.next", "0123456789abcdef-0000000000000000.clicks"):
        (machine.directory / name).write_bytes(bytes(64))
    assert await machine.step() == 0
    assert not machine.shipper.has_spools


async def test_a_large_spool_is_shipped_in_batches_of_bounded_size_without_hole_or_overlap(machine: Machine) -> None:
    """A megabyte of records; and at most one beyond it."""
    agents = [b"%0200d" % number for number in range(10_000)]
    records = visits(*agents)
    machine.write("spool", records[:3000], records[3000:3001], records[3001:])
    in_one_batch = 2**20 // len(records[0]) + 1
    before = REGISTRY.get_sample_value("linkwire_clicks_shipped_total") or 0.0
    assert await machine.ship_all() == len(records)
    batches = await machine.shipped()
    assert [len(batch.records) for batch in batches[:-1]] == [in_one_batch] * (len(batches) - 1)
    assert 0 < len(batches[-1].records) <= in_one_batch
    assert [batch.first for batch in batches] == [0, *(batch.end for batch in batches[:-1])]
    assert [agent for batch in batches for agent in batch.records] == agents
    assert REGISTRY.get_sample_value("linkwire_clicks_shipped_total") == before + len(records)


async def test_a_record_longer_than_a_batch_is_shipped_too(machine: Machine) -> None:
    long = visits(b"b")[0].replace(b"Host", b"X: " + b"x" * 2**21 + b"\r\nHost")
    machine.write("spool", [*visits(b"a"), long, *visits(b"c")])
    assert await machine.ship_all() == 3
    assert await machine.shipped() == [Batch("spool", 0, [b"a", b"b"]), Batch("spool", 2, [b"c"])]


async def test_what_waits_uncommitted_on_the_stream_is_bounded_and_holds_up_no_other_spool(machine: Machine) -> None:
    """20,000 records of a spool, and at most one batch beyond them, so that Redis keeps room for the links."""
    agents = [b"%0150d" % number for number in range(30_000)]
    records = visits(*agents)
    machine.write("spool", records)
    in_one_batch = 2**20 // len(records[0]) + 1
    first = await machine.ship_all()
    assert 20_000 <= first < 20_000 + in_one_batch
    assert await machine.step() == 0
    machine.write("other", visits(b"a"))
    assert await machine.step() == 1
    await machine.commit("spool", 5_000)
    second = await machine.ship_all()
    assert 25_000 <= first + second < 25_000 + in_one_batch
    await machine.commit("spool", first + second)
    await machine.ship_all()
    batches = [batch for batch in await machine.shipped() if batch.spool == "spool"]
    assert [agent for batch in batches for agent in batch.records] == agents


# Doubt.


async def test_a_new_shipper_goes_on_from_what_is_committed(machine: Machine) -> None:
    machine.write("spool", visits(b"a", b"b"), visits(b"c", b"d"))
    await machine.commit("spool", 3)
    assert await Machine(machine.directory, machine.redis).ship_all() == 1
    assert await machine.shipped() == [Batch("spool", 3, [b"d"])]


async def test_a_new_shipper_ships_again_what_another_one_shipped_and_nobody_committed(machine: Machine) -> None:
    machine.write("spool", visits(b"a", b"b"))
    for _ in range(2):
        assert await Machine(machine.directory, machine.redis).ship_all() == 2
    assert await machine.shipped() == [Batch("spool", 0, [b"a", b"b"])] * 2


async def test_after_redis_lost_its_data_the_shipper_ships_again_from_the_committed_position(machine: Machine) -> None:
    machine.write("spool", visits(b"a", b"b"), visits(b"c"))
    assert await machine.ship_all() == 3
    await machine.commit("spool", 1)
    assert await machine.ship_all() == 0
    await machine.redis.flushall()
    assert await machine.ship_all() == 2
    assert await machine.shipped() == [Batch("spool", 1, [b"b", b"c"])]
    assert await machine.ship_all() == 0  # once is enough


async def test_another_shipper_that_is_first_to_see_the_loss_hides_it_from_nobody(tmp_path: Path, redis: Redis) -> None:
    """Shippers of several machines share the stream and its epoch."""
    machines = [Machine(tmp_path / name, redis) for name in ("here", "there")]
    for machine in machines:
        machine.write(machine.directory.name, visits(b"a"))
    assert [await machine.ship_all() for machine in machines] == [1, 1]
    assert [await machine.ship_all() for machine in machines] == [0, 0]
    await redis.flushall()
    assert [await machine.ship_all() for machine in machines] == [1, 1]
    assert sorted(await machines[0].shipped()) == [Batch("here", 0, [b"a"]), Batch("there", 0, [b"a"])]
    assert [await machine.ship_all() for machine in machines] == [0, 0]


async def test_after_redis_was_started_again_the_shipper_ships_again_though_nothing_seems_lost(
    tmp_path: Path, own_valkey: OwnValkey
) -> None:
    """The last second of its append-only file may be. Only the run id tells."""
    server, process = own_valkey
    machine = Machine(tmp_path / "spool", open_redis(server.url, timeout_s=5.0))
    machine.write("spool", visits(b"a", b"b"))
    await machine.commit_all("spool", 1)
    epoch = await machine.redis.get(clicks.EPOCH_KEY)
    process.terminate()
    process.wait()
    again = start(server)
    try:
        await embedded.wait_until_ready(server)
        await machine.redis.connection_pool.disconnect()  # else the error of its connection is a doubt already
        assert await machine.ship_all() == 1
        assert await machine.shipped() == [Batch("spool", 0, [b"a", b"b"]), Batch("spool", 1, [b"b"])]
        assert await machine.redis.get(clicks.EPOCH_KEY) == epoch
        assert await machine.ship_all() == 0
    finally:
        again.kill()
        again.wait()
        await machine.redis.aclose()


async def test_a_reported_gap_is_shipped_again_and_the_report_is_taken_away(machine: Machine) -> None:
    machine.write("other", visits(b"x"))
    machine.write("spool", visits(b"a", b"b"), visits(b"c"))
    await machine.ship_all()
    await machine.commit("spool", 1)
    await machine.redis.delete(clicks.STREAM)
    await machine.redis.hset(clicks.GAPS_KEY, mapping={"spool": "1", "of another machine": "7"})
    assert await machine.ship_all() == 2
    assert await machine.shipped() == [Batch("spool", 1, [b"b", b"c"])]  # and nothing of the other spool
    assert await machine.redis.hgetall(clicks.GAPS_KEY) == {b"of another machine": b"7"}
    assert await machine.ship_all() == 0


async def test_after_an_error_what_failed_is_shipped_again_and_not_what_is_on_the_stream(
    tmp_path: Path, own_valkey: OwnValkey
) -> None:
    """While Redis is only slow, what was shipped stays there: shipping it with each error would fill it up."""
    server, process = own_valkey
    machine = Machine(tmp_path / "spool", open_redis(server.url, timeout_s=0.3))
    spool = machine.new_spool()
    append(spool, b"a", b"b")
    await machine.commit_all(spool.id, 1)
    append(spool, b"c")
    process.send_signal(signal.SIGSTOP)
    with pytest.raises(LOST):
        await machine.step()
    process.send_signal(signal.SIGCONT)
    before = len(await machine.shipped())
    assert await machine.ship_all() == 1
    assert (await machine.shipped())[before:] == [Batch(spool.id, 2, [b"c"])]
    spool.close()
    await machine.redis.aclose()


async def test_a_redis_that_refuses_a_batch_gets_it_again(machine: Machine) -> None:
    """It is full, for example."""
    machine.write("spool", visits(b"a"))
    await machine.redis.set(clicks.STREAM, "in the way")
    with pytest.raises(Exception, match="WRONGTYPE"):
        await machine.step()
    await machine.redis.delete(clicks.STREAM)
    assert await machine.ship_all() == 1
    assert await machine.shipped() == [Batch("spool", 0, [b"a"])]


@pytest.mark.parametrize("is_gap_reported", [False, True])
async def test_what_postgres_has_no_longer_is_shipped_again(machine: Machine, is_gap_reported: bool) -> None:
    """It came back from a backup: what it has is the truth, whatever it said before."""
    machine.write("spool", visits(b"a", b"b", b"c"))
    await machine.ship_all()
    await machine.commit("spool", 2)
    assert await machine.ship_all() == 0
    await machine.redis.delete(clicks.STREAM)
    await machine.commit("spool", 1)
    if is_gap_reported:
        await machine.redis.hset(clicks.GAPS_KEY, "spool", "1")
    assert await machine.ship_all() == 2
    assert await machine.shipped() == [Batch("spool", 1, [b"b", b"c"])]


async def test_what_postgres_has_no_longer_is_shipped_again_as_far_as_it_is_still_there(machine: Machine) -> None:
    machine.write("spool", visits(b"a", b"b"), visits(b"c", b"d"))
    await machine.ship_all()
    await machine.commit("spool", 3)
    assert await machine.ship_all() == 0
    assert not segment_path(machine.directory, "spool", 0).exists()
    await machine.redis.delete(clicks.STREAM)
    await machine.commit("spool", 1)
    assert await machine.ship_all() == 2
    assert await machine.shipped() == [Batch("spool", 2, [b"c", b"d"])]
    await machine.shipper.report()
    assert (await reported(machine.redis))["spool"].earliest == 2  # so that nobody waits for the others


async def test_what_another_shipper_had_shipped_is_left_out(machine: Machine) -> None:
    """It was stopped before its batches were committed."""
    spool = machine.new_spool()
    append(spool, b"a")
    assert await machine.step() == 1
    append(spool, b"b", b"c", b"d")
    await machine.commit(spool.id, 3)
    assert await machine.ship_all() == 1
    assert await machine.shipped() == [Batch(spool.id, 0, [b"a"]), Batch(spool.id, 3, [b"d"])]
    spool.close()


# The process.


async def test_running_it_ships_a_record_soon_after_it_was_appended(
    tmp_path: Path, servers: Servers, redis: Redis
) -> None:
    ingest = Ingest(redis)
    async with running(edge_settings(tmp_path, servers.redis_url)) as directory:
        spool = new_spool(directory)
        appended: list[bytes] = []
        for agent in (b"a", b"b", b"c"):
            append(spool, agent)
            appended.append(agent)
            appended_at = time.monotonic()
            await ingest.until(lambda: ingest.stored.get(spool.id) == appended)
            assert time.monotonic() - appended_at < 1
        spool.close()
        await ingest.until(lambda: not any(directory.iterdir()))  # it reports, too


async def test_told_to_stop_it_ships_what_the_workers_have_left_and_waits_until_it_is_closed(
    tmp_path: Path, servers: Servers, redis: Redis
) -> None:
    settings, stop, ingest = edge_settings(tmp_path, servers.redis_url), asyncio.Event(), Ingest(redis)
    machine = Machine(settings.spool_directory, redis)
    machine.write("spool", visits(b"a") * 15_000, visits(b"b"))
    stop.set()
    task = asyncio.create_task(run_shipper(settings, stop))
    await ingest.until(task.done)
    assert ingest.stored == {"spool": [b"a"] * 15_000 + [b"b"]}
    assert machine.spools == set()


async def test_running_it_believes_the_proxies_that_are_set(tmp_path: Path, servers: Servers, redis: Redis) -> None:
    Machine(tmp_path / "spool", redis).write("spool", visits(b"a\r\nX-Forwarded-For: 198.51.100.7"))
    settings = edge_settings(tmp_path, servers.redis_url, LINKWIRE_TRUSTED_PROXIES="203.0.113.0/24")
    async with running(settings, last_words_s=0.2):
        pass
    [(_, fields)] = await entries(redis)
    assert Click.from_bytes(fields[b"records"]).address == "198.51.100.7"


async def test_told_to_stop_it_does_not_wait_for_long(tmp_path: Path, servers: Servers, redis: Redis) -> None:
    """Nobody ingests; the spool waits on disk."""
    machine = Machine(tmp_path / "spool", redis)
    machine.write("spool", visits(b"a"))
    async with running(edge_settings(tmp_path, servers.redis_url), last_words_s=0.2):
        pass
    assert await machine.shipped() == [Batch("spool", 0, [b"a"])]
    assert machine.spools == {"spool"}


async def test_clicks_wait_while_redis_is_gone_and_are_shipped_when_it_is_back(
    tmp_path: Path, own_valkey: OwnValkey
) -> None:
    server, process = own_valkey
    ingest = Ingest(open_redis(server.url, timeout_s=5.0))
    async with running(edge_settings(tmp_path, server.url)) as directory:
        spool = new_spool(directory)
        append(spool, b"a")
        await ingest.until(lambda: ingest.stored.get(spool.id) == [b"a"])
        process.kill()
        process.wait()
        append(spool, b"b")
        again = start(server)
        try:
            await embedded.wait_until_ready(server)
            await ingest.redis.connection_pool.disconnect()
            await ingest.until(lambda: ingest.stored[spool.id] == [b"a", b"b"])
            spool.close()
            await ingest.until(lambda: not any(directory.iterdir()))
        finally:
            again.kill()
            again.wait()
    await ingest.redis.aclose()


async def test_spools_are_brought_to_the_disk_as_often_as_is_set(
    tmp_path: Path, servers: Servers, redis: Redis
) -> None:
    if is_kept_in_memory(tmp_path):
        pytest.skip("these temporary files have no disk")
    settings, ingest = edge_settings(tmp_path, servers.redis_url, LINKWIRE_SPOOL_FLUSH_INTERVAL_S="1"), Ingest(redis)
    async with running(settings) as directory:
        spool = new_spool(directory)
        append(spool, b"a")
        path = segment_path(directory, spool.id, 0)
        assert dirty_kb(path)
        await until(lambda: not dirty_kb(path))
        spool.close()
        await ingest.until(lambda: not any(directory.iterdir()))
