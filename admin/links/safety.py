"""Safety: where no link may lead by the word of the operator, and hosts that only look like others.

Rules of this file:

1. What is blocked is a pattern. One without a slash means a host with all below it; behind a slash stands a path, and
   behind a question mark a query, as the rest of what it means. `*` is any text, in place of the host also the begin of
   a path. No port counts, nor case, nor how characters are escaped; the query counts where a pattern has one.
2. A pattern is found by the end of the host of all that it means, so that thousands cost no more than a few. Those that
   mean any host are compared with everything: let them be few.
3. What is blocked is asked when a destination is chosen. Links that lead there already go on, unless they are reported
   with the pattern (reports.py). Whoever blocks waits for the changes that have not heard of it (`block`).
4. That a host looks like another one is only said. Most of those who have such a name mean no harm by it.
"""

import fnmatch
import re
import unicodedata
from collections.abc import Collection, Iterable, Iterator
from datetime import datetime
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import unquote

import can_ada

from admin.database import Connection
from admin.errors import ApiError, DestinationBlocked, Detail, Invalid
from admin.links.destinations import hostname_of

_PATTERN = re.compile(r"(?:(?P<scheme>https?)://)?(?P<host>[^/?#@]+)(?P<rest>/[^#]*)?", re.IGNORECASE)
_HOST_WITH_WILDCARDS = re.compile("[a-z0-9_.*-]+")
_MAX_LENGTH = 2000


class BadPattern(ValueError):
    """Why nothing can be blocked by a pattern, in words for the operator."""


class Pattern(NamedTuple):
    """What is blocked. `str()` of it is its normal form."""

    scheme: str
    """http or https; empty for both."""
    host: str
    rest: str
    """Path and query; empty for all of them."""

    @classmethod
    def of(cls, text: str) -> "Pattern":
        """Raises `BadPattern`."""
        if not text.isprintable() or len(text) > _MAX_LENGTH:
            raise BadPattern(f"A pattern is at most {_MAX_LENGTH} characters that can be printed.")
        parts = _PATTERN.fullmatch(text.strip())
        if parts is None:
            raise BadPattern("A pattern looks like example.com, example.com/login*, or *.example.com/*/login.php.")
        rest = (parts["rest"] or "").removesuffix("/") and parts["rest"]  # a host as it is copied from a browser
        pattern = cls((parts["scheme"] or "").lower(), _normal_host(parts["host"].rstrip(".")), rest)
        if not pattern.host.strip("*.") and not pattern.rest.strip("/*"):
            raise BadPattern("This pattern would block every destination.")
        return pattern

    def __str__(self) -> str:
        return f"{self.scheme and self.scheme + '://'}{self.host}{self.rest}"

    @property
    def end_of_host(self) -> str:
        """What the host of everything that it means is, or ends in behind a dot; empty for any host."""
        return self.host.rpartition("*")[2].partition(".")[2] if "*" in self.host else self.host

    def means(self, destination: str) -> bool:
        """Whether it means this destination, which is in normal form."""
        url, hostname = can_ada.parse(destination), hostname_of(destination)
        if self.scheme and url.protocol != f"{self.scheme}:":
            return False
        if not (_glob(self.host).match(hostname) if "*" in self.host else self.host in _ends(hostname)):
            return False
        begin = "*" if self.host == "*" else ""
        rest = url.pathname + url.search if "?" in self.rest else url.pathname
        return not self.rest or _glob(begin + _plain(self.rest)).match(_plain(rest)) is not None


class Blocked(NamedTuple):
    """A row of blocked_destinations."""

    pattern: str
    reason: str
    created_at: datetime


async def block(connection: Connection, pattern: Pattern, reason: str) -> None:
    """Have no link lead there. Of a pattern that is known, the reason is changed.

    When the transaction has committed, so have all that did not know of it.
    """
    await connection.execute("/* safety.block */ lock table blocked_destinations in access exclusive mode")
    await connection.execute(
        """
        /* safety.block */
        insert into blocked_destinations (pattern, host, reason) values ($1, $2, $3)
        on conflict (pattern) do update set reason = excluded.reason""",
        str(pattern),
        pattern.end_of_host,
        reason,
    )


async def unblock(connection: Connection, pattern: Pattern) -> bool:
    """Whether it was blocked."""
    done = await connection.execute(
        "/* safety.unblock */ delete from blocked_destinations where pattern = $1", str(pattern)
    )
    return done == "DELETE 1"


async def blocks(connection: Connection) -> list[Blocked]:
    """All that is blocked, by pattern."""
    rows = await connection.fetch(
        "/* safety.blocks */ select pattern, reason, created_at from blocked_destinations order by pattern"
    )
    return [Blocked(**row) for row in rows]


