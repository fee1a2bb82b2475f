"""The routes of stats."""

from datetime import date

from fastapi import APIRouter
from starlette.requests import Request

from admin import errors
from admin.database import transaction
from admin.http.answers import Answer, Wire, answer, documented
from admin.identity.principal import Caller
from admin.links import counts, links

router = APIRouter(
    tags=["Stats"],
    responses=documented(errors.NotAuthenticated, errors.InvalidApiKey, errors.NotFound, errors.Unavailable),
)


class DayStats(Wire):
    """The clicks of one day (UTC)."""

    date: date
    total: int
    humans: int
    bots: int


class LinkStats(Wire):
    """The clicks of a link, for ever. `total` is every recorded request; `bots` those that say so by their agent."""

    total: int
    humans: int
    bots: int
    series: list[DayStats]


@router.get("/links/{link_id}/stats", summary="Count the clicks of a link")
async def link_stats(request: Request, caller: Caller, link_id: str) -> Answer[LinkStats]:
    """The series has every day from the first to the last one with a click."""
    async with transaction(request.app.state.pool) as connection:
        link = await links.get(connection, caller.organization_id, link_id)
        days = await counts.by_day(connection, link.id)
    series = [DayStats(date=day, total=total, humans=total - bots, bots=bots) for day, total, bots in days]
    return answer(
        request,
        LinkStats(
            total=sum(day.total for day in series),
            humans=sum(day.humans for day in series),
            bots=sum(day.bots for day in series),
            series=series,
        ),
    )
