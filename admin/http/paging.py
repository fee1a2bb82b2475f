"""Pages of lists: which one is asked for, and what is said about it."""

import re
from collections.abc import Mapping
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel

from admin.errors import Detail, Invalid

DEFAULT_SIZE = 20
MAX_SIZE = 100
_MAX_NUMBER = 10_000_000  # keeps what is computed from it a bigint


class Page(NamedTuple):
    """A page that was asked for."""

    number: int
    """Counted from 1."""
    size: int

    @property
    def offset(self) -> int:
        """Rows before this page."""
        return (self.number - 1) * self.size


class Pagination(BaseModel):
    """Where a page stands in its list."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True)

    page: int
    per_page: int
    total_pages: int
    total_count: int
    has_next_page: bool
    has_prev_page: bool


def requested_page(parameters: Mapping[str, str]) -> Page:
    """`page` and `perPage`, or `limit`, of a query string; sizes over 100 mean 100. Raises `Invalid`."""
    size_name = "perPage" if "perPage" in parameters else "limit"
    values, details = {}, []
    for name, default in (("page", 1), (size_name, DEFAULT_SIZE)):
        text = parameters.get(name, str(default))
        if re.fullmatch("[0-9]{1,9}", text) and 1 <= int(text) <= _MAX_NUMBER:
            values[name] = int(text)
        else:
            details.append(Detail(name, f"It must be a whole number from 1 to {_MAX_NUMBER}."))
    if details:
        raise Invalid(details=details)
    return Page(values["page"], min(values[size_name], MAX_SIZE))


def pagination(page: Page, total: int) -> Pagination:
    """What is said about a page of a list with `total` rows."""
    pages = -(-total // page.size)
    return Pagination(
        page=page.number,
        per_page=page.size,
        total_pages=pages,
        total_count=total,
        has_next_page=page.number < pages,
        has_prev_page=page.number > 1,
    )
