"""Answers: the Linkkit envelope, and the one builder for the body of an error."""

import logging
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, Generic, TypeVar

from fastapi import FastAPI
from pydantic import BaseModel, ConfigDict, Field, PlainSerializer
from pydantic.alias_generators import to_camel
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from admin.errors import ApiError, Detail, InternalError, Invalid, MethodNotAllowed, NotFound
from admin.http.paging import Pagination
from admin.http.request_ids import request_id

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


class ListMeta(Meta):
    """What is known about a page of a list."""

    pagination: Pagination


class Answer(Wire, Generic[T]):
    """The Linkkit envelope around one resource."""

    success: bool = True
    data: T
    meta: Meta


class ListAnswer(Wire, Generic[T]):
    """The Linkkit envelope around a page of resources."""

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


class ErrorDetail(Wire):
    """One thing that is wrong with one field."""

    field: str
    message: str


class ErrorBody(Wire):
    """What went wrong."""

    code: str
    message: str
    details: list[ErrorDetail] = Field(default_factory=list)


class ErrorAnswer(Wire):
    """The body of every error."""

    success: bool = False
    error: ErrorBody
    meta: Meta


def answer(request: Request, data: T) -> Answer[T]:
    """One resource."""
    return Answer(data=data, meta=Meta(request_id=request_id(request)))


def resource_answer(request: Request, type: str, id: str, attributes: T) -> ResourceAnswer[T]:
    """One resource of the Linktor family."""
    return ResourceAnswer(
        data=Resource(id=id, type=type, attributes=attributes), meta=Meta(request_id=request_id(request))
    )


def list_answer(request: Request, data: list[T], pagination: Pagination) -> ListAnswer[T]:
    """A page of resources."""
    return ListAnswer(data=data, meta=ListMeta(request_id=request_id(request), pagination=pagination))


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
    app.add_exception_handler(Exception, _unexpected)


def _error_answer(request: Request, error: ApiError, headers: Mapping[str, str] | None = None) -> Response:
    body = ErrorAnswer(
        error=ErrorBody(
            code=error.code, message=str(error), details=[ErrorDetail(**detail._asdict()) for detail in error.details]
        ),
        meta=Meta(request_id=request_id(request)),
    )
    # Here too, because an unexpected error is answered outside of RequestIds.
    named = {**error.headers, **(headers or {}), "X-Request-ID": request_id(request)}
    return JSONResponse(body.model_dump(by_alias=True), error.status, named)


async def _api_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)
    if error.status >= 500:
        log.warning("%s %s: %s: %r", request_id(request), request.url.path, error, error.__cause__)
    return _error_answer(request, error)


async def _http_exception(request: Request, error: Exception) -> Response:
    """The framework's own: no such route, no such method, and a body or path it refuses."""
    assert isinstance(error, HTTPException)
    if error.status_code == 404:
        return _error_answer(request, NotFound("There is no such route."))
    if error.status_code == 405:
        return _error_answer(request, MethodNotAllowed(), error.headers)
    return _error_answer(request, Invalid(details=[Detail("request", str(error.detail))]))


async def _unexpected(request: Request, error: Exception) -> Response:
    """Starlette raises it again after this answer, so the server logs the traceback; this line adds the id to it."""
    log.error("%s %s: %r", request_id(request), request.url.path, error)
    return _error_answer(request, InternalError())
