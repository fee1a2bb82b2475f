"""Asked: what parameters mean, which are refused and why; and intervals of any time zone."""

from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from typing import Any
from zoneinfo import ZoneInfo, available_timezones

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from admin.errors import Invalid
from admin.stats.asked import DIMENSIONS, Asked, Form
from admin.stats.classify import Class
from admin.stats.intervals import EARLIEST, INTERVALS, LATEST, bounds
from admin.stats.source import EVERY_CLASS

NOW = datetime(2026, 11, 20, 20, 0, tzinfo=UTC)
FORM = Form("interval", "by", "limit", "compare", "cursor", "format")
ZONES = sorted(available_timezones() - {"localtime", "Factory", "Antarctica/Casey"})
MOMENTS = st.datetimes(datetime(2012, 1, 2), datetime(2040, 1, 1)).map(lambda at: at.replace(tzinfo=UTC))


def asked(query: dict[str, str] | list[tuple[str, str]], zone: str = "UTC", form: Form = FORM) -> Asked:
    return form.asked(list(query.items()) if isinstance(query, dict) else query, zone, NOW)


def refused(query: dict[str, str] | list[tuple[str, str]]) -> dict[str, str]:
    with pytest.raises(Invalid) as caught:
        asked(query)
    return {detail.field: detail.message for detail in caught.value.details}


def name_of(at: datetime, interval: str, zone: ZoneInfo) -> Any:
    """What people call the interval that a moment is in."""
    local = at.astimezone(zone)
    names = {
        "hour": (local.date(), local.hour, local.utcoffset()),
        "day": local.date(),
        "week": local.isocalendar()[:2],
        "month": (local.year, local.month),
    }
    return names[interval]


@example(datetime(2026, 3, 29, 0, 30, tzinfo=UTC), 90, "Europe/Berlin", "hour")
@example(datetime(2018, 11, 3, 12, tzinfo=UTC), 5000, "America/Sao_Paulo", "day")  # midnight is skipped
@example(datetime(2026, 10, 30, 12, tzinfo=UTC), 5000, "America/Havana", "day")  # comes twice
@example(datetime(2026, 4, 4, 12, tzinfo=UTC), 3000, "Australia/Lord_Howe", "hour")  # half an hour comes twice
@example(datetime(2026, 10, 3, 12, tzinfo=UTC), 3000, "Australia/Lord_Howe", "hour")
@example(datetime(2016, 5, 1, 3, tzinfo=UTC), 600, "America/Caracas", "hour")  # an hour ends when half of it is over
@given(MOMENTS, st.integers(1, 80_000), st.sampled_from(ZONES), st.sampled_from(INTERVALS))
def test_intervals_cover_a_range_without_gap_and_overlap(
    begin: datetime, minutes: int, name: str, interval: str
) -> None:
    end, zone = begin + timedelta(minutes=minutes), ZoneInfo(name)
    found = list(bounds(begin, end, interval, zone))
    assert found[0] <= begin and found[-1] < end
    assert all(one < other for one, other in pairwise(found))
    assert all(at.tzinfo is UTC and at.timestamp() % 900 == 0 for at in found)
    assert all(begin < at for at in found[1:])
    # Whatever lies in one has one name, and the next one has another.
    for at, following in pairwise([*found, max(end, found[-1])]):
        last = following - timedelta(seconds=1)
        assert last < at or name_of(at, interval, zone) == name_of(last, interval, zone), (at, following)
    names = [name_of(at, interval, zone) for at in found]
    assert len(set(names)) == len(names)
    assert name_of(found[0] - timedelta(seconds=1), interval, zone) != names[0]


