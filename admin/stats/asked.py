"""Asked: from the parameters of a request to a question of its clicks.

Rules of this file:

1. A query string is understood as a whole or not at all: what is wrong with it is told at once, by parameter. Nothing
   is made fit: what would be too much work is refused, and it is said what would not be.
2. A day, and whatever else begins by a calendar, is one of the time zone that is asked for.
3. `exclude[country]=BR` and `exclude.country=BR` are all but `country=BR`. The empty value is what nobody knows.
"""

import csv
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any
from zoneinfo import ZoneInfo

from admin.http.fields import plain
from admin.http.lists import Sent, Values, one_of, text
from admin.stats.classify import Class
from admin.stats.facts import GROUPS
from admin.stats.intervals import EARLIEST, INTERVALS, LATEST, begin_of_day, bounds
from admin.stats.source import EVERY_CLASS, FACTS, HUMANS, Condition, Question
from shared.links import normal_hostname
from shared.visitor import BROWSERS, DEVICES, SYSTEMS, language_tag
from shared.windows import zone_name

MAX_POINTS = 10_000
MAX_LIMIT = 1000
DEFAULT_DAYS = 30
CLASSES = {class_.name.lower(): class_ for class_ in Class}
DIMENSIONS = (*FACTS, "class", "qr")
"""What there is a breakdown by."""
OF_ONE_LINK = ("rule", "variant")
"""Facts whose values are numbers that those of other links have, too."""

_MAX_VALUES = 100
_MAX_LENGTH = 500
_LONGEST = timedelta(days=3653)
_TOO_LONG = "It may be ten years before endDate at most; ask for each ten years by themselves."
_SPAN = {"type": "string", "anyOf": [{"format": "date"}, {"format": "date-time"}], "examples": ["2026-01-31"]}


@dataclass(frozen=True)
class Asked:
    """What a client wants to know."""

    begin: datetime
    end: datetime
    """Exclusively."""
    zone: ZoneInfo
    classes: frozenset[Class] | None
    """None unless given."""
    link: str | None
    """The public id of the only one."""
    conditions: tuple[Condition, ...]
    interval: str = "day"
    by: str = "country"
    limit: int | None = None
    compare: bool = False
    cursor: str = ""
    format: str = "csv"

    def question(self, organization_id: int, link_id: int | None) -> Question:
        """The same of this organization. `link_id` stands for `link`."""
        classes = HUMANS if self.classes is None else self.classes
        return Question(organization_id, self.begin, self.end, classes, link_id, self.conditions)

    @property
    def before(self) -> tuple[datetime, datetime]:
        """The range as long as this one that ends where it begins: as many days, if this one has whole days."""
        first, end = (at.astimezone(self.zone).date() for at in (self.begin, self.end))
        if (begin_of_day(first, self.zone), begin_of_day(end, self.zone)) == (self.begin, self.end):
            return begin_of_day(first - (end - first), self.zone), self.begin
        return self.begin - (self.end - self.begin), self.begin


class Form:
    """What a route may be asked: `own` of its own, a range of time and filters unless told otherwise."""

    def __init__(self, *own: str, has_range: bool = True, has_filters: bool = True) -> None:
        self._own = own
        self._has_range = has_range
        self._names = [*own, *(("startDate", "endDate") if has_range else ()), "timezone"]
        if has_filters:
            self._names += ["class", "linkId", *_SCOPES, *_FILTERS, *(f"exclude.{name}" for name in _FILTERS)]

    @property
    def parameters(self) -> list[dict[str, Any]]:
        """The `parameters` of its route in the OpenAPI document."""
        return [
            {"name": name, "in": "query", "required": False, "description": description, "schema": schema}
            for name, (schema, description) in ((name, _described(name)) for name in self._names)
        ]

    def asked(self, pairs: Iterable[tuple[str, str]], default_zone: str, now: datetime) -> Asked:
        """What a query string asks for; of a form without a range, that is empty. Raises `Invalid`."""
        sent = Sent(bare(pairs), self._names)
        zone = ZoneInfo(sent.read("timezone", zone_name) or default_zone)
        begin, end = _range(sent, zone, now) if self._has_range else (now, now)
        own = {name: sent.read(name, _OWN[name][0].read) for name in self._own if name in sent}
        if own.get("interval") == "hour" and _are_many(bounds(begin, end, "hour", zone)):
            sent.refuse("interval", f"There would be more than {MAX_POINTS} points; ask for days, or for less time.")
        if own.get("by") in OF_ONE_LINK and "linkId" not in sent:
            sent.refuse("by", f"Each link has its own {own['by']}s; send linkId, too.")
        classes = sent.read("class", _classes)
        conditions = tuple(_conditions(sent))
        sent.check()
        return Asked(begin, end, zone, classes, sent.read("linkId", str), conditions, **own)


