"""Writing: our own export, a batch of links at a time, so that any number of them needs the memory of one batch.

A file is `CSV_HEAD` and then any number of `to_csv`, or any number of `to_json_lines`. Links are as the API shows them;
what is no column (`own.COLUMNS`) is left out. Reading what was written gives the same fields.
"""

import csv
import io
from collections.abc import Iterable, Mapping
from typing import Any

import orjson

from admin.links.transfer.cells import guarded
from admin.links.transfer.own import COLUMNS
from admin.links.transfer.values import joined

# The byte order mark is for spreadsheets, which take a file without one for anything but UTF-8.
CSV_HEAD = ("\ufeff" + ",".join(COLUMNS) + "\r\n").encode()
"""The first line."""


def to_csv(links: Iterable[Mapping[str, Any]]) -> bytes:
    """The lines of these links (RFC 4180, UTF-8). A spreadsheet takes nothing in them for a formula."""
    out = io.StringIO()
    csv.writer(out).writerows([_cell(name, link[name]) for name in COLUMNS] for link in links)
    return out.getvalue().encode()


def to_json_lines(links: Iterable[Mapping[str, Any]]) -> bytes:
    """A line for each link (JSON Lines, UTF-8)."""
    return b"".join(orjson.dumps({name: link[name] for name in COLUMNS}) + b"\n" for link in links)


def _cell(name: str, value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return guarded(value)
    if name == "tags":
        return joined(value) and guarded(joined(value))
    return str(value) if isinstance(value, int) else orjson.dumps(value).decode()