@pytest.mark.parametrize(
    ("zone", "day", "hours", "points"),
    [
        ("Europe/Berlin", date(2026, 3, 29), 23, 23),
        ("Europe/Berlin", date(2026, 10, 25), 25, 25),
        ("Asia/Kathmandu", date(2026, 3, 29), 24, 24),
        ("Australia/Lord_Howe", date(2026, 4, 5), 24.5, 25),
        ("Australia/Lord_Howe", date(2026, 10, 4), 23.5, 24),
        ("America/Sao_Paulo", date(2018, 11, 4), 23, 23),
        ("America/Havana", date(2026, 11, 1), 25, 25),
        ("America/St_Johns", date(2026, 11, 1), 25, 25),
        ("Africa/Cairo", date(2026, 4, 24), 23, 23),
        ("Asia/Pyongyang", date(2018, 5, 4), 23.5, 24),
    ],
)
def test_days_are_as_long_as_their_clocks_say(zone: str, day: date, hours: float, points: int) -> None:
    found = asked({"startDate": f"{day}", "endDate": f"{day}", "timezone": zone, "interval": "hour"})
    assert found.end - found.begin == timedelta(hours=hours)
    assert len(list(bounds(found.begin, found.end, "hour", found.zone))) == points
    assert found.before[1] == found.begin
    assert list(bounds(*found.before, "day", found.zone)) == [found.before[0]]


def test_ranges() -> None:
    def told(query: dict[str, str], zone: str = "UTC") -> list[str]:
        found = asked(query, zone)
        return [at.isoformat() for at in (found.begin, found.end)]

    assert told({}) == ["2026-10-22T00:00:00+00:00", "2026-11-21T00:00:00+00:00"]
    # There it is tomorrow already.
    assert told({}, "Asia/Kathmandu") == ["2026-10-22T18:15:00+00:00", "2026-11-21T18:15:00+00:00"]
    assert told({"timezone": "asia/kathmandu"}) == told({}, "Asia/Kathmandu")
    assert told({"end_date": "2026-03-30"}) == ["2026-03-01T00:00:00+00:00", "2026-03-31T00:00:00+00:00"]
    assert told({"startDate": "2026-11-20"}) == ["2026-11-20T00:00:00+00:00", "2026-11-21T00:00:00+00:00"]
    instants = {"startDate": "2026-03-01T10:00:00.5+01:00", "endDate": "2026-03-01T10:00"}
    assert told(instants) == ["2026-03-01T09:00:00.500000+00:00", "2026-03-01T10:00:00+00:00"]
    assert told({"startDate": "2012-01-01", "endDate": "2021-12-31"})[1] == "2022-01-01T00:00:00+00:00"
    assert told({"startDate": "2099-12-31", "endDate": "2099-12-31"})[1] == "2100-01-01T00:00:00+00:00"
    found = asked({"startDate": "2026-03-29T12:00Z", "endDate": "2026-03-30T11:00Z", "timezone": "Europe/Berlin"})
    assert found.before == (datetime(2026, 3, 28, 13, tzinfo=UTC), found.begin)
    # Days before days, however long they are.
    found = asked({"startDate": "2026-03-29", "endDate": "2026-03-30", "timezone": "Europe/Berlin"})
    assert found.before[0] == datetime(2026, 3, 26, 23, tzinfo=UTC)


WRONG = {
    "startDate": [
        "soon",
        "2026-02-30",
        "2011-12-31",
        "2100-01-01",
        "20260101",
        "2026-01-01T",
        "2026-11-21",
        "2015-01-01",
    ],
    "endDate": ["0000-00-00", "2026-01-01T25:00", "-1", "9999-12-31", ""],
    "timezone": ["Mars/Olympus", "../etc/passwd", "", "America", "localtime", "a" * 5000],
    "class": ["", "people", "human,", "all,human", "HUMAN"],
    "interval": ["minute", "", "Day"],
    "by": ["colour", "messages", "utm_source", "rule", "variant"],
    "limit": ["0", "1001", "1000000000", "-1", "1e3", "٣", ""],
    "compare": ["yes", "1"],
    "format": ["xml"],
    "country": ["Brazil", "B1", "BR,PT,XYZ", '"BR', "B\nR", "\n", ",".join(["BR"] * 101)],
    "device": ["phone"],
    "os": ["mac"],
    "browser": ["netscape"],
    "language": ["portuguese-brazilian-", "1"],
    "referrer": ["a b", "x" * 300],
    "referrerGroup": ["friends", ""],
    "qr": ["yes", ""],
    "rule": ["1", "a"],  # of which link?
    "exclude.variant": ["1"],
    "exclude.country": ["Brazil"],
    "city": ["a" * 501, "a\x01"],
    "utmSource": ['"a"b'],
    "domain": ["a b", ""],
    "colour": ["red"],
    "exclude.colour": ["red"],
    "exclude.linkId": ["a"],
    "message": ["1"],
    "page_size": ["5"],
}


