"""Facts about a visitor, worked out from address and headers: pure, and cached where the same text comes often.

Rules of this file:

1. A fact is worked out when somebody asks for it. The libraries with the lists of agents and countries are imported
   then: a process that only serves plain links never carries them.
2. Of each text only as much is read as a click keeps, or a browser sends: facts don't depend on who works them out,
   and nobody can fill the memory.
3. A fact that can't be known is empty or `other`, never an error. Text has no lone surrogates.
"""

import re
from collections.abc import Callable
from functools import cache, cached_property, lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import NamedTuple
from urllib.parse import parse_qs, urlsplit

from shared.addresses import canonical
from shared.clicks import MAX_REFERRER, MAX_USER_AGENT
from shared.links import normal_hostname

PURPOSE_HEADERS = ("sec-purpose", "purpose", "x-purpose", "x-moz")
"""Where a browser says that nobody may ever look at what it asks for: `prefetch;prerender`. The first one is the
standard's (https://fetch.spec.whatwg.org/#sec-purpose-header), the others are those of browsers before it."""

DEVICES = ("mobile", "tablet", "desktop", "tv", "bot", "other")
"""An iPad since iPadOS 13 says that it is a Mac, and is a desktop here."""

SYSTEMS = ("ios", "android", "windows", "macos", "linux", "chromeos", "other")

BROWSERS = (
    *("chrome", "safari", "firefox", "edge", "opera", "samsung", "uc", "yandex"),
    *("facebook", "instagram", "tiktok"),  # that open links themselves
    "other",
)

MAX_PARAMETERS = 100
"""Of a query: what comes behind them is not read."""

# Anybody can send anything.
_READ_OF_ACCEPT_LANGUAGE = 256
_READ_OF_QUERY = 4096
_READ_OF_PURPOSE = 256

# As ua-parser says them: the name of a system, and the first word of the name of a browser.
_SYSTEMS = {
    "iOS": "ios",
    "Android": "android",
    "Windows": "windows",
    "Mac OS X": "macos",
    "Chrome OS": "chromeos",
}
_CHROMES = ("Chromium", "HeadlessChrome")
_TELEVISION = re.compile(r"TV(?![A-Za-z])|Web0S|NetCast|CrKey|Chromecast|Roku|BRAVIA|VIERA|\bAFT[A-Z]")
_LOOKS_AROUND = re.compile(r"\(\?<?[=!]")
_PHONES = ("Generic Smartphone", "Generic Feature Phone")

# An agent in which one of these comes later is an app that opens links for people.
_PREVIEWS_FIRST = re.compile(r"(?:whatsapp|viber|tumblr)\b", re.IGNORECASE)
_PREVIEWS = re.compile(
    r"facebookexternalhit|facebot|twitterbot|slackbot|slack-imgproxy|telegrambot|discordbot|linkedinbot"
    r"|pinterest(?:bot)?/[0-9]|skypeuripreview|microsoftpreview|redditbot|mastodon/|pleroma|akkoma|misskey|summalybot"
    r"|cardyb|vkshare|iframely|embedly|google-pagerenderer|developers\.google\.com/\+/web/snippet|synapse"
    r"|kakaotalk-scrap|line-poker|snap url preview|xing-contenttabreceiver|flipboardproxy|notionembedder",
    re.IGNORECASE,
)

_AHEAD = frozenset(("prefetch", "prerender", "preview"))

_TAG = r"[A-Za-z]{1,8}(?:[-_][A-Za-z0-9]{1,8})*"
# RFC 9110 §12.5.4: a language range of RFC 4647 §2.1, and its weight.
_LANGUAGE = re.compile(rf"({_TAG})(?:[ \t]*;[ \t]*[Qq]=(0(?:\.[0-9]{{0,3}})?|1(?:\.0{{0,3}})?))?")


