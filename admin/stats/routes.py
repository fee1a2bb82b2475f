"""The routes of stats."""

from collections.abc import Mapping
from datetime import date, timedelta
from itertools import groupby
from operator import itemgetter

from fastapi import APIRouter
from starlette.requests import Request

from admin import errors
from admin.database import snapshot, transaction
from admin.errors import NotFound
from admin.http.answers import Answer, Resource, ResourceAnswer, Wire, answer, documented, resource_answer
from admin.identity import organizations
from admin.identity.principal import Administrator, StatsReader
from admin.links import links
from admin.stats import pipeline, questions
from admin.stats.classify import BOTS, Class
from admin.stats.source import HUMANS

router = APIRouter(
    tags=["Stats"],
    responses=documented(*errors.OF_EVERY_CALLER, errors.NotFound),
)


class DayStats(Wire):
    """The clicks of one day (UTC)."""

    date: date
    total: int
    humans: int
    bots: int


class LinkStats(Wire):
    """The clicks of a link, for ever. `total` is every recorded request; `humans` those of people; `bots` previews,
    prefetches, crawlers, tools and scanners. What is neither is a repeat, a HEAD or of the organization itself."""

    total: int
    humans: int
    bots: int
    series: list[DayStats]


@router.get("/links/{link_id}/stats", summary="Count the clicks of a link")
async def link_stats(request: Request, caller: StatsReader, link_id: str) -> Answer[LinkStats]:
    """The series has every day from the first to the last one with a click."""
    async with snapshot(request.app.state.pool) as connection:
        link = await links.get(connection, caller.organization_id, link_id)
        found = await questions.classes_by_day(connection, caller.organization_id, link.id)
    by_day = {day: [(class_, clicks) for _, class_, clicks in some] for day, some in groupby(found, itemgetter(0))}
    length = (max(by_day) - min(by_day)).days + 1 if by_day else 0
    series = [_day(min(by_day) + timedelta(days=number), by_day) for number in range(length)]
    return answer(
        request,
        LinkStats(
            total=sum(day.total for day in series),
            humans=sum(day.humans for day in series),
            bots=sum(day.bots for day in series),
            series=series,
        ),
    )


def _day(day: date, by_day: Mapping[date, list[tuple[Class, int]]]) -> DayStats:
    clicks = by_day.get(day, [])
    return DayStats(
        date=day,
        total=sum(count for _, count in clicks),
        humans=questions.of_classes(clicks, HUMANS),
        bots=questions.of_classes(clicks, BOTS),
    )


class PipelineNumbers(Wire):
    """*served = recorded + dropped* and *recorded = stored + setAside + inSpool + lost*."""

    served: int
    recorded: int
    dropped: int
    stored: int
    set_aside: int
    in_spool: int
    lost: int


class PipelineSpool(PipelineNumbers):
    """The clicks of one edge process, from its start on."""

    spool: str
    host: str | None
    is_open: bool


class PipelineLoss(Wire):
    """Clicks that can't be had any more, and why."""

    spool: str
    clicks: int
    reason: str


class Pipeline(Wire):
    """What became of every click: all together, each open spool and the last closed ones, and the last losses."""

    total: PipelineNumbers
    spools: list[PipelineSpool]
    losses: list[PipelineLoss]
    is_current: bool


@router.get("/pipeline", summary="See what became of every click")
async def show_pipeline(request: Request, caller: Administrator) -> ResourceAnswer[Pipeline]:
    """For the operator, who is the first organization; for all others there is no such route."""
    async with transaction(request.app.state.pool) as connection:
        if caller.organization_id != await organizations.first(connection):
            raise NotFound("There is no such route.")
        found = await pipeline.show(connection, request.app.state.redis)
    shown = Pipeline(
        total=PipelineNumbers(**found.total._asdict()),
        spools=[
            PipelineSpool(spool=one.spool, host=one.host, is_open=one.is_open, **one.numbers._asdict())
            for one in found.spools
        ],
        losses=[PipelineLoss(**loss._asdict()) for loss in found.losses],
        is_current=found.is_current,
    )
    return resource_answer(request, Resource(id="pipeline", type="pipeline", attributes=shown))
