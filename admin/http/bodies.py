"""Bodies of requests: JSON or form, bounded, and validated with every violation reported at once.

Rules of this file:

1. Whatever arrives becomes fields or an `Invalid` that says why; nothing that Postgres, Redis or a later `orjson.dumps`
   would choke on gets any further.
2. Nothing is passed over: a field that is given twice is refused, for nobody knows which of the two is meant.
3. orjson is the parser. It is strict about grammar, UTF-8, surrogates, NaN and infinity, but the last of two equal keys
   wins, large whole numbers become inexact, and an escaped NUL is a character like any other: so we look twice.
"""

import json
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar
from urllib.parse import parse_qsl

import orjson
from pydantic import BaseModel, ValidationError
from starlette.requests import ClientDisconnect, Request

from admin.errors import Detail, Invalid, PayloadTooLarge
from admin.settings import AdminSettings

M = TypeVar("M", bound=BaseModel)

MAX_BODY_BYTES = 1024 * 1024
_MAX_FORM_FIELDS = 200
_MAX_DETAILS = 100  # or a body of many small mistakes would get an answer several times its size
_MAX_DEPTH = 64  # orjson reads 1024 levels, but writes only 254
_TOO_DEEP = f"It is nested more than {_MAX_DEPTH} deep."
_MIN_NUMBER, _MAX_NUMBER = -(2**63), 2**63 - 1
_JSON = "application/json"
_FORM = "application/x-www-form-urlencoded"


def body_of(model: type[M], *, or_form: bool = False) -> Callable[[Request], Awaitable[M]]:
    """A dependency that reads a body of JSON, or of a form, as this model.

    A field is taken under its name in the model (`created_at`) and under its alias (`createdAt`), but not under both.
    At most 100 violations are named. Raises `Invalid`, `PayloadTooLarge`.
    """

    async def read(request: Request) -> M:
        content_type, content = request.headers.get("content-type", ""), await body_bytes(request)
        fields = fields_of(content_type, content, or_form=or_form)
        # In a form everything is text: there 5 is a number, and true is true.
        is_strict = _kind_of(content_type, content, or_form) != _FORM
        return validated(model, fields, request.app.state.settings, is_strict=is_strict)

    return read


def validated(model: type[M], fields: dict[str, Any], settings: AdminSettings, *, is_strict: bool = True) -> M:
    """Fields as this model; validators find the settings in their context. Raises `Invalid`."""
    _refuse_two_spellings(model, fields)
    try:
        return model.model_validate(fields, strict=None if is_strict else False, context=settings)
    except ValidationError as error:
        problems = error.errors(include_url=False, include_input=False)
        raise Invalid(details=[_detail(problem) for problem in problems[:_MAX_DETAILS]]) from error


def documented_body(model: type[BaseModel], *, or_form: bool = False) -> dict[str, Any]:
    """The `openapi_extra` of a route that reads its body with `body_of`."""
    content = {_JSON: {"schema": _schema(model)}}
    if or_form:
        content[_FORM] = {"schema": _form_schema(_schema(model))}
    return {"requestBody": {"required": True, "content": content}}


def _schema(model: type[BaseModel]) -> dict[str, Any]:
    """With the models of its parts in their places: in the document, references go by another root."""
    schema = model.model_json_schema()
    parts = schema.pop("$defs", {})

    def whole(value: Any) -> Any:
        if isinstance(value, list):
            return [whole(item) for item in value]
        if not isinstance(value, dict):
            return value
        part = parts[value["$ref"].rpartition("/")[2]] if "$ref" in value else {}
        return {key: whole(item) for key, item in (part | value).items() if key != "$ref"}

    whole_schema: dict[str, Any] = whole(schema)
    return whole_schema


def _form_schema(schema: dict[str, Any]) -> dict[str, Any]:
    """The same for a form, which has no null, no lists and no objects."""
    properties = {}
    for name, one in schema["properties"].items():
        kinds = [kind for kind in one.pop("anyOf", [one]) if kind.get("type") != "null"]
        if len(kinds) == 1 and kinds[0].get("type") in ("string", "integer", "boolean"):
            properties[name] = one | kinds[0]
    return schema | {"properties": properties}


async def body_bytes(request: Request) -> bytes:
    """The body as it came, as often as it is asked for. Raises `Invalid` when it ended early, `PayloadTooLarge`."""
    if not hasattr(request.state, "body"):
        request.state.body = await _received(request)
    body: bytes = request.state.body
    return body


