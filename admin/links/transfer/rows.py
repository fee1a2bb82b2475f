"""Rows: what comes out of a file of links."""

from typing import Any, NamedTuple


class Row(NamedTuple):
    """A link as a file has it, in the words of the API; whether the API would take it is not known yet."""

    line: int
    """Where it begins in the file, from 1; in a JSON document, which link it is."""
    fields: dict[str, Any]
    """As in the body of a POST, with `id`, `createdAt` and `hasPassword` where the file tells them.

    A field is missing where the file says nothing of it. It is None where our own export says that there is none.
    """
    historic_clicks: int
    """What was counted where the link comes from; 0 if the file does not tell."""


class Refused(NamedTuple):
    """Why there is no link in a line, for the person whose file it is; a line may be refused for several reasons."""

    line: int
    column: str
    """As the file names it; empty for the line as a whole."""
    reason: str


class NotReadable(Exception):
    """Why nothing in a file can be read as links, for the person whose file it is."""


class Record(NamedTuple):
    """A line of a file, or an object of it, before anybody has looked at what it says."""

    line: int
    values: dict[str, Any]
    """By the name of the column; None for what is empty."""
    flaw: str = ""
    """Why there are no values."""
