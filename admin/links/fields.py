"""The fields of a link as they are sent: what is accepted, what it becomes, and what is said when it is not."""

from typing import Annotated

import orjson
from pydantic import AfterValidator, Field

from admin.errors import Detail
from admin.http.fields import Change, Fields, Plain, documented, plain
from admin.http.lists import Values
from admin.links.destinations import normal_destination
from shared.links import MAX_PATH_LENGTH, is_reserved, normal_hostname, normal_path

MAX_TITLE_LENGTH = 500
_NOT_IN_PATHS = {"?": "%3F", "#": "%23", "\\": "%5C"}


def _path(text: str) -> str:
    if not text.startswith("/"):
        text = "/" + text
    plain(text)
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


Hostname = Annotated[str, AfterValidator(normal_hostname), documented(format="idn-hostname")]
Path = Annotated[str, AfterValidator(_path), documented(format="link-path")]
Destination = Annotated[str, AfterValidator(normal_destination), documented(format="uri", pattern="^[Hh][Tt][Tt][Pp]")]
Title = Annotated[Plain, Field(max_length=MAX_TITLE_LENGTH)]


class NewLink(Fields):
    """What POST takes."""

    destination: Destination
    hostname: Hostname | None = None
    path: Path | None = None
    title: Title | None = None


class LinkChange(Change):
    """What PUT takes: fields that are not sent stay as they are. Only a title can be taken away."""

    destination: Destination = ""
    hostname: Hostname = ""
    path: Path = ""
    title: Title | None = None


FILTERS = {
    "hostname": Values(normal_hostname, {"type": "string", "examples": ["go.example.com"]}),
    "path": Values(_path, {"type": "string", "examples": ["/spring"]}),
    "destination": Values(normal_destination, {"type": "string", "examples": ["https://example.com/"]}),
    "title": Values(plain, {"type": "string", "examples": ["Spring"]}),
}
"""What lists can be filtered by. Values are brought to their normal form, as they are stored."""


def flat(pairs: list[tuple[str, str]]) -> tuple[list[tuple[str, str]], list[Detail]]:
    """A query string with its filters under their bare names, and what is wrong with it.

    `query[path]=/a`, `query.path=/a` and `query={"path": "/a"}` are `path=/a`. What is no filter keeps its name.
    """
    bare: list[tuple[str, str]] = []
    wrong: list[Detail] = []
    for parameter, text in pairs:
        if parameter != "query":
            bare.append((_bare(parameter), text))
        elif (fields := _object(text)) is not None:
            bare += [(_bare(f"query.{name}"), value) for name, value in fields.items()]
        else:
            wrong.append(Detail("query", "It must be a JSON object of strings, or written as query[name]=value."))
    if [parameter for parameter, _ in pairs].count("query") > 1:
        wrong.append(Detail("query", "It is given twice."))
    return bare, wrong


def _bare(parameter: str) -> str:
    name = parameter.removeprefix("query.")
    if parameter.startswith("query[") and parameter.endswith("]"):
        name = parameter[len("query[") : -1]
    return name if name in FILTERS else parameter


def _object(text: str) -> dict[str, str] | None:
    """None for whatever is not a JSON object of strings."""
    try:
        fields = orjson.loads(text)
    except orjson.JSONDecodeError:
        return None
    is_flat = isinstance(fields, dict) and all(isinstance(value, str) for value in fields.values())
    return fields if is_flat else None