def bare(pairs: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """A query string with one spelling of what is excluded: `exclude.country` for `exclude[country]`."""
    return [(re.sub(r"\Aexclude\[(.*)\]\Z", r"exclude.\1", name), text) for name, text in pairs]


def fact_is(name: str, values: list[Any], *, is_excluded: bool = False) -> Condition:
    """That a fact has one of these values, or none of them."""
    fact = FACTS[name]
    if not fact.part:
        return Condition(f"{'not ' if is_excluded else ''}{fact.row} = any({{}}::integer[])", values)
    # The empty text is stored nowhere; its number is 0.
    words = f"""
        select id from words
         where text like E'%\\t%' and split_part(text, E'\\t', {fact.part}) = any({{0}}::text[])
        union all select 0 where '' = any({{0}}::text[])"""  # noqa: S608
    return Condition(f"{fact.row} {'not in' if is_excluded else 'in'} ({words})", values)


def _range(sent: Sent, zone: ZoneInfo, now: datetime) -> tuple[datetime, datetime]:
    """What is missing: the end is that of today, and the begin that of thirty days."""
    start, stop = (sent.read(name, lambda text: _span(text, zone)) for name in ("startDate", "endDate"))
    if ("startDate" in sent and not start) or ("endDate" in sent and not stop):
        return now, now
    end = stop[1] if stop else begin_of_day(now.astimezone(zone).date() + timedelta(days=1), zone)
    last = (end - timedelta(milliseconds=1)).astimezone(zone).date()
    begin = start[0] if start else begin_of_day(last - timedelta(days=DEFAULT_DAYS - 1), zone)
    if begin >= end:
        name, sentence = ("endDate", "It must be after startDate.") if stop else ("startDate", "It is to come.")
        sent.refuse(name, sentence)
    elif _local(end, zone) - _local(begin, zone) > _LONGEST:
        sent.refuse("startDate", _TOO_LONG)
    return begin, end


def _span(text: str, zone: ZoneInfo) -> tuple[datetime, datetime]:
    """The begin and the end of a day of the zone; an instant twice. One without an offset is of the zone, too."""
    parts = re.fullmatch("[0-9]{4}-[0-9]{2}-[0-9]{2}(T.+)?", text)
    try:
        at = datetime.fromisoformat(text if parts else "")
    except ValueError as error:
        sentence = "It must be a date (2026-01-31) or an instant (2026-01-31T09:30:00Z); a + is written %2B."
        raise ValueError(sentence) from error
    if not EARLIEST <= at.date() <= LATEST:
        raise ValueError(f"It must be from {EARLIEST} to {LATEST}.")
    if parts and parts[1]:
        moment = (at if at.tzinfo else at.replace(tzinfo=zone)).astimezone(UTC)
        moment = moment.replace(microsecond=moment.microsecond // 1000 * 1000)  # answers tell no less
        return moment, moment
    return begin_of_day(at.date(), zone), begin_of_day(at.date() + timedelta(days=1), zone)


def _local(at: datetime, zone: ZoneInfo) -> datetime:
    return at.astimezone(zone).replace(tzinfo=None)


def _are_many(points: Iterable[datetime]) -> bool:
    return sum(1 for _ in islice(points, MAX_POINTS + 1)) > MAX_POINTS


def _conditions(sent: Sent) -> Iterator[Condition]:
    for name, (condition, values) in _SCOPES.items():
        if name in sent:
            yield Condition(condition, sent.read(name, values.read))
    for parameter, name, is_excluded in _filters(sent):
        if name in OF_ONE_LINK and "linkId" not in sent:
            sent.refuse(parameter, f"Each link has its own {name}s; send linkId, too.")
        values = sent.read(parameter, _several(_FILTERS[name].read))
        if name == "qr":
            yield Condition(f"{'not ' if is_excluded else ''}is_scan = any({{}}::boolean[])", values)
        elif values is not None:
            yield fact_is(name, values, is_excluded=is_excluded)


def _filters(sent: Sent) -> Iterator[tuple[str, str, bool]]:
    """Those that were sent: the parameter, what it is of, and whether it excludes."""
    both = [(f"{prefix}{name}", name, bool(prefix)) for name in _FILTERS for prefix in ("", "exclude.")]
    return (one for one in both if one[0] in sent)


def _several(read: Callable[[str], Any]) -> Callable[[str], list[Any]]:
    """Some values with commas between."""

    def read_all(text: str) -> list[Any]:
        try:
            [values] = csv.reader([text or '""'], strict=True)
        except (csv.Error, ValueError) as error:
            raise ValueError('Values have commas between; write one that has a comma as "a,b".') from error
        if not values:
            raise ValueError("It must not be a line break.")
        if len(values) > _MAX_VALUES:
            raise ValueError(f"It may have {_MAX_VALUES} values at most.")
        return [read(value) for value in values]

    return read_all


def _classes(text: str) -> frozenset[Class]:
    if text == "all":
        return EVERY_CLASS
    if not set(names := text.split(",")) <= set(CLASSES):
        raise ValueError(f"It must be all, or some of these with commas between: {', '.join(CLASSES)}.")
    return frozenset(CLASSES[name] for name in names)


def _limit(text: str) -> int:
    if not re.fullmatch("[0-9]{1,9}", text) or not 1 <= int(text) <= MAX_LIMIT:
        raise ValueError(f"It must be a whole number from 1 to {MAX_LIMIT}.")
    return int(text)


def _text(text: str) -> str:
    if len(text) > _MAX_LENGTH:
        raise ValueError(f"A value may have {_MAX_LENGTH} characters.")
    return plain(text)


def _country(text: str) -> str:
    if not re.fullmatch("[A-Za-z]{2}", text):
        raise ValueError("A country is two letters (ISO 3166-1), such as BR.")
    return text.upper()


def _part_of_link(text: str) -> int:
    if not re.fullmatch("[0-9]{0,9}", text):
        raise ValueError("It must be the id of one, which is a whole number, or nothing for none.")
    return int(text or 0)


def _group(text: str) -> str:
    """Who comes from nowhere is `direct`, and has no group in the word."""
    return "" if one_of(*GROUPS).read(text) == "direct" else text


def _or_unknown(read: Callable[[str], Any], example: str) -> Values:
    return Values(lambda text: read(text) if text else "", {"type": "string", "examples": [example]})


_IS_TRUE = Values(lambda text: one_of("true", "false").read(text) == "true", one_of("true", "false").schema)

_FILTERS = {
    **{name: _or_unknown(_text, "spring") for name, fact in FACTS.items() if fact.part},
    "country": _or_unknown(_country, "BR"),
    "referrer": _or_unknown(normal_hostname, "news.example.com"),
    "device": _or_unknown(one_of(*DEVICES).read, "mobile"),
    "os": _or_unknown(one_of(*SYSTEMS).read, "ios"),
    "browser": _or_unknown(one_of(*BROWSERS).read, "safari"),
    "language": _or_unknown(language_tag, "pt-BR"),
    "rule": Values(_part_of_link, {"type": "string", "examples": ["1"]}),
    "variant": Values(_part_of_link, {"type": "string", "examples": ["1"]}),
    "referrerGroup": Values(_group, {"type": "string", "examples": ["search"]}),
    "qr": Values(_IS_TRUE.read, {"type": "string", "examples": ["true"]}),
}
"""What can be asked for, and excluded: how each of several values is read."""

_SCOPES = {
    "folder": ("exists (select from links where links.id = link_id and folder = {})", Values(_text, text.schema)),
    "tag": ("exists (select from links where links.id = link_id and tags @> array[{}])", Values(_text, text.schema)),
    "domain": (
        "exists (select from links where links.id = link_id and hostname = {})",
        Values(normal_hostname, {"type": "string", "examples": ["go.example.com"]}),
    ),
    # By its links, which are its own: clicks have an index of those.
    "messageId": (
        """link_id in (
            select link_id from carried_links join carriers on carriers.id = carrier_id where public_id = {})""",
        Values(_text, text.schema),
    ),
}
"""Which links: those that are so now. One that is gone is nowhere, but for its clicks in a message."""

_OWN = {
    "interval": (one_of(*INTERVALS), "How long a point is: a day unless given. Weeks begin on Monday."),
    "by": (one_of(*DIMENSIONS), "What it is broken down by: country unless given."),
    "limit": (Values(_limit, {"type": "integer", "minimum": 1, "maximum": MAX_LIMIT}), "How many at most."),
    "compare": (_IS_TRUE, "Whether the range before, of the same length, is in the answer."),
    "cursor": (text, "Empty to begin; then `meta.cursor.next` of the answer before."),
    "format": (one_of("csv", "json", "ndjson"), "csv unless given."),
}
"""What only some routes may be asked."""

_OTHERS: dict[str, tuple[dict[str, Any], str]] = {
    "startDate": (_SPAN, "The first day, or the instant at which it begins; 30 days before the end unless given."),
    "endDate": (_SPAN, "The last day, or the instant at which it ends; today unless given."),
    "timezone": (
        {"type": "string", "examples": ["Asia/Kathmandu"]},
        "Of IANA; that of the organization unless given.",
    ),
    "class": (
        {"type": "string", "examples": ["human", "human,repeat", "all"]},
        "all, or classes with commas between; human unless given.",
    ),
    "linkId": ({"type": "string", "examples": ["0123456789abcdef"]}, "Only the clicks of this link."),
    "messageId": ({"type": "string", "examples": ["0123456789abcdef"]}, "Only the clicks of links in this message."),
}


def _described(name: str) -> tuple[dict[str, Any], str]:
    """The schema of a parameter, and what is said of it."""
    if name in _OTHERS:
        return _OTHERS[name]
    if name in _OWN:
        return _OWN[name][0].schema, _OWN[name][1]
    if name in _SCOPES:
        return _SCOPES[name][1].schema, f"Only links with this {name}."
    fact = name.removeprefix("exclude.")
    values = "Values with commas between; an empty one is what nobody knows."
    return _FILTERS[
        fact
    ].schema, f"{'All clicks but those' if fact != name else 'Only clicks'} with this {fact}. {values}"
