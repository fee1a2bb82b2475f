"""Classification: what each recorded request was, and why we say so.

Rules of this file:

1. Every request has one class, by the first of these that holds: HEAD, internal, prefetch, preview, crawler, tool,
   scanner, repeat, human. Nothing is dropped; who counts chooses the classes.
2. A reason is one of `REASONS`, and each reason belongs to one class. Both are stored: their words and numbers never
   change their meaning.
3. A change that judges anything else than before gets a new `VERSION`, so that the past can be judged again.
4. Pure: no I/O, no clock. What is asked is in `Evidence`, and whoever asks twice gets the same answer.
"""

import re
from enum import IntEnum
from functools import lru_cache
from typing import NamedTuple

from shared.visitor import is_bot, makes_previews

VERSION = 1
"""Of these rules; it is stored beside what they have judged."""

REPEAT_WITHIN_MS = 10_000
"""A visitor who comes again sooner has clicked once."""

LINKS_AT_ONCE_MS = 2_000
SEVERAL_LINKS = 2
"""Of one message, within `LINKS_AT_ONCE_MS`: a person doesn't come back from the first page as soon as that."""

TOO_SOON_S = {True: 5.0, False: 1.0}
"""By whether it is an e-mail: nobody has received, read and clicked it sooner. A chat is on the screen at once."""

TOO_SOON_FROM_HOSTING_S = {True: 60.0, False: 10.0}
"""The same for an address of a data centre. Most scanners of mail come from one, within a minute. People behind VPNs
and relays do too, but hardly as soon; so it counts for nothing later."""


class Class(IntEnum):
    """What a request was. On the wire it is the name in lower case."""

    HUMAN = 1
    REPEAT = 2
    INTERNAL = 3
    HEAD = 4
    PREFETCH = 5
    PREVIEW = 6
    CRAWLER = 7
    TOOL = 8
    SCANNER = 9


BOTS = frozenset({Class.PREVIEW, Class.PREFETCH, Class.CRAWLER, Class.TOOL, Class.SCANNER})
"""What `bots` counts. Repeats, HEAD and internal requests are neither bots nor humans."""


class Carried(NamedTuple):
    """What is known of the message that carried the link."""

    since_sent_s: float
    """Seconds; negative for a click before the message was sent."""
    links_at_once: int
    """How many links of the message, this one included, somebody clicked within `LINKS_AT_ONCE_MS` of this click."""
    is_honeypot: bool
    """The link is the one in an e-mail that no person sees."""
    is_email: bool
    network_kind: str
    """One of `networks.KINDS`, or empty when nobody knows."""


class Evidence(NamedTuple):
    """What a request is judged by."""

    method: str
    """GET or HEAD."""
    user_agent: str
    """As a click keeps it: at most `MAX_USER_AGENT` characters."""
    is_prefetch: bool
    """A header said that nobody may ever look at it: Sec-Purpose, Purpose, X-Purpose or X-Moz."""
    is_internal: bool
    """The address is one that the organization excludes."""
    since_last_ms: int | None
    """Milliseconds since the last click of this link by this visitor that was judged human, by the times of the clicks;
    None without one, and for an unknown visitor. Negative when that one came later, but was judged earlier."""
    message: Carried | None


class Verdict(NamedTuple):
    """What a request was, and why: one of `REASONS`."""

    kind: Class
    reason: str


REASONS = {
    "method": Class.HEAD,
    "internal": Class.INTERNAL,
    "prefetch-header": Class.PREFETCH,
    "agent-preview": Class.PREVIEW,
    "agent-crawler": Class.CRAWLER,
    "no-agent": Class.TOOL,
    "agent-tool": Class.TOOL,
    "agent-unknown": Class.TOOL,  # no list has it, but it is no browser's
    "scanner-honeypot": Class.SCANNER,
    "scanner-before-sent": Class.SCANNER,
    "scanner-many-links": Class.SCANNER,
    "scanner-too-soon": Class.SCANNER,
    "scanner-network": Class.SCANNER,
    "repeat": Class.REPEAT,
    "human": Class.HUMAN,
}
"""Reason -> its class. New ones come to the end, so that a reason can be stored as its place."""

_VERDICTS = {reason: Verdict(kind, reason) for reason, kind in REASONS.items()}


def classify(evidence: Evidence) -> Verdict:
    """What the request was, by these rules."""
    if evidence.method == "HEAD":
        return _VERDICTS["method"]
    if evidence.is_internal:
        return _VERDICTS["internal"]
    if evidence.is_prefetch:
        return _VERDICTS["prefetch-header"]
    if by_agent := kind_of_agent(evidence.user_agent):
        return by_agent
    if evidence.message and (sign := _sign_of_a_scanner(evidence.message)):
        return _VERDICTS[sign]
    # One that is ingested late lies before the one that is human already; together they are still one human.
    if evidence.since_last_ms is not None and abs(evidence.since_last_ms) < REPEAT_WITHIN_MS:
        return _VERDICTS["repeat"]
    return _VERDICTS["human"]


