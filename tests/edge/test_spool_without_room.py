"""The spool without room: what a disk that is full, slow or gone costs, and that clicks are recorded again after it."""

import json
import os
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from edge.segments import Counts, Record, SpoolReader, segment_path
from edge.spool import Spool
from tests.edge.reading import counts, heads
from tests.edge.spools import LINK, PEER, append_heads, be_patient, has_next, new_spool, segments, spools, write
from tests.houses import wait_for

patience = pytest.fixture(scope="module", autouse=True)(be_patient)

SMALL = 4096
A_THIRD = b"x" * 1000
"""A head of which a small segment holds three."""


@pytest.fixture
def again_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without room, look for it all the time."""
    monkeypatch.setattr("edge.spool._TRY_AGAIN_AFTER_S", 0.0)


def is_recorded(spool: Spool, head: bytes) -> bool:
    """Append, and whether there was room."""
    before = spool.recorded
    append_heads(spool, head)
    return spool.recorded > before


@pytest.mark.usefixtures("again_at_once")
def test_without_its_directory_clicks_are_dropped_and_counted_and_with_it_they_are_recorded_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    directory = tmp_path / "spool"
    spool = new_spool(directory)
    append_heads(spool, b"one", b"two")
    assert (spool.recorded, spool.dropped) == (0, 2)
    assert caplog.text.count("there is no room for clicks") == 1  # said once, counted each time
    directory.mkdir()
    wait_for(lambda: is_recorded(spool, b"three"))
    spool.close()
    assert heads(directory, spool.id) == [b"three"]
    served, recorded, dropped = counts(directory, spool.id)  # also those from before it could be written down
    assert (recorded, dropped) == (1, served - 1)
    assert dropped >= 2


@pytest.mark.usefixtures("again_at_once")
def test_room_is_looked_for_also_while_nobody_visits(tmp_path: Path) -> None:
    directory = tmp_path / "spool"
    spool = new_spool(directory)
    directory.mkdir()

    def has_room() -> bool:
        spool.tend()
        return bool(spools(directory))

    wait_for(has_room)
    append_heads(spool, b"one")
    assert (spool.recorded, spool.dropped) == (1, 0)
    spool.close()


def test_without_room_the_disk_is_not_asked_for_each_visit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge.spool._TRY_AGAIN_AFTER_S", 3600.0)
    directory = tmp_path / "spool"
    spool = new_spool(directory)
    directory.mkdir()
    for number in range(1, 4):
        append_heads(spool, b"one")
        assert spool.dropped == number
    assert spools(directory) == set()
    spool.close()


@pytest.mark.usefixtures("again_at_once")
def test_all_spools_together_take_no_more_than_they_may_and_go_on_when_some_are_freed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write(tmp_path, "other", [b"x" * (SMALL - 4)], slack=0)
    spool = new_spool(tmp_path, max_bytes=3 * SMALL, segment_bytes=SMALL)
    append_heads(spool, *[A_THIRD] * 10)
    assert segments(tmp_path, spool.id) == [0, 3]
    assert counts(tmp_path, spool.id) == Counts(served=10, recorded=6, dropped=4)
    segment_path(tmp_path, "other", 0).unlink()
    wait_for(lambda: is_recorded(spool, A_THIRD))
    append_heads(spool, *[A_THIRD] * 10)
    assert segments(tmp_path, spool.id) == [0, 3, 6]
    assert sum(path.stat().st_size for path in tmp_path.glob("*.clicks")) == 3 * SMALL
    reader = SpoolReader(tmp_path, spool.id)
    reader.seek(3)
    reader.free(3)
    wait_for(lambda: is_recorded(spool, b"y" * 1000))
    assert segments(tmp_path, spool.id) == [3, 6, 9]
    assert [Record.from_bytes(record).head for record in reader.read(2**30)] == [*[A_THIRD] * 6, b"y" * 1000]
    served, recorded, dropped = reader.counts
    assert (served, recorded) == (recorded + dropped, 10)
    assert caplog.text.count("LINKWIRE_SPOOL_MAX_BYTES") == 2  # once each time
    reader.close()
    spool.close()


def test_a_segment_that_is_removed_while_room_is_looked_for_is_no_trouble(tmp_path: Path) -> None:
    """The link leads nowhere: it is found, and then it is not there."""
    (tmp_path / "0123456789abcdef-0000000000000000.clicks").symlink_to("removed")
    spool = new_spool(tmp_path, max_bytes=SMALL, segment_bytes=SMALL)
    append_heads(spool, b"one")
    assert (spool.recorded, spool.dropped) == (1, 0)
    spool.close()


def test_a_full_disk_costs_clicks_and_nothing_else_and_with_room_they_are_recorded_again(tmp_path: Path) -> None:
    """The limit on file sizes makes posix_fallocate(3) fail, as a full disk does."""
    told = subprocess.run(
        [sys.executable, "-c", _MEETS_A_FULL_DISK, str(tmp_path)], capture_output=True, text=True, timeout=60
    )
    assert told.returncode == 0, told.stderr
    assert told.stderr.count("there is no room for clicks") == 1
    assert "File too large" in told.stderr
    said: Any = json.loads(told.stdout)
    [spool] = spools(tmp_path)
    assert [int(head) for head in heads(tmp_path, spool)] == said["recorded"]
    assert len(said["recorded"]) == 7  # two segments were there, and one of the third
    assert counts(tmp_path, spool) == Counts(said["served"], 7, said["served"] - 7)
    assert said["served"] >= 12


_MEETS_A_FULL_DISK = textwrap.dedent("""
    import json, logging, resource, sys, time
    from pathlib import Path
    import edge.spool
    from edge.segments import link_bytes, next_path, peer_bytes

    logging.basicConfig()
    edge.spool._LONGEST_WAIT_S, edge.spool._TRY_AGAIN_AFTER_S = 30.0, 0.05
    directory, recorded, served = Path(sys.argv[1]), [], 0
    spool = edge.spool.Spool(directory, max_bytes=2**30, segment_bytes=4096)

    def append():
        global served
        before = spool.recorded
        spool.append(link_bytes(7, 3), peer_bytes("203.0.113.7"), b"%01000d" % served)
        recorded.extend([served] * (spool.recorded - before))
        served += 1

    def allow(size):
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))

    while not (next_path(directory, spool.id).exists() and next_path(directory, spool.id).stat().st_size):
        time.sleep(0.005)
    allow(2000)
    while spool.dropped < 5:
        append()
    allow(resource.RLIM_INFINITY)
    while len(recorded) < 7:
        append()
        time.sleep(0.005)
    print(json.dumps({"recorded": recorded, "served": served}))
    spool.close()
