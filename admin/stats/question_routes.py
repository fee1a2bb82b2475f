"""The routes of questions: how many clicks there are, when, and from where."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from fastapi import APIRouter
from pydantic import Field
from starlette.requests import Request

from admin import errors
from admin.database import Connection
from admin.errors import ClicksNotKept
from admin.http.answers import Answer, Instant, Wire, answer, documented
from admin.identity.principal import StatsReader
from admin.stats import questions
from admin.stats.answering import understood
from admin.stats.asked import CLASSES, Asked, Form
from admin.stats.intervals import bounds
from admin.stats.source import EVERY_CLASS, FACTS, Counted, Question

_LIVE = timedelta(minutes=30)
_MINUTE = timedelta(minutes=1)
_DEFAULT_LIMIT = 10

router = APIRouter(
    tags=["Stats"],
    responses=documented(*errors.OF_EVERY_CALLER, errors.NotFound, errors.ClicksNotKept, errors.QueryTooLarge),
)


class Range(Wire):
    """The time that an answer is about. `end` is not in it."""

    begin: Instant
    end: Instant
    timezone: str


class Numbers(Wire):
    """How many clicks there are in a range. `visitors` are those of days of the organization, summed, and null where
    nobody has counted those and single clicks are not kept; `anonymous` are clicks of which nobody may know whose they
    are; `classes` has every class, whatever was asked for."""

    range: Range
    total: int
    visitors: int | None
    anonymous: int
    scans: int
    classes: dict[str, int]


class Totals(Numbers):
    """The same for the range before, if it was asked for."""

    previous: Numbers | None = Field(default=None, exclude_if=lambda numbers: numbers is None)


class Point(Wire):
    """The clicks of an interval. `local` is its begin by the clocks of the time zone."""

    start: Instant
    local: str
    total: int


class SeriesPoint(Point):
    """The same with visitors, but for hours: a visitor is one for a day."""

    visitors: int | None = Field(default=None, exclude_if=lambda visitors: visitors is None)


class Timeseries(Wire):
    """Clicks over time. The first and the last interval may lie partly outside of the range: that is not counted."""

    range: Range
    interval: str
    total: int
    points: list[SeriesPoint]


class LinkReference(Wire):
    """A link in a breakdown."""

    id: str
    short_url: str
    title: str | None


class Item(Wire):
    """The clicks that have a value. An empty value is what nobody knows."""

    value: str
    total: int
    share: float
    link: LinkReference | None = Field(default=None, exclude_if=lambda link: link is None)
    """For a link that is not deleted."""


class Breakdown(Wire):
    """Clicks by the values of a fact, the most frequent ones first. *total = Σ items + other*."""

    range: Range
    by: str
    total: int
    items: list[Item]
    other: int


class Live(Wire):
    """The clicks of the last thirty minutes."""

    range: Range
    total: int
    visitors: int
    points: list[Point]


_TOTALS = Form("compare")
_SERIES = Form("interval")
_BREAKDOWN = Form("by", "limit")
_LIVE_FORM = Form(has_range=False)


@router.get("/stats", summary="Count clicks", openapi_extra={"parameters": _TOTALS.parameters})
async def show_totals(request: Request, caller: StatsReader) -> Answer[Totals]:
    """Of the whole organization, or of some links; of humans, unless other classes are asked for."""
    async with understood(request, caller.organization_id, _TOTALS) as (connection, asked, question):
        found = Totals(**await _numbers(connection, asked, question))
        if asked.compare:
            begin, end = asked.before
            before = replace(question, begin=begin, end=end)
            found.previous = Numbers(**await _numbers(connection, asked, before))
    return answer(request, found)


async def _numbers(connection: Connection, asked: Asked, question: Question) -> dict[str, Any]:
    every = await questions.totals(connection, replace(question, classes=EVERY_CLASS))
    wanted = every if question.classes == EVERY_CLASS else await questions.totals(connection, question)
    visitors = await _visitors(connection, question, [question.begin])
    return {
        "range": _range(asked, question),
        "total": sum(wanted.clicks.values()),
        "visitors": None if visitors is None else sum(visitors),
        "anonymous": wanted.anonymous,
        "scans": wanted.scans,
        "classes": {name: every.clicks.get(class_, 0) for name, class_ in CLASSES.items()},
    }


async def _visitors(connection: Connection, question: Question, starts: Sequence[datetime]) -> list[int] | None:
    """None where nobody has counted those, and nobody can any more."""
    try:
        return await questions.visitors(connection, question, starts)
    except ClicksNotKept:
        return None


@router.get("/stats/timeseries", summary="Count clicks over time", openapi_extra={"parameters": _SERIES.parameters})
async def show_timeseries(request: Request, caller: StatsReader) -> Answer[Timeseries]:
    """By hours, days, weeks or months of a time zone. There is a point for each, also where nobody clicked."""
    async with understood(request, caller.organization_id, _SERIES) as (connection, asked, question):
        starts = list(bounds(asked.begin, asked.end, asked.interval, asked.zone))
        counts = await questions.series(connection, question, starts)
        is_by_day = asked.interval != "hour"
        visitors = await _visitors(connection, question, [asked.begin, *starts[1:]]) if is_by_day else None
    points = [
        SeriesPoint(**dict(_point(start, asked, counts[number])), visitors=visitors[number] if visitors else None)
        for number, start in enumerate(starts)
    ]
    return answer(
        request,
        Timeseries(range=_range(asked, question), interval=asked.interval, total=sum(counts), points=points),
    )


@router.get(
    "/stats/breakdown",
    summary="Count clicks by what is known of them",
    openapi_extra={"parameters": _BREAKDOWN.parameters},
)
async def show_breakdown(request: Request, caller: StatsReader) -> Answer[Breakdown]:
    """By a fact, by link, by class, or by whether it was a QR code. By class there are all, unless some are wanted."""
    async with understood(request, caller.organization_id, _BREAKDOWN) as (connection, asked, question):
        counted, other = await _counted(connection, asked, question)
        links = await _links(connection, request, counted) if asked.by == "link" else {}
    total = sum(clicks for _, clicks in counted) + other
    items = [
        Item(value=value, total=clicks, share=round(clicks / total, 4), link=links.get(value))
        for value, clicks in counted
    ]
    return answer(request, Breakdown(range=_range(asked, question), by=asked.by, total=total, items=items, other=other))


async def _counted(connection: Connection, asked: Asked, question: Question) -> tuple[list[tuple[str, int]], int]:
    """The values that come most often, and how many clicks have others."""
    limit = asked.limit or _DEFAULT_LIMIT
    if asked.by in FACTS:
        counted, other = await questions.breakdown(connection, question, FACTS[asked.by], limit)
        if asked.by in _PUBLIC_IDS:
            return await _by_public_id(connection, _PUBLIC_IDS[asked.by], counted), other
        unknown = "direct" if asked.by == "referrerGroup" else ""
        return [(str(one.value or unknown), one.clicks) for one in counted], other  # 0 is no rule and no variant
    if asked.by == "class":
        classes = EVERY_CLASS if asked.classes is None else asked.classes
        by_class = (await questions.totals(connection, replace(question, classes=classes))).clicks
        found = Counter({class_.name.lower(): clicks for class_, clicks in by_class.items()})
    else:
        numbers = await questions.totals(connection, question)
        clicks = sum(numbers.clicks.values())
        found = +Counter({"true": numbers.scans, "false": clicks - numbers.scans})
    most = sorted(found.items(), key=lambda one: (-one[1], one[0]))
    return most[:limit], sum(clicks for _, clicks in most[limit:])


_PUBLIC_IDS = {
    "link": "/* question_routes.by_public_id */ select id, public_id from links where id = any($1::bigint[])",
    "message": "/* question_routes.by_public_id */ select id, public_id from carriers where id = any($1::bigint[])",
}


async def _by_public_id(connection: Connection, ids_of: str, counted: Sequence[Counted]) -> list[tuple[str, int]]:
    """By public id. Of what is gone nobody knows it any more: those are one, and so are clicks of no message."""
    rows = await connection.fetch(ids_of, [one.value for one in counted])
    ids = {row["id"]: row["public_id"] for row in rows}
    found = Counter[str]()
    for one in counted:
        found[ids.get(one.value, "")] += one.clicks
    return sorted(found.items(), key=lambda one: (-one[1], one[0]))


async def _links(
    connection: Connection, request: Request, counted: Sequence[tuple[str, int]]
) -> dict[str, LinkReference]:
    """What is shown of those that are not deleted."""
    rows = await connection.fetch(
        """
        /* question_routes.links */
        select public_id, hostname, path, title from links where public_id = any($1) and deleted_at is null""",
        [public_id for public_id, _ in counted],
    )
    short_url = request.app.state.settings.short_url
    return {
        row["public_id"]: LinkReference(
            id=row["public_id"], short_url=short_url(row["hostname"], row["path"]), title=row["title"]
        )
        for row in rows
    }


@router.get(
    "/stats/live",
    summary="Count the clicks of the last thirty minutes",
    openapi_extra={"parameters": _LIVE_FORM.parameters},
)
async def show_live(request: Request, caller: StatsReader) -> Answer[Live]:
    """By the minute; the last one is not over yet."""
    async with understood(request, caller.organization_id, _LIVE_FORM) as (connection, asked, question):
        end = question.end.replace(second=0, microsecond=0) + _MINUTE
        question = replace(question, begin=end - _LIVE, end=end)
        counts = await questions.minutes(connection, question)
        visitors = sum(await questions.visitors(connection, question, [question.begin]))
    starts = [question.begin + _MINUTE * number for number in range(_LIVE // _MINUTE)]
    points = [_point(start, asked, counts.get(int(start.timestamp()) // 60, 0)) for start in starts]
    return answer(
        request,
        Live(
            range=_range(asked, question),
            total=sum(counts.values()),
            visitors=visitors,
            points=points,
        ),
    )


def _range(asked: Asked, question: Question) -> Range:
    return Range(begin=question.begin, end=question.end, timezone=asked.zone.key)


def _point(start: datetime, asked: Asked, count: int) -> Point:
    return Point(start=start, local=start.astimezone(asked.zone).isoformat(), total=count)
