"""The routes of single clicks: a list to walk through, files, and an end to those of a link."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime

from fastapi import APIRouter
from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from admin import errors
from admin.database import transaction
from admin.errors import Invalid
from admin.http.answers import Answer, Instant, ListAnswer, WalkMeta, Wire, answer, documented, instant
from admin.http.lists import Cursor
from admin.http.request_ids import request_id
from admin.identity import audit
from admin.identity.principal import Administrator, StatsReader
from admin.links import links
from admin.stats import counting, erasing, singles
from admin.stats.answering import FILE_S, moment, understand, understood
from admin.stats.asked import Form
from admin.turns import OneEach, Turns

_DEFAULT_LIMIT = 50

router = APIRouter(
    tags=["Stats"],
    responses=documented(*errors.OF_EVERY_CALLER, errors.NotFound, errors.QueryTooLarge),
)

_LIST = Form("cursor", "limit")
_FILE = Form("format")
_RANGE = Form(has_filters=False)

# Each holds a connection for as long as its client takes. They are none of the turns of questions, which are short.
_turns = Turns(2, wait_s=1.0, sorry="Too many exports are being made at the moment. Please try again.")
_one_each = OneEach(sorry="Your organization has an export that is not done yet. Please try again when it is.")


class ClickResource(Wire):
    """A click, and what is known of it; what nobody knows is empty."""

    at: str
    link_id: str | None
    """Null for a link that is gone."""
    class_: str = Field(alias="class")
    reason: str | None
    """Why it has this class; null for what was stored before there were reasons."""
    country: str
    city: str
    referrer: str
    referrer_group: str
    device: str
    os: str
    browser: str
    language: str
    utm_source: str
    utm_medium: str
    utm_campaign: str
    utm_term: str
    utm_content: str
    user_agent: str
    qr: bool
    rule_id: int | None
    variant_id: int | None
    visitor: str | None
    """The same for all clicks of a visitor on one day, and no longer."""
    address: str | None
    network: str
    """What kind of network the address is of: hosting, cdn, vpn, tor or bot."""
    message_id: str | None
    """The message that carried the link."""
    click_id: str | None


@router.get("/stats/clicks", summary="List single clicks", openapi_extra={"parameters": _LIST.parameters})
async def list_clicks(request: Request, caller: StatsReader) -> ListAnswer[ClickResource]:
    """The newest first."""
    async with understood(request, caller.organization_id, _LIST) as (connection, asked, question):
        try:
            after = singles.place_of(asked.cursor) if asked.cursor else None
        except ValueError as error:
            raise Invalid.of("cursor", str(error)) from error
        clicks, place = await singles.page(connection, question, after, asked.limit or _DEFAULT_LIMIT)
    cursor = Cursor(next=place and singles.cursor_of(place), has_more=place is not None)
    return ListAnswer(
        data=[ClickResource(**click) for click in clicks],
        meta=WalkMeta(request_id=request_id(request), cursor=cursor),
    )


@router.get(
    "/stats/export",
    summary="Export single clicks",
    response_class=Response,
    responses={
        200: {
            "description": "The file.",
            "content": {kind.media_type: {} for kind in singles.FORMATS.values()},
        }
    },
    openapi_extra={"parameters": _FILE.parameters},
)
async def export_clicks(request: Request, caller: StatsReader) -> Response:
    """The newest first, as they are at one moment. One at a time for an organization."""
    return _Download(request, caller.organization_id)


class _Download(Response):
    """Begins when there is something to send, so that until then there may be an error instead."""

    def __init__(self, request: Request, organization_id: int) -> None:
        super().__init__()
        self._request = request
        self._organization_id = organization_id

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Raises what `understand` does. When Postgres goes away later, or time is over, the connection is cut."""
        request = self._request
        with _one_each.of(self._organization_id):
            async with (
                moment(request.app.state.pool, within_s=FILE_S, turns=_turns, holds_months=True) as connection,
                asyncio.timeout(FILE_S),  # a client that takes nothing more would be waited for without end
            ):
                _, asked, question = await understand(connection, request, self._organization_id, _FILE)
                kind = singles.FORMATS[asked.format]
                async with contextlib.aclosing(singles.file(connection, question, kind)) as pieces:
                    begin = await anext(pieces)
                    named = {"Content-Disposition": f'attachment; filename="clicks.{asked.format}"'}
                    answer = StreamingResponse(_behind(begin, pieces), headers=named, media_type=kind.media_type)
                    await answer(scope, receive, send)


async def _behind(begin: bytes, pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield begin
    async for piece in pieces:
        yield piece


class Erasure(Wire):
    """What is to be erased."""

    begin: Instant
    end: Instant


@router.delete(
    "/links/{link_id}/clicks",
    status_code=202,
    summary="Erase the clicks of a link",
    openapi_extra={
        "parameters": [{**told, "required": told["name"] == "startDate"} for told in _RANGE.parameters],
    },
)
async def erase_clicks(request: Request, caller: Administrator, link_id: str) -> Answer[Erasure]:
    """Those from `startDate` on, which must be given. Some seconds later they are gone, with all that was counted of
    them. Where single clicks are not kept any more, whole quarters of an hour go."""
    async with transaction(request.app.state.pool) as connection:
        wishes = await counting.of(connection, caller.organization_id)
        asked = _RANGE.asked(request.query_params.multi_items(), wishes.time_zone, datetime.now(UTC))
        link = await links.get(connection, caller.organization_id, link_id, is_deleted=None)
        if not {"startDate", "start_date"} & set(request.query_params):
            raise Invalid.of("startDate", "Say from when on; nothing brings them back.")
        await erasing.request(connection, caller.organization_id, link.id, asked.begin, asked.end)
        told = {"begin": instant(asked.begin), "end": instant(asked.end)}
        await audit.record(connection, caller, "link.clicks_erased", link.public_id, **told)
    return answer(request, Erasure(begin=asked.begin, end=asked.end))
