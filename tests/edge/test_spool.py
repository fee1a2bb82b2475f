"""The spool: what a reader finds after an append, what is on disk, and whose it is."""

import json
import mmap
import os
import signal
import stat
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.segments import Counts, Record, SpoolReader, counts_path, next_path, segment_path
from edge.spool import SEGMENT_BYTES, Spool
from tests.edge.reading import counts, heads
from tests.edge.spools import FIXED_BYTES, LINK, PEER, append_heads, be_patient, has_next, new_spool, segments, spools
from tests.houses import wait_for

patience = pytest.fixture(scope="module", autouse=True)(be_patient)

PAGE = mmap.PAGESIZE


def is_finished(directory: Path, spool: str) -> bool:
    reader = SpoolReader(directory, spool)
    found = reader.is_finished
    reader.close()
    return found


# What is appended.


class Other(NamedTuple):
    """A reader in another process."""

    process: "subprocess.Popen[str]"

    def look(self) -> tuple[list[str], Counts]:
        """The heads that are new to it, and the counts."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write("look\n")
        self.process.stdin.flush()
        new, counted = json.loads(self.process.stdout.readline())
        return new, Counts(*counted)


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    spool = new_spool(tmp_path, segment_bytes=8 * PAGE)
    yield spool
    spool.close()


@pytest.fixture
def other(tmp_path: Path, spool: Spool) -> Iterator[Other]:
    """A reader of the spool in another process."""
    command = [sys.executable, "-c", _LOOKS, str(tmp_path), spool.id]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield Other(process)


_LOOKS = textwrap.dedent("""
    import json, sys
    from pathlib import Path
    from edge.segments import Record, SpoolReader

    reader = SpoolReader(Path(sys.argv[1]), sys.argv[2])
    for _ in sys.stdin:
        heads = [Record.from_bytes(record).head.decode() for record in reader.read(2**30)]
        print(json.dumps([heads, reader.counts]), flush=True)