class Visitor:
    """Who asks for a link, and when."""

    def __init__(
        self,
        address: str,
        user_agent: str,
        accept_language: str,
        referrer: str,
        query: str,
        at_ms: int,
        *,
        purpose: str = "",
        country: str | None = None,
        language: str | None = None,
    ) -> None:
        """`query` is as it was sent, without the question mark; `purpose` are the values of `PURPOSE_HEADERS`, with
        commas between. `country` and `language` (a value of Accept-Language) stand in for what the address and the
        header would say."""
        self.address = canonical(address)
        """Canonical, or empty."""
        self.user_agent = user_agent[:MAX_USER_AGENT]
        self.query = query
        self.at_ms = at_ms
        """Milliseconds since 1970, UTC."""
        self._accept_language = _whole_items(accept_language if language is None else language)
        self._referrer = referrer[:MAX_REFERRER]
        self._purpose = purpose
        self._country = None if country is None else country.upper()

    @property
    def country(self) -> str:
        """ISO 3166-1 alpha-2 in capitals: where the address is registered. Empty when nobody knows."""
        return country_of(self.address) if self._country is None else self._country

    @property
    def ip(self) -> IPv4Address | IPv6Address | None:
        """The address to compute with."""
        return _ip(self.address)

    @property
    def is_social_crawler(self) -> bool:
        """Whether the agent makes previews of links, for a social network or a messenger."""
        return makes_previews(self.user_agent)

    @property
    def is_automatic(self) -> bool:
        """Whether nobody looks: the agent is none that a person looks through, or it asks ahead of its person.

        Who asks ahead is no other device for it: what a browser has fetched it may show later.
        """
        return asks_ahead(self._purpose) or _is_program(self.user_agent)

    @property
    def device(self) -> str:
        """One of `DEVICES`; a bot is an agent that no person looks through."""
        return _agent(self.user_agent).device

    @property
    def os(self) -> str:
        """One of `SYSTEMS`."""
        return _agent(self.user_agent).os

    @property
    def browser(self) -> str:
        """One of `BROWSERS`."""
        return _agent(self.user_agent).browser

    @property
    def languages(self) -> tuple[str, ...]:
        """What the visitor reads, as `language_tag` writes it, the most wanted first."""
        return _languages(self._accept_language).all

    @property
    def preferred_languages(self) -> tuple[str, ...]:
        """Those of `languages` that are wanted as much as the first."""
        return _languages(self._accept_language).preferred

    @property
    def referrer_host(self) -> str:
        """The host the visitor comes from, in normal form. Empty without a referrer, and for one without a host."""
        return _host(self._referrer)

    @cached_property
    def parameters(self) -> dict[str, list[str]]:
        """The first parameters of the query, decoded: name -> values in their order."""
        first = self.query[:_READ_OF_QUERY].split("&")[:MAX_PARAMETERS]
        return parse_qs("&".join(first), keep_blank_values=True)


class _Agent(NamedTuple):
    device: str
    os: str
    browser: str


class _Languages(NamedTuple):
    all: tuple[str, ...]
    preferred: tuple[str, ...]


@lru_cache(maxsize=65536)
def is_bot(user_agent: str) -> bool:
    """Whether the agent names itself as something automatic. No agent at all is automatic too: browsers send one."""
    said = user_agent.strip()
    return not said or _crawlers().has(said)


class _Crawlers:
    """The lists of crawlerdetect, in the engine of ua-parser.

    Its own engine took 0.1 ms for a browser it had not seen, 8 for an app, and up to 90 for 512 bytes of anything,
    during which an edge answers nobody: any visitor could do that. This one takes 0.01, 0.1 and 0.4.
    """

    _TOGETHER = 100
    """Patterns in one expression: one by one they take ten times the memory."""

    def __init__(self) -> None:
        from crawlerdetect.providers import crawlers, exclusions
        from ua_parser_rs import DeviceExtractor

        self._passed_over = re.compile("|".join(exclusions.data), re.IGNORECASE)
        # What looks around, the engine does not know.
        others = [pattern for pattern in crawlers.data if _LOOKS_AROUND.search(pattern)]
        known = [pattern for pattern in crawlers.data if pattern not in others]
        self._others = re.compile("|".join(others) or "(?!)", re.IGNORECASE)
        parts = ("|".join(known[begin : begin + self._TOGETHER]) for begin in range(0, len(known), self._TOGETHER))
        self._known = DeviceExtractor((part, "i", "crawler", None, None) for part in parts)

    def has(self, user_agent: str) -> bool:
        """Whether one of the patterns is in what is left of an agent without the words of browsers."""
        rest = self._passed_over.sub("", user_agent)
        return bool(rest) and (self._known.extract(rest) is not None or self._others.search(rest) is not None)


@cache
def _crawlers() -> _Crawlers:
    return _Crawlers()


