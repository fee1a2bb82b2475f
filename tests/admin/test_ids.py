"""Ids: their shape, their order, and what is none."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from admin.errors import NotFound
from admin.http import ids


def test_ids_are_in_the_order_of_their_making(monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    for ms in (ids._BEGIN_MS, ids._BEGIN_MS + 1, 1_800_000_000_000, 1_800_000_000_001, ids._BEGIN_MS + 62**7 - 1):
        monkeypatch.setattr("time.time_ns", lambda ms=ms: ms * 1_000_000)
        made.append(ids.new_id())
    assert made == sorted(made)
    assert all(len(one) == 16 and one.isascii() and one.isalnum() for one in made)


def test_ids_differ() -> None:
    assert len({ids.new_id() for _ in range(10_000)}) == 10_000


@given(st.sampled_from(["", "key", "user"]))
def test_what_is_shown_can_be_read(prefix: str) -> None:
    public_id = ids.new_id()
    shown = ids.shown(prefix, public_id) if prefix else public_id
    assert ids.read(prefix, shown) == public_id


@given(
    st.sampled_from(["", "key"]),
    st.text(max_size=24) | st.from_regex("(key|user|_)?_?[0-9A-Za-z]{15,17}", fullmatch=True),
)
def test_anything_else_names_nothing(prefix: str, text: str) -> None:
    try:
        public_id = ids.read(prefix, text)
    except NotFound:
        return
    assert text == (ids.shown(prefix, public_id) if prefix else public_id)


@given(st.integers(0, 62**7 - 1), st.integers(0, 62**7 - 1))
def test_digits_keep_the_order_of_numbers(one: int, other: int) -> None:
    assert (one < other) == (ids.base62(one, 7) < ids.base62(other, 7))
