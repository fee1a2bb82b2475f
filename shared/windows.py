"""Time windows: when a condition on the time holds, and the one form in which it is kept.

A window has some of these, and holds when all of them do:

    from, until    "09:00", as a clock on the wall of `zone` shows it; `until` is not part of it any more, and may be
                   "24:00". With `until` before `from` it lasts over midnight.
    days           some of `DAYS`, in `zone`. What lasts over midnight belongs to the day it began on.
    zone           an IANA time zone; UTC if it is not said
    after, before  instants; `before` is not part of it any more

The wall clock decides also where it jumps: 09:00 is 09:00 in summer and in winter, an hour that is skipped is in no
window, and one that comes twice is in its window twice.
"""

import re
from collections.abc import Callable
from datetime import UTC, datetime
from functools import cache, lru_cache
from typing import Any
from zoneinfo import ZoneInfo, available_timezones

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")

_PARTS = ("from", "until", "days", "zone", "after", "before")
_KNOWN = frozenset(_PARTS)
_DAY_NAMES = {
    name: name[:3] for name in (*DAYS, "monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
}
_TIME = re.compile(r"(?:[01]?[0-9]|2[0-3]):[0-5][0-9]")
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}(?:T.*)?")
_ELSEWHERE = {"localtime", "Factory"}
"""What the system lists beside the zones, and is another one on another machine."""


def is_open(window: dict[str, Any], at_ms: int) -> bool:
    """Whether a window in normal form holds at an instant (milliseconds since 1970, UTC).

    One that has parts which are not known here never holds. What is not in normal form may raise ValueError or
    TypeError.
    """
    if not window or not window.keys() <= _KNOWN:
        return False
    if "after" in window and at_ms < _milliseconds(window["after"]):
        return False
    if "before" in window and at_ms >= _milliseconds(window["before"]):
        return False
    if "zone" not in window:
        return "after" in window or "before" in window
    return _is_open_on_the_wall(window, datetime.fromtimestamp(at_ms // 1000, _zone(window["zone"])))


def _is_open_on_the_wall(window: dict[str, Any], now: datetime) -> bool:
    time, day = f"{now.hour:02}:{now.minute:02}", now.weekday()
    begin, end = window.get("from", "00:00"), window.get("until", "24:00")
    if begin < end:
        is_inside = begin <= time < end
    else:
        is_inside = time >= begin or time < end
        if time < end:
            day -= 1  # it began yesterday
    return is_inside and ("days" not in window or DAYS[day] in window["days"])


def instant(at_ms: int) -> str:
    """An instant (milliseconds since 1970, UTC) as people and programs read it."""
    return _written(datetime.fromtimestamp(at_ms // 1000, UTC).replace(microsecond=at_ms % 1000 * 1000))


@lru_cache(maxsize=1024)
def _zone(name: str) -> ZoneInfo:
    return ZoneInfo(name)  # whose own cache keeps eight


@lru_cache(maxsize=4096)
def _milliseconds(instant: str) -> int:
    return round(datetime.fromisoformat(instant).timestamp() * 1000)


def normal_window(window: Any) -> dict[str, Any]:
    """The normal form of what a person sent. Raises ValueError, whose `args` say everything that is wrong with it.

    Short and long names of days, any case of days and zones, and hours with one digit are accepted; an instant without
    an offset is one of `zone`.
    """
    if not isinstance(window, dict):
        raise ValueError(
            'A time window is an object such as {"from": "09:00", "until": "18:00", "zone": "Europe/Berlin"}.'
        )
    wrong = [f"A time window has {', '.join(_PARTS)}, and nothing else." for name in window if name not in _PARTS][:1]
    normal: dict[str, Any] = {}

    def take(name: str, read: Callable[[Any], Any]) -> None:
        if name in window:
            try:
                normal[name] = read(window[name])
            except ValueError as error:
                wrong.append(f'"{name}": {error}')

    take("from", _time)
    take("until", lambda text: text if text == "24:00" else _time(text))
    take("days", _days)
    take("zone", zone_name)
    zone = normal.get("zone", "UTC") if "zone" in window else None
    take("after", lambda text: _normal_instant(text, zone))
    take("before", lambda text: _normal_instant(text, zone))
    is_daily = not window.keys().isdisjoint(("from", "until", "days"))
    if not is_daily and window.keys().isdisjoint(("after", "before")):
        wrong.append("A time window needs one of from, until, days, after, before.")
    if normal.get("until") == normal.get("from", "00:00"):
        wrong.append("A time window can't end when it begins; without from and until it is the whole day.")
    if "after" in normal and "before" in normal and normal["after"] >= normal["before"]:
        wrong.append("A time window can't end before it begins.")
    if wrong:
        raise ValueError(*wrong)
    if is_daily:
        normal.setdefault("zone", "UTC")
    else:
        normal.pop("zone", None)  # it has done its work
    return {name: normal[name] for name in _PARTS if name in normal}


def _time(text: Any) -> str:
    if not isinstance(text, str) or not _TIME.fullmatch(text):
        raise ValueError("A time is hours and minutes, such as 09:00.")
    return text.zfill(5)


def _days(days: Any) -> list[str]:
    names = [days] if isinstance(days, str) else days
    if not isinstance(names, list) or not names:
        raise ValueError(f"Days are a list of some of {', '.join(DAYS)}.")
    found = {_DAY_NAMES.get(name.lower()) if isinstance(name, str) else None for name in names}
    if None in found:
        raise ValueError(f"A day is one of {', '.join(DAYS)}.")
    return [day for day in DAYS if day in found]


@cache
def _zone_names() -> dict[str, str]:
    return {name.lower(): name for name in available_timezones() - _ELSEWHERE}


def zone_name(text: Any) -> str:
    """The name of a time zone of IANA, sent in any case. Raises ValueError."""
    name = _zone_names().get(text.lower()) if isinstance(text, str) else None
    if name is None:
        raise ValueError("A zone is one of the IANA time zones, such as Europe/Berlin.")
    return name


def _normal_instant(text: Any, zone: str | None) -> str:
    try:
        if not isinstance(text, str) or not _DATE.fullmatch(text):
            raise ValueError
        at = datetime.fromisoformat(text)
        if at.tzinfo is None:
            if zone is None:
                raise ValueError
            at = at.replace(tzinfo=_zone(zone))
        at = at.astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise ValueError(
            "An instant has an offset, such as 2026-01-31T09:30:00Z, or its window says its zone."
        ) from error
    return _written(at)


def _written(at: datetime) -> str:
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