@pytest.mark.parametrize(
    ("name", "text"), [(name, text) for name, texts in WRONG.items() for text in texts], ids=lambda text: text[:20]
)
def test_what_is_wrong_is_refused_with_a_sentence(name: str, text: str) -> None:
    told = refused({name: text})
    assert list(told) == [name] and told[name][0].isupper() and told[name].endswith(".")


def test_all_that_is_wrong_is_told_at_once() -> None:
    query = [("exclude[country]", "x"), ("limit", "0"), ("by", "rule"), ("class", "x"), ("a\0", "b"), ("tag", "\0")]
    assert set(refused([*query, ("tag", "a")])) == {"exclude.country", "limit", "by", "class", "a\0", "tag"}
    assert refused([("qr", "true"), ("qr", "true")]) == {"qr": "It is given twice."}
    assert refused([("exclude[qr]", "true"), ("exclude.qr", "true")]) == {"exclude.qr": "It is given twice."}
    assert refused({"startDate": "2026-02-02", "endDate": "2026-02-01"}) == {"endDate": "It must be after startDate."}
    assert "ten years" in refused({"startDate": "2015-01-01", "endDate": "2026-01-01"})["startDate"]
    assert "10000 points" in refused({"startDate": "2025-01-01", "interval": "hour"})["interval"]
    for name, form in (("startDate", Form(has_range=False)), ("compare", Form("limit"))):
        with pytest.raises(Invalid):
            asked({name: "true" if name == "compare" else "2026-01-01"}, form=form)


def test_no_list_of_parameters_makes_more_points_than_allowed() -> None:
    longest = asked({"startDate": "2016-11-21", "interval": "day"})
    assert 3600 < len(list(bounds(longest.begin, longest.end, "day", longest.zone))) < 3660
    assert asked({"startDate": "2025-10-05", "interval": "hour"}).interval == "hour"


def test_what_is_asked_for() -> None:
    found = asked(
        {
            "class": "human,repeat",
            "linkId": "0123456789abcdef",
            "by": "variant",
            "limit": "7",
            "compare": "true",
            "referrerGroup": "social,direct",
            "exclude.referrer_group": "mail",
        }
    )
    assert found.classes == frozenset({Class.HUMAN, Class.REPEAT}) and found.link == "0123456789abcdef"
    assert (found.by, found.limit, found.compare, found.interval) == ("variant", 7, True, "day")
    assert [condition.value for condition in found.conditions] == [["social", ""], ["mail"]]
    assert asked({}).classes is None and asked({"class": "all"}).classes == EVERY_CLASS
    for one, other in (("utmSource", "utm_source"), ("exclude[utmSource]", "exclude.utm_source")):
        assert asked({one: "a"}).conditions == asked({other: "a"}).conditions != asked({}).conditions
    values = {
        "BR,pt": ("country", ["BR", "PT"]),
        "BR,": ("country", ["BR", ""]),
        "": ("city", [""]),
        '"Washington, D. C.",Rio': ("city", ["Washington, D. C.", "Rio"]),
        '"a ""b"""': ("utmTerm", ['a "b"']),
        "PT_br": ("language", ["pt-BR"]),
        "Bücher.Example.": ("referrer", ["xn--bcher-kva.example"]),
        "false,true": ("qr", [False, True]),
    }
    for text, (name, wanted) in values.items():
        [condition] = asked({name: text}).conditions
        assert condition.value == wanted, name
    [condition] = asked({"rule": "1,", "linkId": "0123456789abcdef"}).conditions
    assert condition.value == [1, 0]


def test_the_document_has_every_parameter_with_examples_that_are_taken() -> None:
    for one in FORM.parameters:
        examples = one["schema"].get("enum") or one["schema"].get("examples") or ["1"]
        for example_ in examples:
            more = {"linkId": "0123456789abcdef"} if one["name"] != "linkId" else {}
            asked({one["name"]: example_, "endDate": "2026-02-01"} | more | {one["name"]: example_})
    assert {one["name"] for one in FORM.parameters} >= {"by", "startDate", "country", "exclude.country", "domain"}
    assert set(DIMENSIONS) >= {"link", "class", "country", "referrerGroup", "qr", "rule", "variant"}
    assert EARLIEST < LATEST