""")


def test_another_process_reads_a_record_as_soon_as_it_is_appended(spool: Spool, other: Other) -> None:
    assert other.look() == ([], Counts(0, 0, 0))
    for number in range(1, 4):
        append_heads(spool, b"head %d" % number)
        assert other.look() == ([f"head {number}"], Counts(number, number, 0))


def test_another_process_sees_what_was_dropped(spool: Spool, other: Other) -> None:
    append_heads(spool, b"one", b"x" * SEGMENT_BYTES, b"two")
    assert other.look() == (["one", "two"], Counts(served=3, recorded=2, dropped=1))


def test_a_record_says_when_which_link_from_where_and_what_was_asked(tmp_path: Path, spool: Spool) -> None:
    before_ns = time.time_ns()
    spool.append(LINK, PEER, b"GET / HTTP/1.1\r\n\r\n")
    after_ns = time.time_ns()
    reader = SpoolReader(tmp_path, spool.id)
    [record] = [Record.from_bytes(record) for record in reader.read(1)]
    assert record == Record(record.at_ns, 7, 3, "203.0.113.7", b"GET / HTTP/1.1\r\n\r\n")
    assert before_ns <= record.at_ns <= after_ns
    reader.close()


_SEGMENT = 256
_FULL = _SEGMENT - 4 - FIXED_BYTES
"""The longest head that a segment of this size takes."""


@settings(deadline=None)
@given(steps=st.lists(st.binary(max_size=_FULL) | st.sampled_from([b"", "fill", "read"]), max_size=40))
def test_whatever_is_appended_is_read_in_order_across_all_segments(
    tmp_path_factory: pytest.TempPathFactory, steps: list[bytes | str]
) -> None:
    """Also when it ends exactly where its segment does; by a reader that follows, and by one that comes later."""
    directory = tmp_path_factory.mktemp("spool")
    spool = new_spool(directory, segment_bytes=_SEGMENT)
    follower = SpoolReader(directory, spool.id)
    appended: list[bytes] = []
    followed: list[bytes] = []
    firsts, room = [0], _SEGMENT
    for step in steps:
        if step == "read":
            followed += [Record.from_bytes(record).head for record in follower.read(200)]
            continue
        if isinstance(step, bytes):
            head = step
        else:  # fill what is left of the segment to its last byte, or else a whole one
            head = b"x" * (room - 4 - FIXED_BYTES if room >= 4 + FIXED_BYTES else _FULL)
        length = 4 + FIXED_BYTES + len(head)
        if length > room:
            firsts.append(len(appended))
            room = _SEGMENT
        room -= length + -length % 4
        append_heads(spool, head)
        appended.append(head)
    assert followed + [Record.from_bytes(record).head for record in follower.read(2**30)] == appended
    assert segments(directory, spool.id) == firsts
    spool.close()
    assert heads(directory, spool.id) == appended
    assert follower.counts == Counts(len(appended), len(appended), 0)
    follower.close()


def test_a_segment_is_filled_to_its_last_byte(tmp_path: Path) -> None:
    spool = new_spool(tmp_path, segment_bytes=2 * (4 + FIXED_BYTES + 20))
    append_heads(spool, *[b"%020d" % number for number in range(4)])
    assert segments(tmp_path, spool.id) == [0, 2]
    append_heads(spool, b"%020d" % 4)
    assert segments(tmp_path, spool.id) == [0, 2, 4]
    assert heads(tmp_path, spool.id) == [b"%020d" % number for number in range(5)]
    spool.close()


def test_a_record_larger_than_a_segment_is_dropped_and_the_segment_is_kept(tmp_path: Path) -> None:
    spool = new_spool(tmp_path, segment_bytes=_SEGMENT)
    reader = SpoolReader(tmp_path, spool.id)
    assert reader.read(1) == []  # it has opened the segment, which is still empty
    append_heads(spool, b"x" * (_FULL + 1), b"one", b"x" * (_FULL + 1), b"two")
    assert [Record.from_bytes(record).head for record in reader.read(2**30)] == [b"one", b"two"]
    assert segments(tmp_path, spool.id) == [0]
    assert reader.counts == Counts(served=4, recorded=2, dropped=2)
    assert (spool.recorded, spool.dropped) == (2, 2)
    reader.close()
    spool.close()


def test_an_id_is_never_used_twice(tmp_path: Path) -> None:
    for _ in range(30):
        new_spool(tmp_path).close()
    assert len(spools(tmp_path)) == 30
    assert all(len(spool) == 16 and set(spool) <= set("0123456789abcdef") for spool in spools(tmp_path))


# What is on disk.


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_only_the_owner_may_read_a_spool_whatever_the_umask(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        spool = new_spool(tmp_path)
        wait_for(lambda: has_next(tmp_path, spool.id))
    finally:
        os.umask(before)
    files = [counts_path(tmp_path, spool.id), segment_path(tmp_path, spool.id, 0), next_path(tmp_path, spool.id)]
    assert sorted(files) == sorted(tmp_path.iterdir())
    assert [oct(stat.S_IMODE(file.stat().st_mode)) for file in files] == ["0o600"] * 3
    spool.close()


def test_a_segment_and_the_one_after_it_have_their_place_on_the_disk_before_they_are_needed(tmp_path: Path) -> None:
    spool = Spool(tmp_path, max_bytes=2 * SEGMENT_BYTES)
    upcoming = next_path(tmp_path, spool.id)
    wait_for(lambda: upcoming.exists() and upcoming.stat().st_size == SEGMENT_BYTES)
    for path in (segment_path(tmp_path, spool.id, 0), upcoming):
        assert path.stat().st_size == SEGMENT_BYTES
        assert path.stat().st_blocks * 512 >= SEGMENT_BYTES
    spool.close()


def test_the_next_segment_is_made_again_after_each_one_that_is_entered(tmp_path: Path) -> None:
    spool = new_spool(tmp_path, segment_bytes=_SEGMENT)
    for number in range(5):
        append_heads(spool, b"x" * _FULL)
        wait_for(lambda: has_next(tmp_path, spool.id))
        assert segments(tmp_path, spool.id) == list(range(number + 1))
    spool.close()


def test_after_a_close_nothing_waits_for_its_turn(tmp_path: Path) -> None:
    spool = new_spool(tmp_path)
    append_heads(spool, b"one")
    spool.close()
    spool.close()  # harmless
    assert sorted(tmp_path.iterdir()) == sorted([counts_path(tmp_path, spool.id), segment_path(tmp_path, spool.id, 0)])
    assert heads(tmp_path, spool.id) == [b"one"]


# Whose it is.


def test_a_spool_is_finished_when_its_writer_has_closed_it_and_not_before(tmp_path: Path) -> None:
    spool = new_spool(tmp_path)
    assert [is_finished(tmp_path, spool.id) for _ in range(3)] == [False] * 3  # asking does not finish it
    append_heads(spool, b"one")
    assert not is_finished(tmp_path, spool.id)
    spool.close()
    assert is_finished(tmp_path, spool.id)


def test_a_spool_that_can_be_found_has_its_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At its first moment, too: otherwise the shipper would take it for one that a worker has left."""
    found: list[bool] = []
    rename = Path.rename

    def look(path: Path, target: Path) -> Path:
        renamed = rename(path, target)
        found.extend(is_finished(tmp_path, spool) for spool in spools(tmp_path))
        return renamed

    monkeypatch.setattr(Path, "rename", look)
    new_spool(tmp_path).close()
    assert found == [False, False]  # the counts got their name, and then the segment