def _sign_of_a_scanner(message: Carried) -> str | None:
    """The reason, if one holds. Scanners of mail come with the agents of browsers, so only the message tells.

    They follow all links of a message at once, in the median 43 seconds after it was sent, and hardly any within ten
    seconds: the burst is the sign that catches most, and haste alone catches few.
    """
    if message.is_honeypot:
        return "scanner-honeypot"
    if message.since_sent_s < 0:
        return "scanner-before-sent"
    if message.links_at_once >= SEVERAL_LINKS:
        return "scanner-many-links"
    if message.since_sent_s < TOO_SOON_S[message.is_email]:
        return "scanner-too-soon"
    if message.network_kind == "hosting" and message.since_sent_s < TOO_SOON_FROM_HOSTING_S[message.is_email]:
        return "scanner-network"
    return None


@lru_cache(maxsize=16384)
def kind_of_agent(user_agent: str) -> Verdict | None:
    """What the agent alone says: a preview, a crawler or a tool; None for a browser, and an app that shows pages.

    Lists of names are never complete, so what is on none is judged by its form: browsers have looked alike for thirty
    years, and a program that tells where to read about it, or whom to write to, is none.
    """
    said = user_agent.strip().lower()
    if not said:
        return _VERDICTS["no-agent"]
    if makes_previews(user_agent):
        return _VERDICTS["agent-preview"]
    if _TOOLS.search(said) and not _CALLS_ITSELF_A_CRAWLER.search(said):
        return _VERDICTS["agent-tool"]
    if is_bot(user_agent) or _INTRODUCES_ITSELF.search(said) or _INSPECTS_SITES.search(said):
        return _VERDICTS["agent-crawler"]
    return None if _BROWSER.match(said) or _PHONE.search(said) else _VERDICTS["agent-unknown"]


# These are for agents in lower case: to let the expressions ignore case takes several times as long.

_CALLS_ITSELF_A_CRAWLER = re.compile(r"bot\b|bot[_-]|crawl|spider")

# Programs and libraries begin with their names; browsers that are driven add one to a browser's.
_TOOLS = re.compile(
    r"\A(?:curl|libcurl|wget|aria2|httpie|xh/|lftp|axel|git/|postmanruntime|insomnia|bruno-?runtime|rest-client"
    r"|python|pycurl|aiohttp|httpx|urllib|requests|niquests|treq|tornado|twisted|mechanize"
    r"|go-http-client|go-resty|go-getter|fasthttp"
    r"|java(?:[-/ ]|\Z)|okhttp|apache-httpclient|apache-httpasync|jakarta commons|jersey|reactornetty|vert\.?x|unirest"
    r"|ktor|akka-http|pekko-http|clj-http|http-kit"
    r"|axios|node|undici|got[ /(]|superagent|needle|deno|bun/|request/"
    r"|libwww|lwp|perl|mojolicious|guzzle|symfony|php|pear|http_request|zend|laminas|wordpress/"
    r"|ruby|faraday|typhoeus|httparty|http\.rb|httpclient|excon"
    r"|reqwest|hyper/|ureq|isahc|rust|dart|erlang|hackney|elixir|mint/|lua|swift|alamofire|dalvik"
    r"|androiddownloadmanager|\.net|dotnet|system\.net|microsoft\.net|restsharp|winhttp|cpprestsdk|cpp-httplib"
    r"|k6[/ ]|locust|apachebench|ab/|hey/|wrk|vegeta|siege|jmeter|gatling|artillery|oha/|bombardier|autocannon)"
    r"|cfnetwork/|powershell|headless|phantomjs|playwright|puppeteer|selenium|webdriver|cypress/|htmlunit"
    r"|splash version"
)

# A page to read about it, an address to write to, or its name where only some old browsers have theirs.
_INTRODUCES_ITSELF = re.compile(
    r"https?://|\bwww\.|\.(?:com|org|io|ai)[/)]|[\w.-]@[0-9-]*[a-z]|\bcompatible;\s*+(?!msp?ie|konqueror|[ia]browse"
    r"|icab|omniweb|netpositive|netfront|linux|windows|macintosh|amiga|u;)",
)

# Who looks at pages for their owners, or at mail for its readers, in a browser, and adds the name of the service.
_INSPECTS_SITES = re.compile(
    r"monitor|watcher|synthetic|appinsights|catchpoint|dareboost|thousandeyes|dejaclick|dmbrowser|gtmetrix|silktide"
    r"|rigor\b|testlocally|watchtowr|foregenix|barracuda|mimecast|proofpoint|securityheaders|cookiehub|datanyze"
    r"|scan\b|scanner|audit\b|pwabuilder|manus-user|archivebox",
)

# What browsers have begun with since 1994, and the engine that stands behind it; and the few that begin with a name.
_BROWSER = re.compile(
    r"[\"'=]?mozilla/[0-9].*(?:webkit|gecko|trident|msie|presto|khtml|goanna|servo|opera|netfront"
    r"|netpositive|ibrowse|amiga|playstation|nintendo)|[\"'=]?firefox/[0-9]|.{0,40}(?:applewebkit|opera[/ ][0-9])"
    r"|e?links[ /]|w3m/|netsurf/|dillo/|midori/|ibrowse/|amiga",
    re.DOTALL,
)

# Phones began with their own names.
_PHONE = re.compile(
    r"midp|cldc|up\.browser|opera mini|symbian|ucweb|ucbrowser|docomo/|obigo|netfront|semc-browser|wap[ -]browser|maui"
    r"|blackberry[0-9]|android[ /][0-9].*(?:safari|webkit)",
    re.DOTALL,
)
