"""Windows of time: when they are open, also where clocks jump, and the one form they have."""

from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.windows import DAYS, instant, is_open, normal_window

_BERLIN = {"zone": "Europe/Berlin"}


def _ms(text: str) -> int:
    return round(datetime.fromisoformat(text).timestamp() * 1000)


@pytest.mark.parametrize(
    ("window", "at", "is_inside"),
    [
        ({"from": "09:00", "until": "18:00"}, "2026-01-05T09:00:00Z", True),
        ({"from": "09:00", "until": "18:00"}, "2026-01-05T08:59:59.999Z", False),
        ({"from": "09:00", "until": "18:00"}, "2026-01-05T17:59:59.999Z", True),
        ({"from": "09:00", "until": "18:00"}, "2026-01-05T18:00:00Z", False),
        ({"from": "09:00"}, "2026-01-05T23:59:00Z", True),
        ({"from": "09:00"}, "2026-01-05T00:00:00Z", False),
        ({"until": "09:00"}, "2026-01-05T00:00:00Z", True),
        ({"until": "24:00"}, "2026-01-05T23:59:59Z", True),
        ({"from": "22:00", "until": "06:00"}, "2026-01-05T23:00:00Z", True),
        ({"from": "22:00", "until": "06:00"}, "2026-01-05T05:59:00Z", True),
        ({"from": "22:00", "until": "06:00"}, "2026-01-05T06:00:00Z", False),
        ({"days": ["mon"]}, "2026-01-05T12:00:00Z", True),
        ({"days": ["sun", "tue"]}, "2026-01-05T12:00:00Z", False),
        # What lasts over midnight belongs to the day it began on. The 4th is a Sunday.
        ({"from": "22:00", "until": "06:00", "days": ["sun"]}, "2026-01-05T05:00:00Z", True),
        ({"from": "22:00", "until": "06:00", "days": ["sun"]}, "2026-01-05T23:00:00Z", False),
        ({"from": "22:00", "until": "06:00", "days": ["sun"]}, "2026-01-04T05:00:00Z", False),
        ({"from": "18:00", "until": "00:00", "days": ["sun"]}, "2026-01-04T23:59:00Z", True),
        ({"from": "18:00", "until": "00:00", "days": ["sun"]}, "2026-01-05T00:00:00Z", False),
        # The day is that of the zone.
        ({"days": ["mon"], "zone": "Pacific/Auckland"}, "2026-01-04T12:00:00Z", True),
        ({"days": ["mon"], "zone": "Asia/Kathmandu"}, "2026-01-04T18:15:00Z", True),
        ({"days": ["mon"], "zone": "Asia/Kathmandu"}, "2026-01-04T18:14:59Z", False),
        # Nine o'clock is nine o'clock, in winter and in summer.
        ({"from": "09:00", "until": "10:00", **_BERLIN}, "2026-03-28T08:30:00Z", True),
        ({"from": "09:00", "until": "10:00", **_BERLIN}, "2026-03-29T07:30:00Z", True),
        ({"from": "09:00", "until": "10:00", **_BERLIN}, "2026-03-29T08:30:00Z", False),
        ({"from": "09:00", "until": "10:00", **_BERLIN}, "2026-10-25T08:30:00Z", True),
        # In spring 02:00 to 03:00 is skipped; in autumn it comes twice.
        ({"from": "02:30", "until": "03:30", **_BERLIN}, "2026-03-29T00:59:00Z", False),
        ({"from": "02:30", "until": "03:30", **_BERLIN}, "2026-03-29T01:00:00Z", True),
        ({"from": "02:00", "until": "03:00", **_BERLIN}, "2026-10-25T00:30:00Z", True),
        ({"from": "02:00", "until": "03:00", **_BERLIN}, "2026-10-25T01:30:00Z", True),
        ({"from": "22:00", "until": "02:30", "days": ["sat"], **_BERLIN}, "2026-10-25T01:15:00Z", True),
        # Instants.
        ({"after": "2026-01-05T12:00:00Z"}, "2026-01-05T12:00:00Z", True),
        ({"after": "2026-01-05T12:00:00Z"}, "2026-01-05T11:59:59.999Z", False),
        ({"before": "2026-01-05T12:00:00.001Z"}, "2026-01-05T12:00:00Z", True),
        ({"before": "2026-01-05T12:00:00Z"}, "2026-01-05T12:00:00Z", False),
        ({"after": "2026-01-05", **_BERLIN}, "2026-01-04T23:00:00Z", True),
        ({"after": "2026-07-05T00:00:00", **_BERLIN}, "2026-07-04T21:59:59Z", False),
        ({"after": "2026-01-05T00:00:00Z", "from": "09:00"}, "2026-01-06T08:00:00Z", False),
        ({"after": "2026-01-06T00:00:00Z", "from": "09:00"}, "2026-01-05T10:00:00Z", False),
    ],
)
def test_when_a_window_is_open(window: dict[str, Any], at: str, is_inside: bool) -> None:
    assert is_open(normal_window(window), _ms(at)) is is_inside


@pytest.mark.parametrize(
    "window", [{}, {"from": "00:00", "until": "24:00"}, {"from": "00:00", "zone": "UTC", "moon": "full"}]
)
def test_a_window_without_a_zone_or_with_parts_that_nobody_knows_is_never_open(window: dict[str, Any]) -> None:
    assert not is_open(window, 0)


