"""What lists of links can be filtered and sorted by, and the ways in which a client may write a filter."""

from collections.abc import Callable
from typing import Any

import orjson

from admin.errors import Detail
from admin.http.fields import plain
from admin.http.lists import Filter, Values, one_of, since, until
from admin.links.destinations import normal_destination
from admin.links.fields import normal_link_path
from shared.entries import HostEntry
from shared.links import normal_hostname, path_under

_YES_OR_NO = one_of("true", "false")


def _searched(text: str) -> str:
    """As an argument of `like`, which finds it anywhere."""
    escaped = plain(text).replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    return f"%{escaped}%"


def _spellings(text: str) -> list[str]:
    """What a path is on hosts that tell cases apart or not, and ignore a slash at its end or keep it."""
    path = normal_link_path(text).encode()
    return [
        path_under(HostEntry(folds_case=folds, keeps_slash=keeps), path)
        for keeps in (False, True)
        for folds in (False, True)
    ]


def _example(read: Callable[[str], Any], example: str) -> Values:
    return Values(read, {"type": "string", "examples": [example]})


# Few are dead: they are found first, by their index. As many may be ok as there are links, so it is asked of each link;
# not with `in`, for which Postgres might go through all of a long list for each. $1 is the organization.
_HAS_DESTINATION_STATUS = """
    ({} = 'dead' and id = any(array(
        select link_id from destination_checks join links as dead on dead.id = link_id
         where status = 'dead' and dead.organization_id = $1))
     or {} = 'ok' and exists (select from destination_checks where link_id = links.id and status = 'ok')
     or {} = 'unchecked'
        and not exists (select from destination_checks where link_id = links.id and status <> 'unchecked'))"""

_HAS_PATH = """
    path = any({}::text[]) and path = ({}::text[])[(
        select 1 + folds_case::int + 2 * keeps_slash::int from domains where domains.hostname = links.hostname)]"""

FILTERS = {
    "hostname": Filter("hostname = {}", _example(normal_hostname, "go.example.com"), "Only links on this hostname."),
    "path": Filter(
        _HAS_PATH,
        _example(_spellings, "/spring"),
        "Only links with this path, as their host compares paths.",
    ),
    "destination": Filter(
        "md5(destination) = md5({}) and destination = {}",
        _example(lambda text: normal_destination(text, may_be_private=True), "https://example.com/"),
        "Only links that lead here.",
    ),
    "destinationStatus": Filter(
        _HAS_DESTINATION_STATUS,
        one_of("unchecked", "ok", "dead"),
        "Only links whose destination was found like this.",
    ),
    "title": Filter("title = {}", _example(plain, "Spring"), "Only links with this title."),
    "tag": Filter("tags @> array[{}]", _example(plain, "spring"), "Only links with this tag."),
    "folder": Filter("folder = {}", _example(plain, "campaigns"), "Only links in this folder."),
    "externalId": Filter("external_id = {}", _example(plain, "crm-17"), "Only the link with this external id."),
    "archived": Filter(
        "archived = {}",
        Values(lambda text: _YES_OR_NO.read(text) == "true", _YES_OR_NO.schema),
        "Only links that are archived, or that are not.",
    ),
    "search": Filter(
        "search like lower({})",
        _example(_searched, "spring"),
        "Only links with this text in their title, address, destination or notes, in any case.",
    ),
}
"""What lists can be filtered by. Values are brought to their normal form, as they are stored."""


LIST_FILTERS = {**FILTERS, "startDate": since("created_at"), "endDate": until("created_at")}
"""The same with a span, which is always written bare."""

SORTS = {
    "createdAt": "created_at",
    "updatedAt": "updated_at",
    "title": "coalesce(title, '')",  # nulls would be above all others
    "hostname": "hostname",
    "path": "path",
    "clicks": "coalesce((select total from link_counts where link_id = links.id), 0)",
}
"""What they can be sorted by."""


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
