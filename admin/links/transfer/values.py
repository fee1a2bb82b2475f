"""Values: what a column says, as a field of a link.

Each function takes the text of a cell, or what JSON has in its place. All raise ValueError with a sentence for the
person whose file it is. What is a matter of fields (lengths, normal forms, whether a host is free) is left to those who
know them.
"""

import re
from datetime import UTC, datetime
from typing import Any

import orjson

from admin.http.answers import instant as shown
from admin.links.transfer.texts import NUL

MAX_DEPTH = 64
"""Of objects and lists in each other."""

TOO_DEEP = f"It is nested more than {MAX_DEPTH} deep."

_UNKNOWN = "1970-01-01T"  # how some services write that they do not know
_GROUPED = re.compile(r"[0-9]+|[0-9]{1,3}(,[0-9]{3})+")
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)
_MOST = 2**53 - 1  # what JSON can say of a whole number
_MILLISECONDS_FROM = 10**11  # as seconds, that is in the year 5138
_SECONDS_FROM = 10**8  # in 1973; what is less is no instant, but perhaps a day without its dashes
_WORDS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


def text(value: Any) -> str:
    """Text as it is, whatever a spreadsheet would take it for."""
    if not isinstance(value, str):
        raise ValueError("It must be text.")
    return value


def boolean(value: Any) -> bool:
    """True or false, yes or no, 1 or 0."""
    said = _WORDS.get(str(value).strip().lower())
    if said is None:
        raise ValueError("It must be true or false.")
    return said


def whole(value: Any) -> int:
    """A whole number that is not negative; in text it may have commas between thousands."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    number = str(value).strip()
    if isinstance(value, bool) or not _GROUPED.fullmatch(number) or len(number) > 22:
        raise ValueError("It must be a whole number.")
    count = int(number.replace(",", ""))
    if count > _MOST:
        raise ValueError(f"It must be {_MOST} at most.")
    return count


def instant(value: Any) -> str:
    """An instant as the API writes it. Without a zone it is taken for UTC; a number is (milli)seconds since 1970."""
    try:
        at = _moment(value)
        return shown(at if at.tzinfo else at.replace(tzinfo=UTC))
    except (ValueError, OverflowError, OSError, TypeError) as error:
        raise ValueError("It must be a date such as 2026-01-31T09:30:00Z, or seconds since 1970.") from error


def known_instant(value: Any) -> str | None:
    """The same; None for a date that only stands for none."""
    at = instant(value)
    return None if at.startswith(_UNKNOWN) else at


def _moment(value: Any) -> datetime:
    if isinstance(value, str):
        value = value.strip()
        if not value.isdigit():
            if value[:1].isalpha():  # as JavaScript writes it, with the name of the zone behind
                return datetime.strptime(value.partition(" (")[0], "%a %b %d %Y %H:%M:%S GMT%z")
            return datetime.fromisoformat(value)
        value = int(value)
    if isinstance(value, bool) or 0 < value < _SECONDS_FROM:
        raise ValueError
    return datetime.fromtimestamp(value / 1000 if value >= _MILLISECONDS_FROM else value, UTC)


def address(value: Any) -> tuple[str, str]:
    """Hostname and path of a short URL, with or without its scheme; the path of a host's root is a slash."""
    host, _slash, path = _SCHEME.sub("", text(value).strip(), count=1).partition("/")
    if not host:
        raise ValueError("It must be a short URL, such as https://go.example.com/spring.")
    return host, "/" + path


def path(value: Any) -> str:
    """A path, whatever slashes there are around it."""
    return "/" + text(value).strip().strip("/")


def tags(value: Any, separator: str = ",") -> list[str]:
    """Tags of a list (of texts, or of objects with a name) or of one cell; each once, none empty."""
    if isinstance(value, list):
        found = [text(one.get("name") if isinstance(one, dict) else one) for one in value]
    else:
        found = text(value).split(separator)
    return list(dict.fromkeys(tag for one in found if (tag := one.strip())))


def tags_of_shlink(value: Any) -> list[str]:
    """As Shlink reads them itself: by commas, or where there is none by bars."""
    return tags(value, "|" if isinstance(value, str) and "," not in value else ",")


def own_tags(value: Any) -> list[str]:
    """The inverse of `joined`."""
    if isinstance(value, str) and value.startswith("["):
        value = json(value)
    return [text(tag) for tag in value] if isinstance(value, list) else tags(value)


def joined(many: list[str]) -> str:
    """Tags as people write them, unless they would be read as others; then as JSON. Nothing for none."""
    plain = ", ".join(many)
    return plain if not plain.startswith("[") and tags(plain) == many else orjson.dumps(many).decode()


def json(value: Any) -> Any:
    """What JSON in a cell says; what is no text has been read already."""
    if not isinstance(value, str):
        return value
    try:
        found = orjson.loads(value)
    except orjson.JSONDecodeError as error:
        raise ValueError("It must be JSON.") from error
    if flaw := flaw_of(found):
        raise ValueError(flaw)
    return found


def flaw_of(value: Any, depth: int = 1) -> str:
    """Why nobody can store what was read as JSON; empty if somebody might."""
    if isinstance(value, str):
        return NUL if "\0" in value else ""
    if depth > MAX_DEPTH:
        return TOO_DEEP
    inner = [*value, *value.values()] if isinstance(value, dict) else value if isinstance(value, list) else ()
    return next((flaw for one in inner if (flaw := flaw_of(one, depth + 1))), "")
