"""The shipper, on a real Valkey: what it reports of spools, when segments and spools go, and what damage costs."""

import socket
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from prometheus_client import REGISTRY

from edge.segments import Counts, SpoolReader, counts_path, next_path, segment_path
from shared import clicks
from shared.clicks import Batch
from shared.redis import Redis
from tests.edge.spools import (
    LOST,
    Ingest,
    Machine,
    append,
    be_patient,
    held,
    make_machine,
    reported,
    segments,
    tear,
    visits,
)

patience = pytest.fixture(scope="module", autouse=True)(be_patient)
machine = pytest.fixture(make_machine)

# Reports.


async def test_a_report_says_when_who_and_how_many(machine: Machine) -> None:
    spool = machine.new_spool(segment_bytes=512)
    append(spool, b"a", b"x" * 512, b"b")
    before_ms = time.time_ns() // 1_000_000
    said = await machine.report(spool.id)
    assert before_ms <= said.at_ms <= time.time_ns() // 1_000_000
    assert (said.host, *said[2:]) == (socket.gethostname(), 3, 2, 1, 0, False, False)
    spool.close()


@pytest.mark.parametrize(
    ("counts", "served"),
    [
        pytest.param(Counts(5, 3, 2), 5, id="between two visits"),
        pytest.param(Counts(6, 3, 2), 5, id="in the middle of one, which is not counted yet"),
    ],
)
async def test_what_a_living_worker_has_served_is_recorded_or_dropped(
    machine: Machine, counts: Counts, served: int
) -> None:
    machine.write("spool", visits(b"a", b"b", b"c"), counts=counts)
    with held(machine.directory, "spool"):
        said = await machine.report("spool")
    assert (said.served, said.recorded, said.dropped, said.is_finished) == (served, 3, 2, False)


async def test_a_spool_is_finished_when_its_worker_is_gone_and_all_of_it_is_committed(machine: Machine) -> None:
    spool = machine.new_spool()
    append(spool, b"a", b"b")
    found = []
    for position in (0, 2):
        await machine.commit_all(spool.id, position)
        found.append((await machine.report(spool.id)).is_finished)
    append(spool, b"c")
    spool.close()
    for position in (2, 3):
        await machine.commit_all(spool.id, position)
        found.append((await machine.report(spool.id)).is_finished)
    assert found == [False, False, False, True]
    assert (await reported(machine.redis))[spool.id][2:6] == (3, 3, 0, 0)


@pytest.mark.parametrize(
    ("counts", "final"),
    [
        pytest.param(Counts(2, 2, 0), (2, 2, 0), id="after a visit"),
        pytest.param(Counts(3, 2, 0), (3, 2, 1), id="before the record"),
        pytest.param(Counts(2, 1, 0), (2, 2, 0), id="before the record is counted"),
        pytest.param(Counts(9, 2, 6), (9, 2, 7), id="before the record, after others were dropped"),
        pytest.param(Counts(8, 1, 6), (8, 2, 6), id="before the record is counted, after others were dropped"),
        pytest.param(Counts(0, 0, 0), (2, 2, 0), id="and the counts were never written"),
    ],
)
async def test_the_last_report_makes_the_counts_whole_of_a_worker_that_was_killed(
    machine: Machine, counts: Counts, final: tuple[int, int, int]
) -> None:
    machine.write("spool", visits(b"a", b"b"), counts=counts)
    await machine.commit_all("spool", 2)
    said = await machine.report("spool")
    assert said.is_finished
    assert (said.served, said.recorded, said.dropped) == final
    assert said.earliest == 0


async def test_a_spool_without_records_is_finished_at_once(machine: Machine) -> None:
    machine.write("nothing")
    machine.write("dropped", [], counts=Counts(3, 0, 3))
    await machine.step()
    await machine.shipper.report()
    said = {
        spool: (said.served, said.dropped, said.is_finished) for spool, said in (await reported(machine.redis)).items()
    }
    assert said == {"nothing": (0, 0, True), "dropped": (3, 3, True)}


