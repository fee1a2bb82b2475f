"""Links as edge and admin agree on them: the address, its one normal form, and what Redis holds for it.

Rules of this file:

1. An `Address` is always in normal form. Whoever has text from outside goes through `normal_hostname` and
   `normal_path`; two spellings that a browser treats as one give one address, and normalising twice changes nothing.
2. Redis holds one value per address under `Address.key`: the version of the last change there, and the entry
   (entries.py) that lives there, or nothing after a deletion. So it does per host, under `host_key`.
3. Pure: no I/O, no clock.
"""

import re
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import quote_from_bytes, unquote_to_bytes

import idna

from shared.entries import Entry, HostEntry

HOST_PREFIX = "host:"

MARKER_KEY = "links:complete"
"""Says that every link is in Redis (`Marker`); missing or of another Redis run: misses are not certain."""

CHANGES_STREAM = "links:changes"
"""Every published change, in order. Its ids are `N-0`, N one more than the one before: a jump is a loss."""

CHANGES_COUNTER = "links:changes:last"
"""The N of the newest change."""

UNCOUNTED_KEY = "uses:uncounted"
"""The ids of links with a click limit whose uses Redis does not know, and somebody has asked."""

PREVIEW_MARK = "+"
"""At the end of a path it asks where the link leads, and does not follow it."""

MAX_PATH_LENGTH = 2048
"""Characters of a path in normal form."""

PROOF_PATH = "/.well-known/linkwire-verification"
"""Where a host shows whose it is (`HostEntry.proof`)."""

# RFC 3986 pchar beside the unreserved characters, which quote_from_bytes keeps by itself.
_KEPT_IN_PATH = "!$&'()*+,;=:@"
_HOST_LABEL = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_HOSTNAME = re.compile(rf"{_HOST_LABEL}(?:\.{_HOST_LABEL})*")
_RESERVED_PATHS = frozenset({"/", "/healthz", "/readyz", "/robots.txt", "/favicon.ico", "/.well-known"})


class BadAddress(ValueError):
    """A hostname or path that has no normal form; the message says why, in words for the person who sent it."""


class Address(NamedTuple):
    """What a visitor asks for, in normal form. Make one with `address`."""

    hostname: str
    path: str

    @property
    def key(self) -> str:
        """The name of this address in Redis. A path begins with a slash, so no two addresses share a key."""
        return f"link:{self.hostname}{self.path}"

    @classmethod
    def of_key(cls, key: str) -> "Address":
        """The address whose `key` this is."""
        hostname, slash, path = key.removeprefix("link:").partition("/")
        return cls(hostname, slash + path)


def host_key(hostname: str) -> str:
    """The name of a host in Redis."""
    return HOST_PREFIX + hostname


def uses_key(run: str, link_id: int) -> str:
    """Where a run of the Redis server counts the uses of a link with a click limit."""
    return f"uses:{run}:{link_id}"


def address(host: str, path: bytes) -> Address:
    """The address of a request on a host without a policy: its Host header and its raw path without the query.

    Raises `BadAddress`.
    """
    return Address(host_of(host), normal_path(path))


def orphans_key(hostname: str) -> str:
    """The sorted set of the paths of a host that visitors ask for and no link has, by how often."""
    return f"orphans:{hostname}"


def host_of(header: str) -> str:
    """The hostname of a Host header. Raises `BadAddress`: clients send names in their IDNA form (RFC 9110 §7.2)."""
    if not header.isascii():
        raise BadAddress("A Host header is ASCII.")
    return normal_hostname(header)


@lru_cache(maxsize=4096)
def normal_hostname(host: str) -> str:
    """Lower case, IDNA (UTS 46) as ASCII, without port and trailing dot.

    Raises `BadAddress` for whatever is not a DNS name (RFC 1035 lengths; `_` is accepted, as browsers do).
    """
    name, _colon, port = host.partition(":")
    if port and not (port.isascii() and port.isdigit() and len(port) <= 5):
        raise BadAddress("A hostname is a DNS name; IPv6 addresses and other text after a colon are not.")
    if name.isascii():
        name = name.lower()
    else:
        try:
            name = idna.encode(name, uts46=True).decode("ascii")
        except (idna.IDNAError, UnicodeError) as error:
            raise BadAddress("The hostname is not a valid internationalised domain name.") from error
    name = name.removesuffix(".")
    if len(name) > 253 or not _HOSTNAME.fullmatch(name):
        raise BadAddress("The hostname is not a valid domain name.")
    return name


