"""Segments: the format of a spool, reading them, and removing what is no longer needed."""

import contextlib
import os
import struct
import sys
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from edge.segments import Counts, Record, SpoolReader, counts_path, link_bytes, next_path, peer_bytes, segment_path
from tests.edge.reading import SEGMENTS, SLACKS, SPOOL, Opened, Segments, everything, firsts, flat, open_spools, reading
from tests.edge.spools import (
    LINK,
    PEER,
    be_patient,
    dirty_kb,
    held,
    is_kept_in_memory,
    new_spool,
    segments,
    visits,
    write,
)

patience = pytest.fixture(scope="module", autouse=True)(be_patient)
opened = pytest.fixture(open_spools)

# The format.


def test_the_format_of_a_spool_is_what_it_was(tmp_path: Path) -> None:
    """Spools wait on disk while the edge is replaced by another version."""
    spool = new_spool(tmp_path, segment_bytes=256)
    spool.append(link_bytes(7, 2**63 - 1), peer_bytes("203.0.113.7"), b"GET / HTTP/1.1\r\n\r\n")
    spool.append(link_bytes(8, 3), peer_bytes(""), b"")
    spool.append(link_bytes(8, 3, rule_id=2, is_use=True), peer_bytes(""), b"")
    spool.append(link_bytes(9, 3), peer_bytes(""), b"x" * 300)  # too long for a segment
    spool.close()
    content = (tmp_path / f"{spool.id}-0000000000000000.clicks").read_bytes()
    times = content[4:12], content[64:72], content[96:104]
    one = struct.pack("=I8sQQB", 54, times[0], 7, 2**63 - 1, 11) + b"203.0.113.7GET / HTTP/1.1\r\n\r\n\0\0"
    two = struct.pack("=I8sQQB", 25, times[1], 8, 3, 0) + b"\0\0\0"
    three = struct.pack("=I8sQQIIBB", 34, times[2], 8, 3 | 2**63, 2, 0, 1, 0) + b"\0\0"
    assert content == (one + two + three).ljust(256, b"\0")
    assert (tmp_path / f"{spool.id}.spool").read_bytes() == struct.pack("=QQQ", 4, 3, 1).ljust(64, b"\0")


@given(
    at_ns=st.integers(0, 2**64 - 1),
    link_id=st.integers(0, 2**64 - 1),
    organization_id=st.integers(0, 2**63 - 1),
    outcome=st.just((0, 0, False, False))
    | st.tuples(st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1), st.booleans(), st.booleans()),
    peer=st.ip_addresses().map(str) | st.just(""),
    head=st.binary(max_size=300),
)
def test_a_record_is_read_as_it_was_put_together(
    at_ns: int, link_id: int, organization_id: int, outcome: tuple[int, int, bool, bool], peer: str, head: bytes
) -> None:
    rule_id, variant_id, is_use, has_id = outcome
    link = link_bytes(link_id, organization_id, rule_id=rule_id, variant_id=variant_id, is_use=is_use, has_id=has_id)
    record = at_ns.to_bytes(8, sys.byteorder) + link + peer_bytes(peer) + head
    assert Record.from_bytes(record) == Record(at_ns, link_id, organization_id, peer, head, *outcome)


@given(st.binary(max_size=80))
@example(bytes(24))
@example(bytes(24) + b"\x02\xff\xff")
@example(bytes(24) + b"\xff1")
@example(bytes(16) + b"\xff" * 9)
def test_any_other_record_is_refused_with_the_error_that_is_promised(record: bytes) -> None:
    with contextlib.suppress(ValueError):
        assert record.endswith(Record.from_bytes(record).head)


@pytest.mark.parametrize("record", [b"", bytes(24), bytes(24) + b"\x02\xc3\xa4"])
def test_a_record_that_is_too_short_or_has_no_address_is_refused(record: bytes) -> None:
    with pytest.raises(ValueError):
        Record.from_bytes(record)


@given(st.text(max_size=40))
@example("ä" * 300)
def test_any_peer_has_its_place_in_a_record(peer: str) -> None:
    record = Record.from_bytes(bytes(8) + LINK + peer_bytes(peer) + b"head")
    assert record.head == b"head"
    assert record.peer == "".join(letter if letter.isascii() else "?" for letter in peer)[:255]


# Reading.