async def test_a_finished_spool_that_must_be_shipped_again_is_not_finished(machine: Machine) -> None:
    """Otherwise what Postgres lacks of it would be taken for destroyed."""
    for spool in ("one", "two"):
        machine.write(spool, visits(b"a", b"b"))
        await machine.commit_all(spool, 0)
    await machine.redis.flushall()
    await machine.redis.set(clicks.STREAM, "in the way")
    with pytest.raises(Exception, match="WRONGTYPE"):
        await machine.step()
    await machine.shipper.report()
    assert [(said.is_finished, said.earliest) for said in (await reported(machine.redis)).values()] == [(False, 0)] * 2


def metric(name: str) -> float | None:
    return REGISTRY.get_sample_value("linkwire_" + name)


async def test_the_metrics_say_what_the_spools_take_and_what_waits_where(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge.shipper._UNCOMMITTED_RECORDS", 1)
    monkeypatch.setattr("edge.shipper._BATCH_BYTES", 1)
    old, older = (visits(b"a", b"b", b"c", at_ns=time.time_ns() - ago_s * 10**9) for ago_s in (1000, 3000))
    machine.write("one", old[:2], old[2:])
    machine.write("two", older)
    ages_s = []
    for committed, lag in ((0, 2), (2, 2), (3, 0)):
        for spool in ("one", "two"):
            await machine.commit(spool, committed)
        await machine.step()
        await machine.shipper.report()
        assert metric("spool_bytes") == sum(path.stat().st_size for path in machine.directory.glob("*.clicks"))
        assert metric("stream_lag_clicks") == lag
        ages_s.append(metric("spool_oldest_unshipped_seconds") or 0.0)
    assert 3000 <= ages_s[0] < 3900
    assert ages_s[1:] == [0, 0]


async def test_where_there_is_no_spool_nothing_is_said(machine: Machine) -> None:
    await machine.step()
    await machine.shipper.report()
    assert await reported(machine.redis) == {}
    assert not machine.shipper.has_spools


# Freeing.


async def test_a_segment_goes_when_all_of_it_is_committed_and_another_one_follows(machine: Machine) -> None:
    machine.write("spool", visits(b"a", b"b"), visits(b"c"), visits(b"d", b"e"))
    await machine.ship_all()
    left = []
    for position in range(6):
        await machine.commit("spool", position)
        said = await machine.report("spool")
        left.append(segments(machine.directory, "spool"))
        assert said.earliest == left[-1][0]
    assert left == [[0, 2, 3], [0, 2, 3], [2, 3], [3], [3], [3]]


# Closing.


async def test_a_spool_goes_when_the_worker_has_closed_it_and_not_before(machine: Machine) -> None:
    machine.write("spool", visits(b"a"), visits(b"b"), counts=Counts(3, 2, 1))
    next_path(machine.directory, "spool").write_bytes(bytes(64))  # of a worker that was killed
    await machine.commit_all("spool", 2)
    await machine.redis.hset(clicks.COMMITTED_KEY, "of another machine", "7")
    before = await machine.report("spool")
    assert before.is_finished and not before.is_removed
    assert segments(machine.directory, "spool") == [1]
    await machine.commit("spool", clicks.CLOSED)
    assert await machine.step() == 0
    assert list(machine.directory.iterdir()) == []
    assert not machine.shipper.has_spools
    last = (await reported(machine.redis))["spool"]
    assert last == before._replace(at_ms=last.at_ms, earliest=2, is_removed=True)
    assert await machine.redis.hgetall(clicks.COMMITTED_KEY) == {b"of another machine": b"7"}
    await machine.step()
    await machine.shipper.report()
    assert (await reported(machine.redis))["spool"] == last  # it has nothing more to say of it


async def test_a_new_shipper_removes_what_is_closed_and_ships_nothing_of_it(machine: Machine) -> None:
    machine.write("spool", visits(b"a", b"b"))
    await machine.commit("spool", clicks.CLOSED)
    assert await Machine(machine.directory, machine.redis).ship_all() == 0
    assert machine.spools == set()
    assert await machine.shipped() == []
    said = (await reported(machine.redis))["spool"]
    assert said[2:] == (2, 2, 0, 2, True, True)


async def test_a_spool_stays_while_a_worker_holds_it_whatever_is_said(machine: Machine) -> None:
    spool = machine.new_spool()
    append(spool, b"a")
    await machine.commit_all(spool.id, 1)
    await machine.commit(spool.id, clicks.CLOSED)
    await machine.step()
    assert machine.spools == {spool.id}
    append(spool, b"b")
    assert await machine.step() == 1
    spool.close()
    await machine.step()
    assert machine.spools == set()


async def test_a_spool_stays_until_its_last_report_is_said(machine: Machine) -> None:
    """A Redis that is full refuses it, for example; without it nobody would know what there was."""
    machine.write("spool", visits(b"a"))
    await machine.commit_all("spool", 1)
    await machine.commit("spool", clicks.CLOSED)
    await machine.redis.set(clicks.REPORTS_KEY, "in the way")
    with pytest.raises(Exception, match="WRONGTYPE"):
        await machine.step()
    assert machine.spools == {"spool"}
    await machine.redis.delete(clicks.REPORTS_KEY)
    await machine.step()
    assert machine.spools == set()
    assert (await reported(machine.redis))["spool"].is_removed


async def test_a_spool_that_postgres_has_no_longer_is_shipped_though_it_was_closed(machine: Machine) -> None:
    machine.write("spool", visits(b"a", b"b"))
    await machine.commit_all("spool", 2)
    with held(machine.directory, "spool"):
        await machine.commit("spool", clicks.CLOSED)
        await machine.step()
    await machine.commit("spool", 1)
    assert await machine.ship_all() == 1
    assert (await machine.shipped())[1:] == [Batch("spool", 1, [b"b"])]
    assert not (await machine.report("spool")).is_finished


# Damage.


async def test_what_a_loss_of_power_has_destroyed_is_said_when_all_before_it_is_committed(machine: Machine) -> None:
    machine.write("spool", visits(b"a", b"b", b"c"), visits(b"d"))
    tear(machine.directory, "spool", 0, after=1)
    assert [await machine.step() for _ in range(3)] == [1, 0, 0]
    assert (await machine.report("spool")).earliest == 0
    await machine.commit("spool", 1)
    assert [await machine.step() for _ in range(3)] == [0, 1, 0]
    assert await machine.shipped() == [Batch("spool", 0, [b"a"]), Batch("spool", 3, [b"d"])]
    said = await machine.report("spool")
    assert (said.earliest, said.is_finished) == (3, False)


async def test_records_that_were_counted_and_never_written_are_destroyed(machine: Machine) -> None:
    machine.write("spool", visits(b"a"), counts=Counts(4, 3, 1))
    await machine.commit_all("spool", 0)
    assert (await machine.report("spool")).earliest == 0
    await machine.commit("spool", 1)
    said = await machine.report("spool")
    assert said[2:] == (4, 3, 1, 3, True, False)


async def test_a_spool_is_finished_though_more_of_it_is_stored_than_can_still_be_read(machine: Machine) -> None:
    machine.write("spool", visits(b"a", b"b", b"c"))
    tear(machine.directory, "spool", 0, after=1)
    await machine.commit("spool", 3)
    said = await machine.report("spool")
    assert said[2:] == (3, 3, 0, 3, True, False)
    assert metric("stream_lag_clicks") == 0
    assert await machine.shipped() == []


def _tear(directory: Path, first: int) -> None:
    tear(directory, "spool", first, after=1)


def _remove_a_segment(directory: Path) -> None:
    segment_path(directory, "spool", 2).unlink()


def _empty_a_segment(directory: Path) -> None:
    segment_path(directory, "spool", 2).write_bytes(b"")


@pytest.mark.parametrize(
    ("damage", "stored"),
    [
        pytest.param(partial(_tear, first=0), [b"a", LOST, b"c", b"d", b"e", b"f"], id="in the middle"),
        pytest.param(partial(_tear, first=4), [b"a", b"b", b"c", b"d", b"e", LOST], id="at the end"),
        pytest.param(_remove_a_segment, [b"a", b"b", LOST, LOST, b"e", b"f"], id="a whole segment"),
        pytest.param(_empty_a_segment, [b"a", b"b", LOST, LOST, b"e", b"f"], id="the content of a segment"),
    ],
)
async def test_damage_costs_the_clicks_that_it_destroyed_and_the_spool_goes_in_the_end(
    machine: Machine, damage: Callable[[Path], None], stored: list[bytes]
) -> None:
    machine.write("spool", visits(b"a", b"b"), visits(b"c", b"d"), visits(b"e", b"f"))
    damage(machine.directory)
    ingest = Ingest(machine.redis)
    await machine.finish(ingest)
    assert ingest.stored == {"spool": stored}
    assert (await reported(machine.redis))["spool"][2:] == (6, 6, 0, 6, True, True)


@pytest.mark.parametrize("path", [counts_path(Path(), "bad"), segment_path(Path(), "bad", 0)])
async def test_a_spool_that_can_not_be_read_holds_up_nobody_and_is_tried_again(
    machine: Machine, caplog: pytest.LogCaptureFixture, path: Path
) -> None:
    machine.write("bad", visits(b"a"))
    bad, kept = machine.directory / path, (machine.directory / path).read_bytes()
    bad.unlink()
    bad.symlink_to(path)  # to itself
    machine.write("spool", visits(b"b"))
    for _ in range(3):
        await machine.ship_all()
        await machine.shipper.report()
    assert await machine.shipped() == [Batch("spool", 0, [b"b"])]
    assert caplog.text.count("spool bad can't be shipped") == 1  # said once
    bad.unlink()
    bad.write_bytes(kept)
    await machine.ship_all()
    assert await machine.shipped() == [Batch("spool", 0, [b"b"]), Batch("bad", 0, [b"a"])]


async def test_a_spool_that_somebody_took_away_holds_up_nobody(machine: Machine) -> None:
    machine.write("gone", visits(b"a"), visits(b"b"))
    await machine.ship_all()
    SpoolReader(machine.directory, "gone").remove()
    await machine.redis.flushall()
    machine.write("spool", visits(b"c"))
    await machine.ship_all()
    assert await machine.shipped() == [Batch("spool", 0, [b"c"])]


# All of it at once.

_WHAT_HAPPENS = st.one_of(
    st.tuples(st.just("append"), st.integers(1, 4)),
    st.tuples(st.sampled_from(["ingest", "report", "tend", "close", "flush", "restart", "lose a batch"]), st.just(0)),
    st.tuples(st.just("step"), st.just(0)),
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(happening=st.lists(_WHAT_HAPPENS, max_size=25))
async def test_whatever_happens_every_record_is_stored_once_and_in_order_and_no_spool_stays(
    tmp_path_factory: pytest.TempPathFactory, redis: Redis, happening: list[tuple[str, int]]
) -> None:
    await redis.flushall()
    machine, ingest = Machine(tmp_path_factory.mktemp("spool"), redis), Ingest(redis)
    spool, appended = machine.new_spool(segment_bytes=256), 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("edge.spool._LEAVE_AFTER_S", -1.0)
        patch.setattr("edge.shipper._BATCH_BYTES", 300)
        for action, number in happening:
            match action:
                case "append":
                    append(spool, *[b"%04d" % (appended + more) for more in range(number)])
                    appended += number
                case "step":
                    await machine.step()
                case "report":
                    await machine.shipper.report()
                case "ingest":
                    await ingest.step()
                case "tend":
                    spool.tend()
                case "close":
                    spool.close()
                    spool = machine.new_spool(segment_bytes=256)
                case "flush":
                    await redis.flushall()
                case "restart":
                    machine = Machine(machine.directory, redis)
                case "lose a batch":
                    await redis.xtrim(clicks.STREAM, maxlen=max(0, await redis.xlen(clicks.STREAM) - 1))
        spool.close()
        # A lost batch shows when a later one of its spool arrives, or to a new shipper.
        await Machine(machine.directory, redis).finish(ingest)
    in_order = sorted(stored for stored in ingest.stored.values() if stored)
    assert [agent for stored in in_order for agent in stored] == [b"%04d" % number for number in range(appended)]
    assert not await redis.exists(clicks.COMMITTED_KEY)
    for said in (await reported(redis)).values():
        assert (said.served, said.dropped, said.is_removed) == (said.recorded, 0, True)
    assert list(machine.directory.iterdir()) == []
