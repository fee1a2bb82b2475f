"""Ids of clicks, which their destinations are told."""

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from shared.click_ids import ClickIds, click_ids

KEY = "000102030405060708090a0b0c0d0e0f"
KEYS = st.binary(min_size=16, max_size=16).map(bytes.hex)
SPOOLS = st.binary(min_size=8, max_size=8).map(bytes.hex)
POSITIONS = st.integers(0, 2**48 - 1)


@given(KEYS, SPOOLS, POSITIONS)
def test_an_id_opens_to_where_its_click_is_recorded(key: str, spool: str, position: int) -> None:
    assert click_ids(key).open(click_ids(key).seal(spool, position)) == (spool, position)


def test_an_id_is_one_block_of_aes() -> None:
    """As `openssl enc -aes-128-ecb -nopad` seals it."""
    ids = ClickIds(KEY)
    assert ids.seal("0011223344556677", 0x0000CCDDEEFF0011) == "GYgWNeQf65rt-RzuYpujVg"
    assert ids.open("GYgWNeQf65rt-RzuYpujVg") == ("0011223344556677", 0xCCDDEEFF0011)


@given(KEYS, KEYS, SPOOLS, POSITIONS)
def test_another_key_opens_it_to_no_click_of_that_spool(key: str, other: str, spool: str, position: int) -> None:
    assume(key != other)
    assert (click_ids(other).open(click_ids(key).seal(spool, position)) or ("", 0))[0] != spool


@given(st.text() | st.text("Aab09-_=", min_size=20, max_size=24) | st.binary(min_size=16, max_size=16).map(bytes.hex))
def test_what_was_made_up_is_not_opened(text: str) -> None:
    assert click_ids(KEY).open(text) is None or len(text) == 22


def test_of_many_that_were_made_up_none_has_a_place() -> None:
    ids = click_ids(KEY)
    told = ids.seal("0011223344556677", 7)
    others = {told[:place] + other + told[place + 1 :] for place in range(21) for other in "Aa0-_"} - {told}
    assert [ids.open(other) for other in others] == [None] * len(others)
    assert ids.open(told[:-1] + chr(ord(told[-1]) + 1)) is None  # the same block, spelled another way


@pytest.mark.parametrize(
    ("spool", "position"), [("s", 0), ("00" * 7, 0), ("00" * 9, 0), ("00" * 8, 2**48), ("00" * 8, -1)]
)
def test_what_no_edge_records_has_no_id(spool: str, position: int) -> None:
    with pytest.raises((ValueError, OverflowError)):
        click_ids(KEY).seal(spool, position)


@pytest.mark.parametrize("key", ["", "0", KEY + "0", "g" * 32, KEY * 2 + "00"])
def test_what_is_no_key_is_refused(key: str) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        ClickIds(key)
