"""The fields of a domain as they are sent."""

import re
from typing import Annotated, Any

import orjson
from pydantic import AfterValidator, Field

from admin.http.fields import Change, Fields, documented
from admin.links.fields import Destination
from shared.links import normal_hostname

_MAX_ROBOTS = 10_000
_MAX_DOCUMENT = 32 * 1024
_TEXT = "^[^\\u0000-\\u0008\\u000b\\u000c\\u000e-\\u001f\\u007f]*$"


def _hostname(text: str) -> str:
    hostname = normal_hostname(text)
    if re.search(r"(^|\.)\d+$", hostname):
        raise ValueError("An address is no hostname; nobody can have it for their own.")
    return hostname


def _document(value: Any) -> Any:
    if len(orjson.dumps(value)) > _MAX_DOCUMENT:
        raise ValueError(f"It may have {_MAX_DOCUMENT} bytes as JSON.")
    return value


class NewDomain(Fields):
    """What POST takes."""

    hostname: Annotated[str, AfterValidator(_hostname), documented(format="idn-hostname")]


class DomainChange(Change):
    """What PATCH takes: fields that are not sent stay as they are, null takes away what is served."""

    is_default: bool = False
    case_sensitive: bool = True
    ignore_trailing_slash: bool = True
    root_url: Destination | None = None
    not_found_url: Destination | None = None
    expired_url: Destination | None = None
    robots_txt: Annotated[str, Field(min_length=1, max_length=_MAX_ROBOTS, pattern=_TEXT)] | None = None
    favicon_url: Destination | None = None
    apple_app_site_association: Annotated[dict[str, Any], AfterValidator(_document)] | None = None
    assetlinks: Annotated[list[dict[str, Any]], AfterValidator(_document)] | None = None

    @property
    def destinations(self) -> list[tuple[str, str]]:
        """Everywhere it sends visitors, by the name of the field that says so."""
        named = [
            ("rootUrl", self.root_url),
            ("notFoundUrl", self.not_found_url),
            ("expiredUrl", self.expired_url),
            ("faviconUrl", self.favicon_url),
        ]
        return [(name, destination) for name, destination in named if destination]

    def columns(self) -> dict[str, Any]:
        """What was sent, as columns."""
        columns = self.model_dump(exclude_unset=True)
        for name, column in (("case_sensitive", "folds_case"), ("ignore_trailing_slash", "keeps_slash")):
            if name in columns:
                columns[column] = not columns.pop(name)
        for name in ("apple_app_site_association", "assetlinks"):
            if columns.get(name) is not None:
                columns[name] = orjson.dumps(columns[name]).decode()
        return columns