def fields_of(content_type: str, content: bytes, *, or_form: bool = True) -> dict[str, Any]:
    """The fields of a body. The type is told by Content-Type, or by the first byte when there is none.

    No text in them has a NUL, whole numbers have at most 64 bits, and values are nested at most 64 deep. Raises
    `Invalid`.
    """
    fields = _parsed(_kind_of(content_type, content, or_form), content, or_form)
    flaws = [(name, _flaw(name, value)) for name, value in fields.items()]
    # A name with a NUL is not repeated: nobody who keeps the answer should have to store it.
    if details := [Detail("body" if "\0" in name else name, flaw) for name, flaw in flaws if flaw]:
        raise Invalid(details=details[:_MAX_DETAILS])
    return fields


def _refuse_two_spellings(model: type[BaseModel], fields: dict[str, Any]) -> None:
    details = [
        Detail(field.alias, f"It is given twice, as {field.alias} and as {name}.")
        for name, field in model.model_fields.items()
        if field.alias and field.alias != name and field.alias in fields and name in fields
    ]
    if details:
        raise Invalid(details=details)


async def _received(request: Request) -> bytes:
    content = bytearray()
    try:
        async for chunk in request.stream():
            content += chunk
            if len(content) > MAX_BODY_BYTES:
                raise PayloadTooLarge(f"A request body may have {MAX_BODY_BYTES} bytes.")
    except ClientDisconnect as error:
        raise Invalid.of("body", "It ended early.") from error
    return bytes(content)


def _kind_of(content_type: str, content: bytes, or_form: bool) -> str:
    kind = content_type.partition(";")[0].strip().lower()
    if content and not kind:
        return _FORM if or_form and content.lstrip()[:1] not in (b"{", b"[") else _JSON
    return kind


def _parsed(kind: str, content: bytes, or_form: bool) -> dict[str, Any]:
    if not content and kind != _FORM:
        raise Invalid.of("body", "It is empty.")
    if kind == _JSON or kind.endswith("+json"):
        return _json_fields(content)
    if kind == _FORM and or_form:
        return _form_fields(content)
    raise Invalid.of("body", f"Send {_JSON}{f' or {_FORM}' if or_form else ''}.")


def _json_fields(content: bytes) -> dict[str, Any]:
    try:
        fields = orjson.loads(content)
    except orjson.JSONDecodeError as error:
        raise Invalid.of("body", f"It is not JSON: {error}.") from error
    if not isinstance(fields, dict):
        raise Invalid.of("body", "It must be a JSON object.")
    _look_again(content)
    return fields


def _look_again(content: bytes) -> None:
    """Raises `Invalid` for what orjson decides silently: which of two equal keys wins, what a large number becomes."""
    try:
        json.loads(content, object_pairs_hook=_object, parse_int=_refuse_large)
    except RecursionError as error:
        # What is nested too deep may be the value that lost to an equal key; then `_flaw` never sees it.
        raise Invalid.of("body", _TOO_DEEP) from error


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        [(name, _)] = Counter(name for name, _ in pairs).most_common(1)
        raise Invalid.of("body", f"The field {name!r} is given twice.")
    return fields


def _refuse_large(digits: str) -> None:
    # They are some hundred digits at most: to orjson more is infinity.
    if not _MIN_NUMBER <= int(digits) <= _MAX_NUMBER:
        raise Invalid.of("body", "A whole number in it does not fit into 64 bits.")


def _flaw(name: str, value: Any) -> str | None:
    """Why no field can take this value, whatever the field; None if it might."""
    level = [name, value]
    for _ in range(_MAX_DEPTH):
        if any(isinstance(item, str) and "\0" in item for item in level):
            return "It must not contain the character NUL."
        level = [inner for item in level for inner in _inner(item)]
        if not level:
            return None
    return _TOO_DEEP


def _inner(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return [*value, *value.values()]
    return value if isinstance(value, list) else []


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
            raise Invalid.of("body", "It looks like JSON; send Content-Type: application/json.") from error
        raise Invalid.of("body", "It is not a form in UTF-8 with at most 200 fields.") from error
    return _object(pairs)


def _detail(problem: Any) -> Detail:
    field = ".".join(str(part) for part in problem["loc"]) or "body"
    if problem["type"] == "value_error":
        return Detail(field, str(problem["ctx"]["error"]))
    if problem["type"] == "extra_forbidden":
        return Detail(field, "There is no such field.")
    return Detail(field, f"{problem['msg']}.")
