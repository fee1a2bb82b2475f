"""Columns: what a column of a file becomes in the fields of a link.

A column says something of one field or of several, and may find that another has said it already: then it is not heard.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from admin.links.transfer import values

ABSENT = object()
"""Nothing is said."""


class Column(NamedTuple):
    """What a column becomes."""

    field: str
    """Of a link, as it is reported."""
    read: Callable[[dict[str, Any], Any], None]
    """Puts what a cell says into the fields of a link. Raises ValueError."""
    empty: Any = ABSENT
    """What it means if there is nothing in it; only our own files say something by that."""


def one(field: str, read: Callable[[Any], Any], empty: Any = ABSENT) -> Column:
    """A column with the value of one field; where `read` finds None, nothing is said."""

    def put(fields: dict[str, Any], value: Any) -> None:
        if field not in fields and (found := read(value)) is not None:
            fields[field] = found

    return Column(field, put, empty)


def _split_address(fields: dict[str, Any], value: Any) -> None:
    hostname, path = values.address(value)
    fields.setdefault("hostname", hostname)
    fields.setdefault("path", path)


def _addresses(fields: dict[str, Any], value: Any) -> None:
    """Several names for one link are several links."""
    many = value if isinstance(value, list) else [value]
    if many:
        _split_address(fields, many[0])
        fields["others"] = [values.address(one) for one in many[1:]]


def _address_of_kutt(fields: dict[str, Any], value: Any) -> None:
    # An object for administrators, and text for everybody else.
    _split_address(fields, (value.get("url") or value.get("link")) if isinstance(value, dict) else value)


def _hostname(fields: dict[str, Any], value: Any) -> None:
    if name := value.get("fullName") if isinstance(value, dict) else value:
        fields.setdefault("hostname", values.text(name).strip())


def when(condition: str, wanted: str) -> Column:
    """A destination for some visitors."""

    def put(fields: dict[str, Any], value: Any) -> None:
        fields.setdefault("rules", []).append({"when": {condition: wanted}, "destination": values.text(value)})

    return Column("rules", put)


def _by_country(fields: dict[str, Any], value: Any) -> None:
    if not isinstance(value, dict):
        raise ValueError("It must be an object: destinations by country.")
    for country, destination in value.items():
        when("country", country).read(fields, destination)


def _by_device(fields: dict[str, Any], value: Any) -> None:
    if not isinstance(value, dict):
        raise ValueError("It must be an object: destinations by device.")
    for name, condition in (("ios", ("os", "ios")), ("android", ("os", "android")), ("desktop", ("device", "desktop"))):
        if value.get(name):
            when(*condition).read(fields, value[name])


def utm(name: str) -> Column:
    """A parameter that is set on the destination."""

    def put(fields: dict[str, Any], value: Any) -> None:
        fields.setdefault("utm", {})[name] = values.text(value)

    return Column("utm", put)


def _terms_of_shlink(fields: dict[str, Any], value: Any) -> None:
    if not isinstance(value, dict):
        raise ValueError("It must be an object.")
    for name, column in (("validSince", STARTS), ("validUntil", EXPIRES), ("maxVisits", LIMIT)):
        if value.get(name) is not None:
            column.read(fields, value[name])


def _visits(fields: dict[str, Any], value: Any) -> None:
    CLICKS.read(fields, value.get("total", 0) if isinstance(value, dict) else value)


def _is_protected(value: Any) -> bool | None:
    """A password, a hash of one, or whether there is one."""
    return True if str(value).strip().lower() not in ("", "false", "no", "0") else None


def flag(field: str, becomes: Any, wanted: bool = True) -> Column:
    """A field that has a value if the column is true, or if it is false."""

    def put(fields: dict[str, Any], value: Any) -> None:
        if values.boolean(value) is wanted:
            fields.setdefault(field, becomes)

    return Column(field, put)


def _status(value: Any) -> int | None:
    status = values.whole(value)
    return status if status in (301, 302, 307, 308) else None


ADDRESS = Column("hostname, path", _split_address)
HOSTNAME = Column("hostname", _hostname)
PATH = one("path", values.path)
DESTINATION = one("destination", values.text)
TITLE = one("title", values.text)
NOTES = one("notes", values.text)
FOLDER = one("folder", values.text)
TAGS = one("tags", values.tags)
TAGS_OF_SHLINK = one("tags", values.tags_of_shlink)
CLICKS = one("historicClicks", values.whole)
CREATED = one("createdAt", values.known_instant)
STARTS = one("startsAt", values.known_instant)
EXPIRES = one("expiresAt", values.known_instant)
LIMIT = one("clickLimit", values.whole)
FALLBACK = one("fallbackUrl", values.text)
ARCHIVED = flag("archived", True)
PASSWORD = one("hasPassword", _is_protected)

ADDRESSES = Column("hostname, path", _addresses)
ADDRESS_OF_KUTT = Column("hostname, path", _address_of_kutt)
BY_COUNTRY = Column("rules", _by_country)
BY_DEVICE = Column("rules", _by_device)
TERMS_OF_SHLINK = Column("startsAt, expiresAt, clickLimit", _terms_of_shlink)
VISITS = Column("historicClicks", _visits)
STATUS = one("redirectStatus", _status)