""")


def test_a_disk_that_hesitates_holds_up_one_visitor_and_costs_the_clicks_of_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    spool = new_spool(tmp_path, segment_bytes=SMALL)
    wait_for(lambda: has_next(tmp_path, spool.id))
    goes_on, allocate = threading.Event(), os.posix_fallocate

    def hesitate(file: int, offset: int, length: int) -> None:
        assert goes_on.wait(60)
        allocate(file, offset, length)

    monkeypatch.setattr(os, "posix_fallocate", hesitate)
    monkeypatch.setattr("edge.spool._LONGEST_WAIT_S", 0.3)
    append_heads(spool, *[A_THIRD] * 6)
    assert (spool.recorded, spool.dropped) == (6, 0)
    begun = time.monotonic()
    append_heads(spool, A_THIRD)
    assert time.monotonic() - begun >= 0.3
    begun = time.monotonic()
    append_heads(spool, *[A_THIRD] * 20)
    assert time.monotonic() - begun < 10 * 0.3
    assert (spool.recorded, spool.dropped) == (6, 21)
    assert caplog.messages == ["there is no room for clicks: the disk is too slow"]
    goes_on.set()
    wait_for(lambda: is_recorded(spool, b"again"))
    spool.close()
    assert heads(tmp_path, spool.id) == [*[A_THIRD] * 6, b"again"]


def test_where_somebody_took_all_files_away_another_segment_and_new_counts_are_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge.spool._TRY_AGAIN_AFTER_S", 0.0)
    spool = Spool(tmp_path, max_bytes=2**30, segment_bytes=4096)
    spool.append(LINK, PEER, b"x" * 3000)
    for path in tmp_path.iterdir():
        path.unlink()

    def is_recorded() -> bool:
        spool.append(LINK, PEER, b"y" * 3000)
        return spool.recorded == 2

    wait_for(is_recorded)
    reader = SpoolReader(tmp_path, spool.id)
    assert reader.read(10_000) == []  # the first record is gone
    reader.skip_torn()
    [record] = reader.read(10_000)
    assert record.endswith(b"y" * 3000)
    reader.close()
    spool.close()
