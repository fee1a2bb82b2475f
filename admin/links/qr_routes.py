"""The routes of QR codes, and of the logo that an organization may put in the middle of them.

A code holds the short URL with `?qr=1`, by which the edge tells a scan from a click.
"""

import asyncio
import hashlib
import re
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from admin import errors
from admin.database import transaction
from admin.errors import Detail, Invalid, NotFound, PayloadTooLarge
from admin.http import ids
from admin.http.answers import documented
from admin.http.bodies import body_bytes
from admin.http.lists import Values, one_of
from admin.identity import audit
from admin.identity.principal import Administrator, LinkReader
from admin.links import links, logos, qr
from admin.links.logos import BadLogo
from admin.links.qr import BadCode

router = APIRouter(tags=["QR codes"], responses=documented(*errors.OF_EVERY_CALLER))

_MARK = "?qr=1"
_KEPT = "private, max-age=60"  # an address can change
_CACHE_BYTES = 16 * 1024 * 1024
_AT_ONCE = 2  # a large picture takes a tenth of a second, and threads share the interpreter with all other requests
_PNG = "image/png"


def _whole(least: int, most: int) -> Values:
    def read(text: str) -> int:
        if not re.fullmatch("[0-9]{1,5}", text) or not least <= int(text) <= most:
            raise ValueError(f"It must be a whole number from {least} to {most}.")
        return int(text)

    return Values(read, {"type": "integer", "minimum": least, "maximum": most})


def _colour(*others: str) -> Values:
    def read(text: str) -> str:
        if text not in others and not re.fullmatch("#[0-9A-Fa-f]{6}", text):
            also = "".join(f", or {other}" for other in others)
            raise ValueError(f"It must be a colour such as #1a2b3c, where # is written %23{also}.")
        return text.lower()

    shapes = ["#[0-9A-Fa-f]{6}", *others]
    return Values(read, {"type": "string", "pattern": f"^({'|'.join(shapes)})$"})


_PARAMETERS = {
    "format": (one_of(*qr.MEDIA_TYPES), "What the picture is; svg unless given."),
    "size": (_whole(64, 4096), "Pixels a side, margin included; 512 unless given."),
    "margin": (_whole(0, 20), "Modules around the code; 4 unless given, which scanners may rely on."),
    "ecc": (one_of(*qr.LEVELS), "Error correction: M unless given, H with a logo."),
    "dark": (_colour(), "The colour of modules; black unless given."),
    "light": (_colour(qr.TRANSPARENT), "The colour behind them; white unless given."),
    "logo": (one_of("true", "false"), "Whether the organization's logo is in the middle; false unless given."),
}


def _asked(pairs: list[tuple[str, str]]) -> tuple[dict[str, Any], dict[str, str]]:
    """The parameters that were sent, and by name what is wrong with the others."""
    asked: dict[str, Any] = {}
    wrong: dict[str, str] = {}
    for name, text in pairs:
        if name not in _PARAMETERS:
            wrong.setdefault(name, "There is no such parameter.")
        elif name in asked:
            wrong.setdefault(name, "It is given twice.")
        else:
            try:
                asked[name] = _PARAMETERS[name][0].read(text)
            except ValueError as error:
                wrong.setdefault(name, str(error))
    return asked, wrong


class _Codes:
    """Pictures that were made, by what they were made of; what was not asked for longest goes first."""

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._bytes = 0
        self._kept: OrderedDict[Any, bytes] = OrderedDict()
        self._threads = ThreadPoolExecutor(_AT_ONCE, "qr")

    async def code(self, text: str, logo: bytes | None, **parameters: Any) -> bytes:
        """The picture, made in a thread if it is new. Raises `BadCode`."""
        key = text, logo and hashlib.sha256(logo).digest(), *sorted(parameters.items())
        if key not in self._kept:
            make = partial(qr.render, text, logo=logo, **parameters)
            made = await asyncio.get_running_loop().run_in_executor(self._threads, make)
            self._keep(key, made)
        self._kept.move_to_end(key)
        return self._kept[key]

    def _keep(self, key: Any, code: bytes) -> None:
        self._bytes += len(code) - len(self._kept.get(key, b""))
        self._kept[key] = code
        self._kept.move_to_end(key)
        while self._bytes > self._most_bytes and len(self._kept) > 1:
            self._bytes -= len(self._kept.popitem(last=False)[1])


