"""What lists of links can be filtered by, and the ways in which a client may write a filter."""

import orjson

from admin.errors import Detail
from admin.http.fields import plain
from admin.http.lists import Values, one_of
from admin.links.destinations import normal_destination
from admin.links.fields import normal_link_path
from shared.links import normal_hostname, normal_path

_YES_OR_NO = one_of("true", "false")


def _searched(text: str) -> str:
    """As an argument of `like`, which finds it anywhere."""
    escaped = plain(text).lower().replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    return f"%{escaped}%"


FILTERS = {
    "hostname": Values(normal_hostname, {"type": "string", "examples": ["go.example.com"]}),
    "path": Values(
        lambda text: normal_path(normal_link_path(text).encode()), {"type": "string", "examples": ["/spring"]}
    ),
    "destination": Values(normal_destination, {"type": "string", "examples": ["https://example.com/"]}),
    "title": Values(plain, {"type": "string", "examples": ["Spring"]}),
    "tag": Values(plain, {"type": "string", "examples": ["spring"]}),
    "folder": Values(plain, {"type": "string", "examples": ["campaigns"]}),
    "externalId": Values(plain, {"type": "string", "examples": ["crm-17"]}),
    "archived": Values(lambda text: _YES_OR_NO.read(text) == "true", _YES_OR_NO.schema),
    "search": Values(_searched, {"type": "string", "examples": ["spring"]}),
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
