"""Segments that a loss of power, or somebody, has damaged: what of them is still read, and where reading goes on."""

import os
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.segments import segment_path
from tests.edge.reading import SEGMENTS, SLACKS, SPOOL, Opened, Segments, everything, flat, open_spools, reading
from tests.edge.spools import segment, tear

opened = pytest.fixture(open_spools)


@reading
@given(
    before=st.lists(st.binary(min_size=1, max_size=40), max_size=5),
    destroyed=st.lists(st.binary(min_size=1, max_size=40), min_size=1, max_size=5),
    after=SEGMENTS,
    slack=SLACKS,
)
def test_records_that_a_loss_of_power_has_destroyed_are_left_out_only_when_told(
    opened: Opened, before: list[bytes], destroyed: list[bytes], after: Segments, slack: int
) -> None:
    directory, reader = opened([*before, *destroyed], *after, slack=slack)
    tear(directory, SPOOL, 0, after=len(before))
    torn_until = len(before) + len(destroyed)
    assert everything(reader) == before
    for _ in range(2):
        assert everything(reader) == []
        assert (reader.position, reader.torn_until, reader.earliest) == (len(before), torn_until, 0)
        assert reader.next_at_ns is None
    reader.skip_torn()
    assert (reader.position, reader.torn_until, reader.earliest) == (torn_until, None, torn_until)
    assert everything(reader) == flat(after)
    reader.skip_torn()  # nothing more is
    assert reader.position == torn_until + len(flat(after))


def test_records_before_the_destroyed_ones_can_be_read_again(opened: Opened) -> None:
    directory, reader = opened([b"one", b"two", b"three"], [b"four"])
    tear(directory, SPOOL, 0, after=1)
    for _ in range(2):
        assert everything(reader) == [b"one"]
        reader.seek(0)
    reader.seek(2)  # destroyed
    assert (reader.position, everything(reader), reader.torn_until) == (1, [], 3)
    reader.seek(3)
    assert everything(reader) == [b"four"]


def test_a_segment_that_is_gone_is_one_of_destroyed_records(opened: Opened) -> None:
    directory, reader = opened([b"one"], [b"two", b"three"], [b"four"])
    segment_path(directory, SPOOL, 1).unlink()
    assert everything(reader) == [b"one"]
    assert (reader.position, reader.torn_until) == (1, 3)
    reader.skip_torn()
    assert everything(reader) == [b"four"]


def test_a_reader_that_comes_after_the_first_segments_were_freed_leaves_them_out_when_told(opened: Opened) -> None:
    directory, reader = opened([b"one"], [b"two"])
    segment_path(directory, SPOOL, 0).unlink()
    assert everything(reader) == []
    reader.skip_torn()
    assert (reader.earliest, everything(reader)) == (1, [b"two"])


def test_the_last_segment_may_end_early_without_being_torn(opened: Opened) -> None:
    """Nobody can tell what was lost from what was never written."""
    directory, reader = opened([b"one", b"two"])
    tear(directory, SPOOL, 0, after=1)
    assert everything(reader) == [b"one"]
    assert (reader.position, reader.torn_until) == (1, None)


@pytest.mark.parametrize("length", [5, 100, 2**31, 2**32 - 1])
def test_a_length_that_reaches_beyond_the_segment_is_no_record(opened: Opened, length: int) -> None:
    directory, reader = opened([b"one", b"lost"], [b"two"])
    segment_path(directory, SPOOL, 0).write_bytes(segment([b"one"]) + struct.pack("=II", length, 0))
    assert everything(reader) == [b"one"]
    assert (reader.position, reader.torn_until, reader.next_at_ns) == (1, 2, None)
    reader.seek(1)
    assert (reader.position, reader.next_at_ns) == (1, None)
    reader.seek(2)
    assert everything(reader) == [b"two"]


@pytest.mark.parametrize("size", [0, 1, 3, 4, 6])
@pytest.mark.parametrize("is_last", [False, True])
def test_a_segment_that_has_lost_its_size_has_no_records(opened: Opened, size: int, is_last: bool) -> None:
    directory, reader = opened([b"one"], [b"two"], [b"three"])
    os.truncate(segment_path(directory, SPOOL, 2 if is_last else 1), size)
    reader.seek(0)
    assert everything(reader) == ([b"one", b"two"] if is_last else [b"one"])
    assert reader.torn_until == (None if is_last else 2)
    reader.skip_torn()
    assert everything(reader) == ([] if is_last else [b"three"])


@reading
@given(segments=SEGMENTS, at=st.integers(0, 400), noise=st.binary(max_size=60), position=st.integers(0, 30))
def test_whatever_is_in_a_segment_it_is_read_to_an_end(
    opened: Opened, segments: Segments, at: int, noise: bytes, position: int
) -> None:
    directory, reader = opened(*segments)
    path = segment_path(directory, SPOOL, 0)
    content = path.read_bytes()
    at %= len(content)
    path.write_bytes((content[:at] + noise + content[at + len(noise) :])[: len(content)])
    reader.seek(position)
    read = everything(reader)
    assert len(read) <= len(content) // 4 + len(flat(segments))
    assert sum(map(len, read)) <= reader.bytes_on_disk