_QUARTERS = st.integers(0, 95)


def _clock(quarter: int) -> str:
    return f"{quarter // 4:02}:{quarter % 4 * 15:02}"


@given(
    st.sampled_from(["2026-03-23", "2026-06-01", "2026-10-19"]),
    st.sets(st.sampled_from(DAYS), min_size=1),
    st.integers(12, 95),
    st.integers(12, 95),
)
def test_a_window_is_open_equally_long_in_any_week_even_beside_a_jump_of_the_clock(
    monday: str, days: set[str], begin: int, end: int
) -> None:
    """Two of these weeks end with a Sunday on which the clocks of Berlin jump before 03:00. No window is as early."""
    begin, end = min(begin, end), max(begin, end) + 1
    window = normal_window({"from": _clock(begin), "until": _clock(end), "days": list(days), **_BERLIN})
    start = datetime.fromisoformat(monday).replace(tzinfo=ZoneInfo("Europe/Berlin"))
    at_ms, end_ms = (round(at.timestamp() * 1000) for at in (start, start + timedelta(days=7)))
    quarters = [quarter_ms for quarter_ms in range(at_ms, end_ms, 900_000) if is_open(window, quarter_ms)]
    assert len(quarters) == len(days) * (end - begin)


_WINDOWS = st.fixed_dictionaries(
    {},
    optional={
        "from": _QUARTERS.map(_clock) | st.sampled_from(["9:05", "24:00", "9", "09:00:00", 9, None]),
        "until": _QUARTERS.map(_clock) | st.sampled_from(["9:05", "24:00", "25:00", ""]),
        "days": st.lists(st.sampled_from([*DAYS, "Monday", "SUN", "someday", 1]), max_size=8) | st.sampled_from(DAYS),
        "zone": st.sampled_from(["Europe/Berlin", "europe/berlin", "UTC", "Asia/Kathmandu", "localtime", "../UTC", 1]),
        "after": st.datetimes().map(str) | st.datetimes(timezones=st.just(UTC)).map(datetime.isoformat) | st.text(),
        "before": st.datetimes(timezones=st.just(UTC)).map(datetime.isoformat) | st.dates().map(str) | st.none(),
        "moon": st.just("full"),
    },
)


@given(_WINDOWS | st.text() | st.none(), st.integers(0, 253_402_300_799_999))
def test_whatever_is_sent_has_a_normal_form_that_is_its_own_or_is_refused(window: Any, at_ms: int) -> None:
    try:
        normal = normal_window(window)
    except ValueError as error:
        assert error.args and all(str(message).endswith(".") for message in error.args)
        return
    assert normal_window(normal) == normal
    assert list(normal_window(dict(reversed(normal.items())))) == list(normal)
    assert is_open(normal, at_ms) in (True, False)


@pytest.mark.parametrize(
    ("window", "normal"),
    [
        ({"from": "9:00", "days": "Monday"}, {"from": "09:00", "days": ["mon"], "zone": "UTC"}),
        (
            {"zone": "europe/BERLIN", "days": ["SUN", "mon", "sunday"], "until": "24:00"},
            {"until": "24:00", "days": ["mon", "sun"], "zone": "Europe/Berlin"},
        ),
        ({"after": "2026-07-01", **_BERLIN}, {"after": "2026-06-30T22:00:00.000Z"}),
        ({"before": "2026-07-01T09:30:00.1239+05:45"}, {"before": "2026-07-01T03:45:00.123Z"}),
    ],
)
def test_the_normal_form_of_a_window(window: dict[str, Any], normal: dict[str, Any]) -> None:
    assert normal_window(window) == normal


@pytest.mark.parametrize(
    ("window", "wrong"),
    [
        ([], ["object such as"]),
        ({}, ["needs one of"]),
        (_BERLIN, ["needs one of"]),
        ({"from": "9", "until": "24:01", "days": [], "zone": "Berlin", "after": "soon", "x": 1, "y": 2},
         ["nothing else", '"from"', '"until"', '"days"', '"zone"', '"after"']),
        ({"from": "24:00"}, ['"from"']),
        ({"from": "09:00", "until": "9:00"}, ["end when it begins"]),
        ({"until": "00:00"}, ["end when it begins"]),
        ({"days": ["mon", 7]}, ["one of mon"]),
        ({"days": ["mon"], "zone": "localtime"}, ["IANA"]),
        ({"after": "2026-01-01T00:00:00"}, ["offset"]),
        ({"after": "2026-01-02", "before": "2026-01-02", **_BERLIN}, ["before it begins"]),
        ({"after": "0001-01-01T00:00:00+10:00"}, ["offset"]),
        ({"after": "2026-02-30T00:00:00Z"}, ["offset"]),
        ({"after": "2026-W01-1"}, ["offset"]),
    ],
)  # fmt: skip
def test_all_that_is_wrong_with_a_window_is_said_at_once(window: Any, wrong: list[str]) -> None:
    with pytest.raises(ValueError, match=r"\w") as raised:
        normal_window(window)
    assert len(raised.value.args) == len(wrong)
    for message, part in zip(raised.value.args, wrong, strict=True):
        assert part in message


@given(st.integers(0, 253_402_300_799_999))
def test_an_instant_is_written_to_the_millisecond(at_ms: int) -> None:
    assert _ms(instant(at_ms)) == at_ms
    assert len(instant(at_ms)) == len("2026-01-31T09:30:00.000Z")
