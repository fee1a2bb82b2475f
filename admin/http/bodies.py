"""Bodies of requests: JSON or form, bounded, and validated with every violation reported at once."""

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar
from urllib.parse import parse_qsl

import orjson
from pydantic import BaseModel, ValidationError
from starlette.requests import ClientDisconnect, Request

from admin.errors import Detail, Invalid, PayloadTooLarge

M = TypeVar("M", bound=BaseModel)

MAX_BODY_BYTES = 1024 * 1024
_MAX_FORM_FIELDS = 200
_FORM = "application/x-www-form-urlencoded"


def body_of(model: type[M]) -> Callable[[Request], Awaitable[M]]:
    """A dependency that reads the body as this model.

    The type is told by Content-Type, or by the first byte when there is none. Raises `Invalid`, `PayloadTooLarge`.
    """

    async def read(request: Request) -> M:
        try:
            return model.model_validate(_fields(request.headers.get("content-type", ""), await _bytes(request)))
        except ValidationError as error:
            raise Invalid(details=[_detail(problem) for problem in error.errors()]) from error

    return read


def documented_body(model: type[BaseModel]) -> dict[str, Any]:
    """The `openapi_extra` of a route that reads its body with `body_of`."""
    schema = {"schema": model.model_json_schema()}
    return {"requestBody": {"required": True, "content": {"application/json": schema, _FORM: schema}}}


async def _bytes(request: Request) -> bytes:
    content = bytearray()
    try:
        async for chunk in request.stream():
            content += chunk
            if len(content) > MAX_BODY_BYTES:
                raise PayloadTooLarge(f"A request body may have {MAX_BODY_BYTES} bytes.")
    except ClientDisconnect as error:
        raise Invalid(details=[Detail("body", "It ended early.")]) from error
    return bytes(content)


def _fields(content_type: str, content: bytes) -> dict[str, Any]:
    kind = content_type.partition(";")[0].strip().lower()
    if not kind:
        kind = "application/json" if content.lstrip()[:1] in (b"{", b"[") else _FORM
    if kind == "application/json" or kind.endswith("+json"):
        return _json_fields(content)
    if kind == _FORM:
        return _form_fields(content)
    raise Invalid(details=[Detail("body", f"Send application/json or {_FORM}.")])


def _json_fields(content: bytes) -> dict[str, Any]:
    try:
        fields = orjson.loads(content)
    except orjson.JSONDecodeError as error:
        raise Invalid(details=[Detail("body", f"It is not JSON: {error}")]) from error
    if not isinstance(fields, dict):
        raise Invalid(details=[Detail("body", "It must be a JSON object.")])
    return fields


def _form_fields(content: bytes) -> dict[str, Any]:
    try:
        pairs = parse_qsl(
            content.decode("utf-8"),
            keep_blank_values=True,
            strict_parsing=bool(content),
            errors="strict",
            max_num_fields=_MAX_FORM_FIELDS,
        )
    except ValueError as error:
        if content.lstrip()[:1] == b"{":
            raise Invalid(
                details=[Detail("body", "It looks like JSON; send Content-Type: application/json.")]
            ) from error
        raise Invalid(details=[Detail("body", "It is not a form in UTF-8 with at most 200 fields.")]) from error
    fields = dict(pairs)
    if len(fields) < len(pairs):
        raise Invalid(details=[Detail("body", "A field of the form is given twice.")])
    return fields


def _detail(problem: Any) -> Detail:
    field = ".".join(str(part) for part in problem["loc"]) or "body"
    if problem["type"] == "value_error":
        return Detail(field, str(problem["ctx"]["error"]))
    if problem["type"] == "extra_forbidden":
        return Detail(field, "There is no such field.")
    return Detail(field, f"{problem['msg']}.")
