"""Entries: what Redis holds for an address and for a host, and their bytes, both directions of each.

Rules of this file:

1. An entry holds what the edge needs, and no more. What a link leaves at its default is not in the bytes: a plain link
   is an id, an organization and a destination.
2. What is read is checked. Destinations are visible ASCII, because they are sent as they are, in a header.
3. Pure: no I/O, no clock. What the terms mean is said in rules.py.
"""

import re
from typing import Any, NamedTuple, TypeVar

import orjson

_T = TypeVar("_T", bound=Any)

# What a destination is sent as, unchanged, in a header.
_VISIBLE = re.compile(r"[!-~]+")
_ROBOTS = re.compile(r"[a-z0-9_:, -]*")
_KEY = re.compile(r"[0-9a-f]{32}")

STATUSES = (301, 302, 307, 308)
STATES = ("archived", "disabled", "reported")
"""Why a link may be at rest."""

QUERY_POLICIES = ("none", "append", "override")
"""What becomes of the parameters a visitor sent: nothing; they are added; they replace those of the same name."""


class Rule(NamedTuple):
    """Where those visitors go who meet every condition."""

    id: int
    """Of this rule of this link, for its clicks; never used again."""
    when: dict[str, list[Any]]
    """Condition -> the values of which one must hold (rules.py says what each means)."""
    destination: str


class Variant(NamedTuple):
    """One of several destinations between which visitors are divided."""

    id: int
    """As a rule's; rules and variants of a link share their numbers."""
    weight: int
    destination: str


class Preview(NamedTuple):
    """What those are shown who make a picture of a link: the crawlers of social networks and messengers."""

    title: str = ""
    description: str = ""
    image: str = ""


class Terms(NamedTuple):
    """What a visit of a link depends on that is not plain."""

    state: str = ""
    """One of `STATES`, or empty."""
    starts_at_ms: int | None = None
    expires_at_ms: int | None = None
    click_limit: int | None = None
    fallback: str = ""
    """Where visitors go for whom the link is not (any more)."""
    password_hash: str = ""
    """argon2id, encoded."""
    query_policy: str = "none"
    click_id_parameter: str = ""
    """The name under which the destination is told the id of the click."""
    rules: tuple[Rule, ...] = ()
    variants: tuple[Variant, ...] = ()
    preview: Preview = Preview()
    click_id_key: str = ""
    """What the ids of clicks are sealed with (click_ids.py); without it none is told."""


PLAIN = Terms()
"""No terms at all."""


class Entry(NamedTuple):
    """What the edge needs to know of a link."""

    link_id: int
    organization_id: int
    destination: str
    status: int = 302
    cache_s: int = 0
    """How long a browser may keep the answer; 0: not at all."""
    robots: str = ""
    """The value of X-Robots-Tag."""
    terms: Terms = PLAIN

    @property
    def is_plain(self) -> bool:
        """Whether every visitor gets the same answer."""
        return self.terms == PLAIN

    def to_bytes(self) -> bytes:
        """As JSON."""
        fields: dict[str, Any] = {"id": self.link_id, "org": self.organization_id, "to": self.destination}
        if self[3:] != _DEFAULTS:
            fields |= _other_than_default(self, ("status", "cache_s", "robots"))
        if self.terms != PLAIN:
            fields["terms"] = terms = _other_than_default(self.terms, Terms._fields)
            for name in ("rules", "variants"):
                if name in terms:
                    terms[name] = [list(part) for part in terms[name]]
            if "preview" in terms:
                terms["preview"] = _other_than_default(self.terms.preview, Preview._fields)
        return orjson.dumps(fields)

    @classmethod
    def from_bytes(cls, value: bytes) -> "Entry":
        """The inverse of `to_bytes`. Raises ValueError for anything else."""
        match orjson.loads(value):
            case {"id": int(link_id), "org": int(organization_id), "to": str(destination), **more}:
                terms = _terms(more.pop("terms")) if "terms" in more else PLAIN
                entry = cls(link_id, organization_id, destination, terms=terms)
                if more:
                    entry = _checked(entry, more)
                _check_destination(destination)
                if destination and entry.status in STATUSES and _ROBOTS.fullmatch(entry.robots):
                    return entry
        raise ValueError("an entry has an id, an organization, a destination, and a status that redirects")


