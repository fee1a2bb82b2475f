"""Answers: the Linkkit envelope, and the one builder for the body of an error.

What nobody expected is answered inside of every other middleware, so that its answer has the headers of any other.
"""

import logging
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, Generic, TypeAlias, TypeVar

from fastapi import FastAPI
from pydantic import BaseModel, ConfigDict, Field, PlainSerializer
from pydantic.alias_generators import to_camel
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import compile_path
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from admin.errors import ApiError, InternalError, Invalid, MethodNotAllowed, NotFound, RateLimited
from admin.http.lists import Cursor, Found, Pagination
from admin.http.request_ids import asked_of, request_id

log = logging.getLogger(__name__)

T = TypeVar("T")


def instant(at: datetime) -> str:
    """ISO 8601 in UTC with milliseconds: `2026-01-31T09:30:00.000Z`."""
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


Instant = Annotated[datetime, PlainSerializer(instant, return_type=str)]


class Wire(BaseModel):
    """A JSON object of the API: snake_case in Python, camelCase on the wire."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True)


class Meta(Wire):
    """What is known about an answer."""

    request_id: str


class PageMeta(Meta):
    """What is known about a page of a list."""

    pagination: Pagination


class WalkMeta(Meta):
    """What is known about a step of a walk through a list."""

    cursor: Cursor


ListMeta: TypeAlias = PageMeta | WalkMeta


class Answer(Wire, Generic[T]):
    """The Linkkit envelope around one resource."""

    success: bool = True
    data: T
    meta: Meta


class ListAnswer(Wire, Generic[T]):
    """The Linkkit envelope around a part of a list."""

    success: bool = True
    data: list[T]
    meta: ListMeta


class Resource(Wire, Generic[T]):
    """One resource of the Linktor family."""

    id: str
    type: str
    attributes: T


class ResourceAnswer(Wire, Generic[T]):
    """The Linktor envelope around one resource."""

    data: Resource[T]
    meta: Meta


class ResourceListAnswer(Wire, Generic[T]):
    """The Linktor envelope around a part of a list."""

    data: list[Resource[T]]
    meta: ListMeta


class PlainAnswer(Wire, Generic[T]):
    """What is no resource, in an envelope all the same."""

    data: T
    meta: Meta


class ErrorDetail(Wire):
    """One thing that is wrong with one field."""

    field: str
    message: str


class ErrorBody(Wire):
    """What went wrong."""

    code: str
    message: str
    details: list[ErrorDetail] = Field(default_factory=list)
    retry_after: int = Field(default=0, exclude_if=lambda seconds: seconds == 0)
    """Seconds; only where there is something to wait for."""


class ErrorAnswer(Wire):
    """The body of every error."""

    success: bool = False
    error: ErrorBody
    meta: Meta


def answer(request: Request, data: T) -> Answer[T]:
    """One resource."""
    return Answer(data=data, meta=Meta(request_id=request_id(request)))


def resource_answer(request: Request, data: Resource[T]) -> ResourceAnswer[T]:
    """One resource of the Linktor family."""
    return ResourceAnswer(data=data, meta=Meta(request_id=request_id(request)))


def plain_answer(request: Request, data: T) -> PlainAnswer[T]:
    """What is no resource."""
    return PlainAnswer(data=data, meta=Meta(request_id=request_id(request)))


def list_answer(request: Request, data: list[T], found: Found) -> ListAnswer[T]:
    """What was found of a list, as it is shown."""
    return ListAnswer(data=data, meta=_list_meta(request, found))


def resource_list_answer(request: Request, data: list[Resource[T]], found: Found) -> ResourceListAnswer[T]:
    """What was found of a list of the Linktor family, as it is shown."""
    return ResourceListAnswer(data=data, meta=_list_meta(request, found))


def _list_meta(request: Request, found: Found) -> ListMeta:
    if isinstance(found.place, Cursor):
        return WalkMeta(request_id=request_id(request), cursor=found.place)
    return PageMeta(request_id=request_id(request), pagination=found.place)


def documented(*errors: type[ApiError]) -> dict[int | str, dict[str, Any]]:
    """The `responses` of a route in the OpenAPI document."""
    by_status: dict[int | str, list[str]] = {}
    for error in errors:
        by_status.setdefault(error.status, []).append(error.code)
    return {status: {"model": ErrorAnswer, "description": ", ".join(codes)} for status, codes in by_status.items()}


def install_error_answers(app: FastAPI) -> None:
    """Give every error its body: our own, the framework's, and whatever nobody expected."""
    app.add_exception_handler(ApiError, _api_error)
    app.add_exception_handler(HTTPException, _http_exception)
    # At the end, which is the innermost; what is added otherwise goes to the begin. An exception handler for Exception
    # would answer outside of all middleware.
    app.user_middleware.append(Middleware(Faults))


class Faults:
    """ASGI middleware: answers what nobody expected, and logs it with its traceback."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """What goes wrong behind the begin of an answer is raised again: the server cuts the connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        has_begun = False

        async def noticed(message: Message) -> None:
            nonlocal has_begun
            has_begun = True
            await send(message)

        try:
            await self._app(scope, receive, noticed)
        except Exception:
            request = Request(scope)
            log.exception("%s %s: nobody expected this", request_id(request), asked_of(scope))
            if has_begun:
                raise
            await _error_answer(request, InternalError())(scope, receive, send)


def error_body(error: ApiError) -> ErrorBody:
    """What is said of an error."""
    return ErrorBody(
        code=error.code,
        message=str(error),
        details=[ErrorDetail(**detail._asdict()) for detail in error.details],
        retry_after=error.retry_after_s if isinstance(error, RateLimited) else 0,
    )


def _error_answer(request: Request, error: ApiError, headers: Mapping[str, str] | None = None) -> Response:
    body = ErrorAnswer(error=error_body(error), meta=Meta(request_id=request_id(request)))
    return JSONResponse(body.model_dump(by_alias=True), error.status, {**error.headers, **(headers or {})})


async def _api_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)
    if error.status >= 500:
        log.warning("%s %s: %s: %r", request_id(request), asked_of(request.scope), error, error.__cause__)
    return _error_answer(request, error)


async def _http_exception(request: Request, error: Exception) -> Response:
    """The framework's own: no such route, no such method, and a body or path it refuses."""
    assert isinstance(error, HTTPException)
    if error.status_code == 404:
        return _error_answer(request, NotFound("There is no such route."))
    if error.status_code == 405:
        return _error_answer(request, MethodNotAllowed(), {**(error.headers or {}), **_allow(request)})
    return _error_answer(request, Invalid.of("request", str(error.detail)))


def _allow(request: Request) -> dict[str, str]:
    """What may be asked of this path. The framework names the methods of one of its routes only."""
    app: FastAPI = request.app
    path = request.url.path.removeprefix("/api")
    for template, operations in app.openapi()["paths"].items():
        if compile_path(template)[0].fullmatch(path):
            return {"Allow": ", ".join(sorted(method.upper() for method in operations))}
    return {}