@reading
@given(segments=SEGMENTS, slack=SLACKS)
def test_all_records_of_all_segments_are_read_in_their_order(opened: Opened, segments: Segments, slack: int) -> None:
    _, reader = opened(*segments, slack=slack)
    assert everything(reader) == flat(segments)
    assert reader.position == len(flat(segments))
    assert reader.torn_until is None
    assert everything(reader) == []


@reading
@given(segments=SEGMENTS, slack=SLACKS, max_bytes=st.integers(1, 150))
def test_about_as_many_bytes_are_read_as_wanted(opened: Opened, segments: Segments, slack: int, max_bytes: int) -> None:
    """Enough of them, and no record more than makes it enough."""
    _, reader = opened(*segments, slack=slack)
    read: list[bytes] = []
    while records := reader.read(max_bytes):
        read += records
        assert reader.position == len(read)
        assert len(b"".join(records[:-1])) < max_bytes
        assert len(b"".join(records)) >= max_bytes or read == flat(segments)
    assert read == flat(segments)


@reading
@given(
    segments=SEGMENTS,
    slack=SLACKS,
    positions=st.lists(st.integers(0, 30), min_size=1, max_size=3),
    removed=st.integers(0, 4),
)
def test_reading_goes_on_at_any_position_that_is_wanted_or_as_near_as_there_is(
    opened: Opened, segments: Segments, slack: int, positions: list[int], removed: int
) -> None:
    directory, reader = opened(*segments, slack=slack)
    gone = firsts(segments)[: min(removed, len(segments) - 1)]
    for first in gone:
        segment_path(directory, SPOOL, first).unlink()
    earliest = firsts(segments)[len(gone)]
    for position in positions:
        reader.seek(position)
        nearest = min(max(position, earliest), len(flat(segments)))
        assert (reader.position, reader.earliest) == (nearest, earliest)
        assert everything(reader) == flat(segments)[nearest:]


def test_beyond_the_end_the_next_record_is_read_when_it_is_there(tmp_path: Path) -> None:
    spool = new_spool(tmp_path, segment_bytes=256)
    reader = SpoolReader(tmp_path, spool.id)
    reader.seek(10)
    assert reader.position == 0
    for number in range(10):  # several segments of them
        assert reader.next_at_ns is None
        spool.append(LINK, PEER, b"%d" % number)
        assert [Record.from_bytes(record).head for record in everything(reader)] == [b"%d" % number]
    reader.seek(20)
    assert reader.position == 10
    spool.append(LINK, PEER, b"10")
    assert [Record.from_bytes(record).head for record in everything(reader)] == [b"10"]
    reader.close()
    spool.close()


def test_a_spool_that_has_no_segment_yet_has_no_records(tmp_path: Path) -> None:
    write(tmp_path, SPOOL)
    reader = SpoolReader(tmp_path, SPOOL)
    reader.seek(5)
    assert everything(reader) == []
    assert (reader.position, reader.earliest, reader.next_at_ns, reader.bytes_on_disk) == (0, 0, None, 0)
    reader.free(5)
    reader.flush()
    reader.close()


def test_there_is_no_reader_of_a_spool_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(OSError):
        SpoolReader(tmp_path, SPOOL)


def test_the_time_of_the_next_record_is_known_also_across_the_end_of_a_segment(opened: Opened) -> None:
    records = [visits(b"a", at_ns=at_ns)[0] for at_ns in (100, 200, 300)]
    _, reader = opened(records[:2], records[2:], slack=0)
    reader.seek(0)
    for at_ns in (100, 200, 300):
        assert reader.next_at_ns == at_ns
        reader.read(1)
    assert reader.next_at_ns is None


def test_only_the_segments_of_a_spool_take_its_bytes(opened: Opened) -> None:
    directory, reader = opened([b"one"], [b"two"], slack=4)
    write(directory, "fedcba9876543210", [b"another spool"])
    next_path(directory, SPOOL).write_bytes(bytes(100))
    assert reader.bytes_on_disk == 2 * 12
    assert everything(reader) == [b"one", b"two"]


def test_a_spool_is_finished_when_nobody_holds_its_lock(opened: Opened) -> None:
    directory, reader = opened([b"one"])
    found = []
    for worker in (held(directory, SPOOL), contextlib.nullcontext(), held(directory, SPOOL)):
        with worker:
            found.append(reader.is_finished)
    assert found == [False, True, False]  # having looked, it does not hold the lock itself