async def blocked(connection: Connection, destinations: Collection[str]) -> set[str]:
    """Those of these destinations that are blocked, until this transaction ends."""
    ends = {one: _ends(hostname_of(one)) for one in destinations}
    rows = await connection.fetch(
        "/* safety.blocked */ select host, pattern from blocked_destinations where host = any($1)",
        list({end for each in ends.values() for end in each}),
    )
    patterns: dict[str, list[Pattern]] = {}
    for row in rows:
        patterns.setdefault(row["host"], []).append(_of_row(row["pattern"]))
    return {
        destination
        for destination, each in ends.items()
        if any(pattern.means(destination) for end in each for pattern in patterns.get(end, ()))
    }


def refusal(found: list[Detail], destinations: Iterable[tuple[str, str]], blocked: set[str]) -> ApiError | None:
    """What is answered to destinations, by the names of their fields, beside what else was found to be wrong."""
    details = [Detail(field, "This destination is blocked.") for field, one in destinations if one in blocked]
    if found:
        return Invalid(details=[*found, *details])
    return DestinationBlocked(details=details) if details else None


@lru_cache(maxsize=10_000)
def _of_row(text: str) -> Pattern:
    return Pattern.of(text)


def _normal_host(text: str) -> str:
    if "*" in text:
        host = text.lower()
        if not _HOST_WITH_WILDCARDS.fullmatch(host):
            raise BadPattern("A host with a * in it is written in ASCII (xn--…), without a port.")
        return host
    try:
        url = can_ada.parse(f"http://{text}/")
    except ValueError as error:
        raise BadPattern(f"{text} is no host.") from error
    if re.search(r":[0-9]*$", text):
        raise BadPattern("A port is no part of a pattern; it means all of them.")
    return str(url.hostname)


def _ends(hostname: str) -> list[str]:
    """A host, those above it, and any."""
    labels = hostname.split(".")
    return [*(".".join(labels[start:]) for start in range(len(labels))), ""]


def _plain(rest: str) -> str:
    """Without case and escapes."""
    return unquote(rest).lower()


@lru_cache(maxsize=10_000)
def _glob(text: str) -> re.Pattern[str]:
    # The library's expression never tries a piece again, so no text takes long.
    return re.compile(fnmatch.translate(text.replace("[", "[[]").replace("?", "[?]")))


# Letters that are drawn like a Latin one, in lower case as hosts are. UTS 39 has thousands; these are in alphabets.
_LOOKS_LIKE = str.maketrans(
    "асԁеһіјӏорԛѕԝхуүѵ" + "ικνορυ" + "ացհոօսզ" + "ɑɡı",
    "acdehijlopqswxyyv" + "iknopu" + "wghnouq" + "agi",
)
_LIKE_LATIN = {"CYRILLIC", "GREEK", "ARMENIAN", "CHEROKEE", "LISU", "COPTIC"}
_WRITTEN_TOGETHER = ({"CJK", "HIRAGANA", "KATAKANA"}, {"CJK", "BOPOMOFO"}, {"CJK", "HANGUL"})


def lookalikes(destinations: Iterable[tuple[str, str]]) -> Iterator[str]:
    """What the owner of a link is told of hosts that look like others, by the name of the field."""
    for field, destination in destinations:
        hostname = hostname_of(destination)
        if "xn--" in hostname and (why := _why_alike(_as_read(hostname))):
            yield f"The host of {field}, {hostname}, is read as {_as_read(hostname)}: {why}."


def _as_read(hostname: str) -> str:
    """As people read it. The parser of destinations has let only well-formed labels through."""
    labels = hostname.split(".")
    return ".".join(
        label.removeprefix("xn--").encode().decode("punycode") if label.startswith("xn--") else label
        for label in labels
    )


def _why_alike(hostname: str) -> str | None:
    """Of labels that mix scripts as no language does, or are of letters that all look Latin (UTS 39 §5.2, §4)."""
    for label in hostname.split("."):
        if is_mixed(label):
            return "it mixes alphabets, as imitations of other names do"
        if not label.isascii():
            seen = label.translate(_LOOKS_LIKE)
            if seen.isascii():
                return f"it can be taken for {seen}"
    return None


def is_mixed(label: str) -> bool:
    """Whether the letters of a label are of scripts that are not written together.

    Latin is written with any one other script, but not with those whose letters look like its own.
    """
    names = [unicodedata.name(letter, "") for letter in label if unicodedata.category(letter) in ("Ll", "Lo")]
    scripts = {re.split("[ -]", name)[0] for name in names}
    others = scripts - {"LATIN"}
    if len(others) > 1:
        return not any(others <= together for together in _WRITTEN_TOGETHER)
    return "LATIN" in scripts and bool(others & _LIKE_LATIN)