@lru_cache(maxsize=16384)
def makes_previews(user_agent: str) -> bool:
    """Whether the agent names itself as one that fetches a link in order to show what it leads to."""
    return bool(_PREVIEWS_FIRST.match(user_agent) or _PREVIEWS.search(user_agent))


def _is_program(user_agent: str) -> bool:
    return makes_previews(user_agent) or is_bot(user_agent)


def asks_ahead(purpose: str) -> bool:
    """Whether the values of `PURPOSE_HEADERS` say that a browser fetches what its person may never look at."""
    return bool(purpose) and not _AHEAD.isdisjoint(re.split(r"[,;\s]+", purpose[:_READ_OF_PURPOSE].lower()))


@lru_cache(maxsize=16384)
def _agent(user_agent: str) -> _Agent:
    from ua_parser import parse

    parsed = parse(user_agent)
    system = _SYSTEMS.get(parsed.os.family if parsed.os else "", "other")
    if system == "other" and "X11" in user_agent and "Linux" in user_agent:
        system = "linux"  # which has as many names as distributions
    word = parsed.user_agent.family.removeprefix("Mobile ").split(" ")[0] if parsed.user_agent else ""
    browser = "chrome" if word in _CHROMES else word.lower()
    is_phone = parsed.device is not None and parsed.device.family in _PHONES
    return _Agent(_device(user_agent, system, is_phone=is_phone), system, browser if browser in BROWSERS else "other")


def _device(user_agent: str, system: str, *, is_phone: bool) -> str:
    if _is_program(user_agent):
        return "bot"
    if _TELEVISION.search(user_agent):
        return "tv"
    is_mobile = "Mobi" in user_agent
    # Browsers of Android say "Mobile" on phones only; programs that are no browsers say it nowhere.
    if "iPad" in user_agent or (system == "android" and "Tablet" in user_agent):
        return "tablet"
    if system == "android" and "Safari/" in user_agent and not is_mobile:
        return "tablet"
    if is_mobile or is_phone or system in ("ios", "android"):
        return "mobile"
    return "desktop" if system != "other" or "X11" in user_agent else "other"


def _whole_items(accept_language: str) -> str:
    if len(accept_language) <= _READ_OF_ACCEPT_LANGUAGE:
        return accept_language
    return accept_language[:_READ_OF_ACCEPT_LANGUAGE].rpartition(",")[0]


def language_tag(text: str) -> str:
    """The tag of a language, of any case and with `_` for `-`, as RFC 5646 §2.1.1 writes it: `pt-BR`, `zh-Hant-TW`.

    Raises ValueError for what is none.
    """
    if not re.fullmatch(_TAG, text):
        raise ValueError("The tag of a language is a word such as pt, pt-BR or zh-Hant.")
    language, *more = text.lower().replace("_", "-").split("-")
    written = (part.upper() if len(part) == 2 else part.capitalize() if len(part) == 4 else part for part in more)
    return "-".join([language, *written])


@lru_cache(maxsize=4096)
def _languages(accept_language: str) -> _Languages:
    """What is no language, `*`, and what has the weight 0 is passed over."""
    weights: dict[str, float] = {}
    for part in accept_language.split(","):
        found = _LANGUAGE.fullmatch(part.strip(" \t"))
        if found and (weight := float(found[2] or 1)):
            tag = language_tag(found[1])
            weights[tag] = max(weight, weights.get(tag, 0))
    heaviest = max(weights.values(), default=0)
    return _Languages(
        tuple(sorted(weights, key=lambda tag: -weights[tag])),
        tuple(tag for tag, weight in weights.items() if weight == heaviest),
    )


@lru_cache(maxsize=4096)
def _host(url: str) -> str:
    try:
        return normal_hostname(urlsplit(url).hostname or "")
    except ValueError:
        return ""


@lru_cache(maxsize=16384)
def country_of(address: str) -> str:
    """`Visitor.country` of an address that is canonical, or empty."""
    code = _registries()(address) or ""
    return "" if code == "EU" else code  # registered for several countries


@cache
def _registries() -> Callable[[str], str | None]:
    from iptocc import country_code

    return country_code


@lru_cache(maxsize=16384)
def _ip(address: str) -> IPv4Address | IPv6Address | None:
    return ip_address(address) if address else None
