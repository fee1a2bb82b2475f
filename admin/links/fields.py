"""The fields of a link as they are sent: what is accepted, what it becomes, and what is said when it is not."""

import unicodedata
from collections.abc import Callable
from typing import Annotated, Any

import orjson
from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationInfo, field_validator
from pydantic.alias_generators import to_camel

from admin.errors import Detail, Invalid
from admin.links.destinations import normal_destination
from shared.links import MAX_PATH_LENGTH, is_reserved, normal_hostname, normal_path

MAX_TITLE_LENGTH = 500
_NOT_IN_PATHS = {"?": "%3F", "#": "%23", "\\": "%5C"}


def _path(text: str) -> str:
    if not text.startswith("/"):
        text = "/" + text
    if any(unicodedata.category(character) in ("Cc", "Cs") for character in text):
        raise ValueError("A path must not contain control characters.")
    for character, escape in _NOT_IN_PATHS.items():
        if character in text:
            raise ValueError(f"A path must not contain {character}; write {escape} if it is meant.")
    path = normal_path(text.encode())
    if "%00" in path:
        raise ValueError("A path must not contain control characters.")
    if len(path) > MAX_PATH_LENGTH:
        raise ValueError(f"A path may have {MAX_PATH_LENGTH} characters.")
    if is_reserved(path):
        raise ValueError("This path is reserved on every host.")
    return path


def _title(text: str) -> str:
    if any(unicodedata.category(character) in ("Cc", "Cs") for character in text):
        raise ValueError("A title must not contain control characters.")
    if len(text) > MAX_TITLE_LENGTH:
        raise ValueError(f"A title may have {MAX_TITLE_LENGTH} characters.")
    return text


Hostname = Annotated[str, AfterValidator(normal_hostname)]
Path = Annotated[str, AfterValidator(_path)]
Destination = Annotated[str, AfterValidator(normal_destination)]
Title = Annotated[str, AfterValidator(_title)]


class _Fields(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="forbid", strict=True)


class NewLink(_Fields):
    """What POST takes."""

    destination: Destination
    hostname: Hostname | None = None
    path: Path | None = None
    title: Title | None = None


class LinkChange(_Fields):
    """What PUT takes: fields that are not sent stay as they are."""

    destination: Destination | None = None
    hostname: Hostname | None = None
    path: Path | None = None
    title: Title | None = None

    @field_validator("destination", "hostname", "path", mode="before")
    @classmethod
    def _not_null(cls, value: Any, info: ValidationInfo) -> Any:
        if value is None:
            raise ValueError(f"The {info.field_name} of a link can't be removed.")
        return value


_FILTERS: dict[str, Callable[[str], str]] = {
    "hostname": normal_hostname,
    "path": _path,
    "destination": normal_destination,
    "title": _title,
}
_PAGING = ("page", "perPage", "limit")


def filters_of(pairs: list[tuple[str, str]]) -> dict[str, str]:
    """The filters in a query string: `query[path]=/a`, `query.path=/a`, `query={"path": "/a"}` or `path=/a`.

    Values are brought to their normal form, as they are stored. Raises `Invalid`, also for unknown parameters.
    """
    filters: dict[str, str] = {}
    details: list[Detail] = []
    for parameter, value in _flat(pairs, details):
        name = parameter.removeprefix("query[").removesuffix("]") if parameter.startswith("query[") else parameter
        name = name.removeprefix("query.")
        if name in _PAGING and name == parameter:
            continue
        if name not in _FILTERS:
            details.append(Detail(parameter, "There is no such parameter."))
            continue
        try:
            filters[name] = _FILTERS[name](value)
        except ValueError as error:
            details.append(Detail(parameter, str(error)))
    if details:
        raise Invalid(details=details)
    return filters


def _flat(pairs: list[tuple[str, str]], details: list[Detail]) -> list[tuple[str, str]]:
    """The parameters, with a JSON object in `query` taken apart."""
    flat = []
    for parameter, value in pairs:
        if parameter != "query":
            flat.append((parameter, value))
            continue
        try:
            fields = orjson.loads(value)
        except orjson.JSONDecodeError:
            fields = None
        if isinstance(fields, dict) and all(isinstance(text, str) for text in fields.values()):
            flat += [(f"query.{name}", text) for name, text in fields.items()]
        else:
            details.append(Detail("query", "It must be a JSON object of strings, or written as query[name]=value."))
    return flat