_DEFAULTS = Entry(0, 0, "")[3:]


class HostEntry(NamedTuple):
    """What the edge needs to know of a host."""

    organization_id: int | None = None
    """None for the default domain, which is everybody's."""
    folds_case: bool = False
    """Paths are compared without case."""
    keeps_slash: bool = False
    """A path with a slash at its end is another one than without."""
    root: str = ""
    """Where `/` leads."""
    not_found: str = ""
    """Where visitors go who found nothing."""
    expired: str = ""
    """Where visitors go whose link is not there any more, unless it says so itself."""
    robots_txt: str = ""
    favicon: str = ""
    """Where `/favicon.ico` leads."""
    apple_app_site_association: str = ""
    """The JSON documents that let apps open links of this host."""
    assetlinks: str = ""
    proof: str = ""
    """What is told under `/.well-known/linkwire-verification` while somebody proves that the host is theirs."""

    def to_bytes(self) -> bytes:
        """As JSON."""
        return orjson.dumps(_other_than_default(self, self._fields))

    @classmethod
    def from_bytes(cls, value: bytes) -> "HostEntry":
        """The inverse of `to_bytes`. Raises ValueError for anything else."""
        fields = orjson.loads(value)
        if not isinstance(fields, dict):
            raise ValueError("a host is a JSON object")
        host = _checked(cls(), {name: text for name, text in fields.items() if name != "organization_id"})
        organization_id = fields.get("organization_id")
        if not isinstance(organization_id, int | None):
            raise ValueError("an organization is a number")
        for destination in (host.root, host.not_found, host.expired, host.favicon):
            _check_destination(destination)
        return host._replace(organization_id=organization_id)


def _terms(fields: Any) -> Terms:
    match fields:
        case {**given}:
            pass
        case _:
            raise ValueError("terms are a JSON object")
    special: dict[str, Any] = {}
    for name, kind in (("rules", Rule), ("variants", Variant)):
        if name in given:
            special[name] = tuple(_part(kind, part) for part in _list(given.pop(name)))
    if "preview" in given:
        special["preview"] = _checked(Preview(), given.pop("preview"))
    for name in ("starts_at_ms", "expires_at_ms", "click_limit"):
        if name in given:
            special[name] = given.pop(name)
            if type(special[name]) is not int:
                raise ValueError(f"{name} is a number")
    terms = _checked(PLAIN, given)._replace(**special)
    if terms.state not in ("", *STATES) or terms.query_policy not in QUERY_POLICIES:
        raise ValueError("terms have a state and a query policy that are known")
    if terms.click_id_key and not _KEY.fullmatch(terms.click_id_key):
        raise ValueError("the key of click ids has 32 hexadecimal digits")
    _check_destination(terms.fallback)
    return terms


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise ValueError("rules and variants are lists")
    return value


def _part(kind: Any, values: Any) -> Any:
    types = (int, dict, str) if kind is Rule else (int, int, str)
    if not isinstance(values, list) or tuple(type(value) for value in values) != types:
        raise ValueError("a rule or a variant is a list of three")
    part = kind(*values)
    if not part.destination:
        raise ValueError("a rule or a variant has a destination")
    _check_destination(part.destination)
    return part


def _check_destination(text: str) -> None:
    if text and not _VISIBLE.fullmatch(text):
        raise ValueError("a destination has visible ASCII characters")


def _other_than_default(values: Any, names: tuple[str, ...]) -> dict[str, Any]:
    defaults = values._field_defaults
    return {name: getattr(values, name) for name in names if getattr(values, name) != defaults[name]}


def _checked(values: _T, fields: Any) -> _T:
    """With these fields, each of the type it has there already."""
    if not isinstance(fields, dict):
        raise ValueError("there must be a JSON object")
    for name, value in fields.items():
        if name not in values._fields or type(value) is not type(getattr(values, name)):
            raise ValueError(f"there is no {name}, or it has another type")
    changed: _T = values._replace(**fields)
    return changed