def test_what_was_appended_survives_the_death_of_the_process_and_the_spool_is_finished_then(tmp_path: Path) -> None:
    writer = subprocess.Popen(
        [sys.executable, "-c", _WRITES_AND_WAITS, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"written\n"
        [spool] = spools(tmp_path)
        assert not is_finished(tmp_path, spool)
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        wait_for(lambda: is_finished(tmp_path, spool))
        assert heads(tmp_path, spool) == [b"head %d" % number for number in range(50)]
        assert counts(tmp_path, spool) == Counts(50, 50, 0)
    finally:
        writer.kill()
        writer.communicate()


_WRITES_AND_WAITS = textwrap.dedent("""
    import sys
    from pathlib import Path
    import edge.spool
    from edge.segments import link_bytes, peer_bytes

    edge.spool._LONGEST_WAIT_S = 30.0
    spool = edge.spool.Spool(Path(sys.argv[1]), max_bytes=2**30, segment_bytes=512)
    for number in range(50):
        spool.append(link_bytes(7, 3), peer_bytes("203.0.113.7"), b"head %d" % number)
    print("written", flush=True)
    sys.stdin.read()
""")


# When a segment is left.


def test_a_segment_that_has_been_used_for_a_minute_is_left_and_an_empty_one_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool = new_spool(tmp_path)
    append_heads(spool, b"one", b"two")
    spool.tend()
    assert segments(tmp_path, spool.id) == [0]  # it is no minute yet
    monkeypatch.setattr("edge.spool._LEAVE_AFTER_S", -1.0)
    reader = SpoolReader(tmp_path, spool.id)
    found: list[bytes] = []
    for _ in range(3):
        spool.tend()
        assert segments(tmp_path, spool.id) == [0, 2]
        found += [Record.from_bytes(record).head for record in reader.read(2**30)]  # it is in the empty one now
    append_heads(spool, b"three")
    spool.tend()
    assert segments(tmp_path, spool.id) == [0, 2, 3]
    found += [Record.from_bytes(record).head for record in reader.read(2**30)]
    assert found == heads(tmp_path, spool.id) == [b"one", b"two", b"three"]
    reader.close()
    spool.close()


@pytest.mark.parametrize(
    ("used", "kept"),
    [
        pytest.param(100, PAGE, id="little"),
        pytest.param(PAGE - 4, PAGE, id="a page but for the zero that ends it"),
        pytest.param(PAGE, 2 * PAGE, id="a page, and the zero is on the next"),
        pytest.param(5 * PAGE + 100, 6 * PAGE, id="several pages"),
        pytest.param(8 * PAGE, 8 * PAGE, id="all of it"),
    ],
)
def test_a_segment_that_is_left_gives_back_the_pages_that_it_does_not_need_and_is_read_to_its_end(
    tmp_path: Path, spool: Spool, other: Other, monkeypatch: pytest.MonkeyPatch, used: int, kept: int
) -> None:
    """Also by a reader that has mapped all of it: it would be killed (SIGBUS) if it looked beyond what is kept."""
    assert other.look() == ([], Counts(0, 0, 0))
    assert segment_path(tmp_path, spool.id, 0).stat().st_size == 8 * PAGE
    appended = [b"one", b"x" * (used - (4 + FIXED_BYTES + 4) - (4 + FIXED_BYTES))]
    append_heads(spool, *appended)
    monkeypatch.setattr("edge.spool._LEAVE_AFTER_S", -1.0)
    spool.tend()
    wait_for(lambda: has_next(tmp_path, spool.id))  # made by the thread that gives back, after that
    assert segment_path(tmp_path, spool.id, 0).stat().st_size == kept
    append_heads(spool, b"two")
    assert segments(tmp_path, spool.id) == [0, 2]
    appended.append(b"two")
    assert other.look() == ([head.decode() for head in appended], Counts(3, 3, 0))
    assert heads(tmp_path, spool.id) == appended