def normal_path(path: bytes, *, keeps_slash: bool = False) -> str:
    """The one spelling of a path: RFC 3986 pchar stays as it is, everything else is `%XX` in upper case.

    Escapes of characters that need none are decoded (`%41` is `A`), `%2F` is not a slash, a `%` that begins no escape
    becomes `%25`, dot segments are resolved, and one trailing slash is ignored unless the host `keeps_slash`. Empty
    segments are kept.
    """
    resolved: list[str] = []
    segments = [quote_from_bytes(unquote_to_bytes(segment), safe=_KEPT_IN_PATH) for segment in path.split(b"/")[1:]]
    for number, segment in enumerate(segments, start=1):
        if segment not in (".", ".."):
            resolved.append(segment)
            continue
        if segment == ".." and resolved:
            resolved.pop()
        if number == len(segments):
            resolved.append("")
    if not keeps_slash and len(resolved) > 1 and resolved[-1] == "" and resolved[-2] != "":
        resolved.pop()
    return "/" + "/".join(resolved)


def path_under(host: HostEntry, path: bytes) -> str:
    """The one spelling of a path on a host with this policy."""
    normal = normal_path(path, keeps_slash=host.keeps_slash)
    return fold(normal) if host.folds_case else normal


def fold(path: str) -> str:
    """The one spelling of a path in normal form on a host that does not tell upper case from lower case.

    It is the lower case of Unicode, also of what is escaped as UTF-8: `/%C3%84` becomes `/%C3%A4`. What is escaped
    stays escaped, and the path stays in normal form.
    """
    if "%" not in path:
        return path.lower()
    return "/".join(_folded(segment) for segment in path.split("/"))


def _folded(segment: str) -> str:
    text = unquote_to_bytes(segment).decode(errors="surrogateescape").lower()
    return quote_from_bytes(text.encode(errors="surrogateescape"), safe=_KEPT_IN_PATH)


def is_reserved(path: str) -> bool:
    """Whether a path in normal form is kept back on every host and can't be a link."""
    return (
        path in _RESERVED_PATHS
        or path.startswith("/.well-known/")
        or path == "/.well-known"
        or path.endswith(PREVIEW_MARK)
    )


class Published(NamedTuple):
    """What Redis holds for an address: `entry` is None after a deletion."""

    version: int
    entry: Entry | None

    def to_bytes(self) -> bytes:
        """The version in decimal, a space, and the entry (nothing after a deletion)."""
        return b"%d %s" % (self.version, self.entry.to_bytes() if self.entry else b"")

    @classmethod
    def from_bytes(cls, value: bytes) -> "Published":
        """The inverse of `to_bytes`. Raises ValueError for anything else."""
        version, _, body = value.partition(b" ")
        return cls(int(version), Entry.from_bytes(body) if body else None)


class PublishedHost(NamedTuple):
    """What Redis holds for a host under `host_key`: `entry` is None when it has none (any more)."""

    version: int
    entry: HostEntry | None

    def to_bytes(self) -> bytes:
        """As for links."""
        return b"%d %s" % (self.version, self.entry.to_bytes() if self.entry else b"")

    @classmethod
    def from_bytes(cls, value: bytes) -> "PublishedHost":
        """The inverse of `to_bytes`. Raises ValueError for anything else."""
        version, _, body = value.partition(b" ")
        return cls(int(version), HostEntry.from_bytes(body) if body else None)


class Marker(NamedTuple):
    """The completeness marker: the epoch of the set, and the run of the Redis server it was completed on.

    A Redis that was started again may hold an older state; its `run_id` differs then, and the marker is void.
    """

    epoch: str
    run_id: str

    def to_bytes(self) -> bytes:
        """Both, separated by a space."""
        return f"{self.epoch} {self.run_id}".encode()

    @classmethod
    def from_bytes(cls, value: bytes) -> "Marker":
        """The inverse of `to_bytes`. Raises ValueError for anything else."""
        epoch, run_id = value.decode().split(" ")
        return cls(epoch, run_id)

    @classmethod
    def epoch_of(cls, value: bytes | None, run_id: str) -> str | None:
        """The epoch of the complete set on a server with this run id, or None while there is none."""
        if value is None:
            return None
        marker = cls.from_bytes(value)
        return marker.epoch if marker.run_id == run_id else None