def test_a_spool_whose_counts_were_made_again_is_not_taken_for_finished_by_a_reader_of_the_old_ones(
    tmp_path: Path,
) -> None:
    """The worker that lives has let go of their lock; that tells nothing of the spool."""
    spool = new_spool(tmp_path, segment_bytes=128)
    before = SpoolReader(tmp_path, spool.id)
    assert not before.is_finished
    counts_path(tmp_path, spool.id).unlink()
    with pytest.raises(FileNotFoundError):
        assert before.is_finished
    for _ in range(2):  # the second one enters another segment
        spool.append(LINK, PEER, b"x" * 60)
    again = SpoolReader(tmp_path, spool.id)
    with pytest.raises(FileNotFoundError, match="made again"):
        assert before.is_finished
    assert (again.is_finished, again.counts) == (False, Counts(2, 2, 0))
    spool.close()
    with pytest.raises(FileNotFoundError, match="made again"):
        assert before.is_finished
    assert again.is_finished
    before.close()
    again.close()


@pytest.mark.parametrize("size", [0, 8, 16, 24])
def test_counts_that_were_not_written_are_zero(opened: Opened, size: int) -> None:
    directory, reader = opened([b"one"])
    assert reader.counts == Counts(1, 1, 0)
    os.truncate(counts_path(directory, SPOOL), size)
    assert reader.counts == Counts(int(size >= 8), int(size >= 16), 0)


# Freeing and removing.


@reading
@given(segments=SEGMENTS, committed=st.integers(0, 30), position=st.integers(0, 30))
def test_segments_before_what_is_committed_are_removed_but_for_the_newest_and_the_one_that_is_read(
    opened: Opened, segments: Segments, committed: int, position: int
) -> None:
    directory, reader = opened(*segments)
    reader.seek(position)
    begins = firsts(segments)
    current = max(first for first in begins if first <= reader.position)
    left = [first for first, following in pairwise([*begins, 2**63]) if following > committed or first >= current]
    at = reader.position
    reader.free(committed)
    assert [first for first in begins if segment_path(directory, SPOOL, first).exists()] == left
    assert (reader.position, reader.earliest) == (at, left[0])
    assert everything(reader) == flat(segments)[at:]
    reader.seek(0)
    assert everything(reader) == flat(segments)[left[0] :]


def test_the_newest_segment_stays_however_much_is_committed(tmp_path: Path) -> None:
    """The worker may still write to it."""
    spool = new_spool(tmp_path, segment_bytes=128)
    reader = SpoolReader(tmp_path, spool.id)
    for number in range(4):
        spool.append(LINK, PEER, b"x" * 60)
        assert len(everything(reader)) == 1
        reader.free(2**40)
        assert segments(tmp_path, spool.id) == [number]
    reader.close()
    spool.close()


def test_a_spool_is_removed_with_all_its_files(opened: Opened) -> None:
    directory, reader = opened([b"one"], [b"two"])
    next_path(directory, SPOOL).write_bytes(b"")
    write(directory, "fedcba9876543210", [b"another spool"])
    others = set(directory.glob("fedcba*"))
    reader.remove()
    assert set(directory.iterdir()) == others


def test_a_spool_that_can_not_be_removed_can_still_be_found(opened: Opened) -> None:
    directory, reader = opened([b"one"], [b"two"])
    path = segment_path(directory, SPOOL, 0)
    path.unlink()
    path.mkdir()
    with pytest.raises(OSError):
        reader.remove()
    assert counts_path(directory, SPOOL).exists()


# Flushing.


def test_what_was_appended_is_brought_to_the_disk(tmp_path: Path) -> None:
    if is_kept_in_memory(tmp_path):
        pytest.skip("these temporary files have no disk")
    spool = new_spool(tmp_path, segment_bytes=160)
    reader = SpoolReader(tmp_path, spool.id)
    for _ in range(2):
        for _ in range(5):
            spool.append(LINK, PEER, b"x" * 60)
        written = [segment_path(tmp_path, spool.id, first) for first in segments(tmp_path, spool.id)[-5:]]
        assert len(written) == 5
        assert all(dirty_kb(path) for path in (*written, counts_path(tmp_path, spool.id)))
        reader.flush()
        assert not any(dirty_kb(path) for path in (*written, counts_path(tmp_path, spool.id)))
    spool.append(LINK, PEER, b"")  # in the segment that was flushed already
    assert dirty_kb(written[-1])
    reader.flush()
    assert not dirty_kb(written[-1])
    reader.close()
    spool.close()