_codes = _Codes(_CACHE_BYTES)


@router.get(
    "/links/{link_id}/qr",
    summary="Get a link's QR code",
    response_class=Response,
    responses={
        200: {"description": "The picture.", "content": {media_type: {} for media_type in qr.MEDIA_TYPES.values()}},
        304: {"description": "It is the one that `If-None-Match` names."},
        **documented(errors.Invalid, errors.NotFound),
    },
    openapi_extra={
        "parameters": [
            {"name": name, "in": "query", "required": False, "description": description, "schema": values.schema}
            for name, (values, description) in _PARAMETERS.items()
        ]
    },
)
async def show_qr(request: Request, caller: LinkReader, link_id: str) -> Response:
    """A code of the link's short URL. Colours that scanners fail at, and sizes too small for the code, are refused."""
    asked, wrong = _asked(request.query_params.multi_items())
    with_logo = asked.pop("logo", "false") == "true"
    async with transaction(request.app.state.pool) as connection:
        link = await links.get(connection, caller.organization_id, link_id)
        logo = await logos.get(connection, caller.organization_id) if with_logo else None
    if with_logo and logo is None:
        wrong["logo"] = "The organization has no logo; send one with PUT /v1/organization/logo."
    text = request.app.state.settings.short_url(link.hostname, link.path) + _MARK
    code = b""
    try:
        code = await _codes.code(text, logo, **asked)
    except BadCode as error:
        for detail in error.details:
            wrong.setdefault(*detail)
    if wrong:
        raise Invalid(details=[Detail(*one) for one in wrong.items()])
    headers = {"ETag": f'"{hashlib.sha256(code).hexdigest()[:32]}"', "Cache-Control": _KEPT}
    if _is_known(request, headers["ETag"]):
        return Response(status_code=304, headers=headers)
    return Response(code, headers=headers, media_type=qr.MEDIA_TYPES[asked.get("format", "svg")])


def _is_known(request: Request, etag: str) -> bool:
    """Whether the client has this picture already (RFC 9110 §13.1.2)."""
    known = [tag.strip().removeprefix("W/") for tag in request.headers.get("if-none-match", "").split(",")]
    return etag in known or "*" in known


@router.put(
    "/organization/logo",
    status_code=204,
    summary="Give the organization a logo",
    response_class=Response,
    responses=documented(errors.Invalid, errors.PayloadTooLarge),
    openapi_extra={"requestBody": {"required": True, "content": {_PNG: {}}}},
)
async def put_logo(request: Request, caller: Administrator) -> None:
    """A PNG of at most 256 KiB and 2,048 pixels a side, for the middle of QR codes. An earlier one is replaced."""
    content = await body_bytes(request)
    if len(content) > logos.MAX_BYTES:
        raise PayloadTooLarge(f"A logo may have {logos.MAX_BYTES} bytes.")
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != _PNG:
        raise Invalid.of("body", f"Send {_PNG}.")
    try:
        logo = await asyncio.to_thread(logos.normal_logo, content)
    except BadLogo as error:
        raise Invalid.of("body", str(error)) from error
    async with transaction(request.app.state.pool) as connection:
        await logos.put(connection, caller.organization_id, logo)
        await audit.record(connection, caller, "logo.changed", ids.shown("org", caller.organization))


@router.delete(
    "/organization/logo",
    status_code=204,
    summary="Take the organization's logo away",
    response_class=Response,
    responses=documented(errors.NotFound),
)
async def remove_logo(request: Request, caller: Administrator) -> None:
    """Codes with it that are printed stay as they are."""
    async with transaction(request.app.state.pool) as connection:
        if not await logos.remove(connection, caller.organization_id):
            raise NotFound("The organization has no logo.")
        await audit.record(connection, caller, "logo.removed", ids.shown("org", caller.organization))
