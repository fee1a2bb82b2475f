"""The route of exports."""

import contextlib
from collections.abc import AsyncIterator
from typing import Any

from fastapi import APIRouter
from pydantic.alias_generators import to_snake
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from admin import database, errors
from admin.errors import Detail
from admin.http.answers import documented
from admin.http.lists import one_of
from admin.identity.principal import LinkReader
from admin.links import exports, links
from admin.links.exports import Format
from admin.links.filters import flat
from admin.turns import Turns

router = APIRouter(tags=["Import and export"], responses=documented(*errors.OF_EVERY_CALLER))

_ALL_LINKS_S = 900.0
"""A million links take a minute; whoever takes them may be slower."""

# Each holds a connection for as long as its client takes.
_turns = Turns(2, wait_s=1.0, sorry="Too many exports are being made at the moment. Please try again.")
_FORMAT = one_of(*exports.FORMATS)
_FILTERS = [one for one in links.LISTING.parameters if one["name"] in links.LISTING.filters]
_PARAMETERS = [
    {
        "name": "format",
        "in": "query",
        "required": False,
        "description": "csv unless given; json is a line of JSON for each link.",
        "schema": _FORMAT.schema,
    },
    *_FILTERS,
]


@router.get(
    "/links/export",
    summary="Export all links",
    response_class=Response,
    responses={
        200: {"description": "The file.", "content": {kind.media_type: {} for kind in exports.FORMATS.values()}},
        **documented(errors.Invalid),
    },
    openapi_extra={"parameters": _PARAMETERS},
)
async def export_links(request: Request, caller: LinkReader) -> Response:
    """As they are at one moment, in the order in which they were made, with the filters of the list of links."""
    kind, filters = _asked(request)
    return _Download(request.app.state.pool, caller.organization_id, kind, filters)


def _asked(request: Request) -> tuple[Format, dict[str, Any]]:
    """Raises `Invalid`."""
    pairs, wrong = flat(request.query_params.multi_items())
    known = {spelling for one in _FILTERS for spelling in (one["name"], to_snake(one["name"]))}
    kind = "csv"
    for number, text in enumerate(text for name, text in pairs if name == "format"):
        try:
            kind = _FORMAT.read(text)
        except ValueError as error:
            wrong.append(Detail("format", str(error)))
        if number:
            wrong.append(Detail("format", "It is given twice."))
    wrong += [Detail(name, "There is no such parameter.") for name, _ in pairs if name not in (*known, "format")]
    asked = links.LISTING.asked([pair for pair in pairs if pair[0] in known], wrong)
    return exports.FORMATS[kind], asked.filters


class _Download(Response):
    """Begins when there is something to send, so that until then there may be an error instead."""

    def __init__(self, pool: database.Pool, organization_id: int, kind: Format, filters: dict[str, Any]) -> None:
        super().__init__()
        self._pool = pool
        self._organization_id = organization_id
        self._kind = kind
        self._filters = filters

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Raises `Unavailable`. When Postgres goes away later, the connection is cut."""
        async with (
            _turns,
            database.connection(self._pool, within_s=_ALL_LINKS_S) as connection,
            connection.transaction(isolation="repeatable_read", readonly=True),
            contextlib.aclosing(exports.pieces(connection, self._organization_id, self._kind, self._filters)) as pieces,
        ):
            begin = await anext(pieces)
            named = {"Content-Disposition": f'attachment; filename="links.{self._kind.ending}"'}
            answer = StreamingResponse(_behind(begin, pieces), headers=named, media_type=self._kind.media_type)
            await answer(scope, receive, send)


async def _behind(begin: bytes, pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield begin
    async for piece in pieces:
        yield piece
