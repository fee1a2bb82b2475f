"""What a recorded request was: one class of nine, for a reason of fifteen, by rules that everybody can say again."""

import json
from importlib.resources import files
from itertools import combinations
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from admin.stats.classify import BOTS, REASONS, VERSION, Carried, Class, Evidence, Verdict, classify, kind_of_agent
from shared.clicks import MAX_USER_AGENT
from tests.houses import BROWSER

_WEBKIT = "AppleWebKit/605.1.15 (KHTML, like Gecko)"
_CHROME = "AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0"
_MAC = f"Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) {_WEBKIT} Version/18.5 Safari/605.1.15"
_IPHONE = f"Mozilla/5.0 (iPhone; CPU iPhone OS 18_5 like Mac OS X) {_WEBKIT}"
_ANDROID = f"Mozilla/5.0 (Linux; Android 15; Pixel 9; wv) {_CHROME} Mobile Safari/537.36"
_PC = f"Mozilla/5.0 (Windows NT 10.0; Win64; x64) {_CHROME} Safari/537.36"

PERSON = Evidence("GET", BROWSER, is_prefetch=False, is_internal=False, since_last_ms=None, message=None)
READ = Carried(since_sent_s=3600.0, links_at_once=1, is_honeypot=False, is_email=True, network_kind="")
"""A message whose reader clicks one link, an hour after it was sent."""


def test_the_numbers_of_the_classes_and_the_places_of_the_reasons_are_stored_and_stay() -> None:
    assert VERSION == 1
    assert {kind.name: int(kind) for kind in Class} == {
        **{"HUMAN": 1, "REPEAT": 2, "INTERNAL": 3, "HEAD": 4, "PREFETCH": 5},
        **{"PREVIEW": 6, "CRAWLER": 7, "TOOL": 8, "SCANNER": 9},
    }
    assert {Class(number) for number in (5, 6, 7, 8, 9)} == BOTS
    assert list(REASONS) == [
        *("method", "internal", "prefetch-header"),
        *("agent-preview", "agent-crawler", "no-agent", "agent-tool", "agent-unknown"),
        *("scanner-honeypot", "scanner-before-sent", "scanner-many-links", "scanner-too-soon", "scanner-network"),
        *("repeat", "human"),
    ]
    assert set(REASONS.values()) == set(Class)


SIGNS: dict[Class, dict[str, Any]] = {
    Class.HEAD: {"method": "HEAD"},
    Class.INTERNAL: {"is_internal": True},
    Class.PREFETCH: {"is_prefetch": True},
    Class.PREVIEW: {"user_agent": "facebookexternalhit/1.1"},
    Class.CRAWLER: {"user_agent": "Googlebot/2.1"},
    Class.TOOL: {"user_agent": "python-requests/2.32.3"},
    Class.SCANNER: {"message": READ._replace(links_at_once=2)},
    Class.REPEAT: {"since_last_ms": 9_999},
    Class.HUMAN: {},
}
"""What makes a request of one class, in the order in which they precede each other."""


@pytest.mark.parametrize(("earlier", "later"), [*combinations(SIGNS, 2)])
def test_of_two_classes_the_earlier_is_the_verdict(earlier: Class, later: Class) -> None:
    assert classify(PERSON._replace(**SIGNS[later])).kind is later
    both = SIGNS[later] | SIGNS[earlier]
    if "user_agent" in both:
        both["user_agent"] = " ".join(
            signs["user_agent"] for signs in (SIGNS[later], SIGNS[earlier]) if "user_agent" in signs
        )
    assert classify(PERSON._replace(**both)).kind is earlier


_AGENTS = {
    "facebookexternalhit/1.1": Class.PREVIEW,
    "Googlebot/2.1": Class.CRAWLER,
    "curl/8.5.0": Class.TOOL,
    "": Class.TOOL,
    BROWSER: Class.HUMAN,
}


@given(
    st.builds(
        Evidence,
        st.sampled_from(["GET", "GET", "HEAD"]),
        st.sampled_from([*_AGENTS, *[BROWSER] * 5]),
        st.sampled_from([False, False, True]),
        st.sampled_from([False, False, True]),
        st.none() | st.integers(-12_000, 12_000),
        st.none()
        | st.builds(
            Carried,
            st.floats(-5, 80),
            st.integers(1, 3),
            st.sampled_from([False, False, True]),
            st.booleans(),
            st.sampled_from(["", "hosting", "residential"]),
        ),
    )
)
def test_the_verdict_is_what_the_rules_say_word_by_word(asked: Evidence) -> None:
    by_agent, message = _AGENTS[asked.user_agent], asked.message
    soon, soon_from_hosting = (5, 60) if message and message.is_email else (1, 10)
    holds = {
        Class.HEAD: asked.method == "HEAD",
        Class.INTERNAL: asked.is_internal,
        Class.PREFETCH: asked.is_prefetch,
        Class.PREVIEW: by_agent is Class.PREVIEW,
        Class.CRAWLER: by_agent is Class.CRAWLER,
        Class.TOOL: by_agent is Class.TOOL,
        Class.SCANNER: message is not None
        and (
            message.is_honeypot
            or message.links_at_once > 1
            or message.since_sent_s < soon
            or (message.network_kind == "hosting" and message.since_sent_s < soon_from_hosting)
        ),
        Class.REPEAT: asked.since_last_ms is not None and -10_000 < asked.since_last_ms < 10_000,
        Class.HUMAN: True,
    }
    assert classify(asked).kind is next(kind for kind, is_it in holds.items() if is_it)


@given(
    st.builds(
        Evidence,
        st.text(max_size=5),
        st.text(max_size=MAX_USER_AGENT),
        st.booleans(),
        st.booleans(),
        st.none() | st.integers(),
        st.none() | st.builds(Carried, st.floats(), st.integers(), st.booleans(), st.booleans(), st.text(max_size=9)),
    )
)
def test_whatever_is_asked_has_a_class_for_one_of_its_reasons_and_always_the_same(asked: Evidence) -> None:
    verdict = classify(asked)
    assert REASONS[verdict.reason] is verdict.kind
    assert kind_of_agent(asked.user_agent) == kind_of_agent.__wrapped__(asked.user_agent)
    assert classify(asked) == verdict


@pytest.mark.parametrize(
    ("known", "reason"),
    [
        pytest.param({}, "human", id="a reader"),
        pytest.param({"is_honeypot": True, "since_sent_s": -1.0}, "scanner-honeypot", id="the link that nobody sees"),
        pytest.param({"since_sent_s": -0.001, "links_at_once": 9}, "scanner-before-sent", id="before it was sent"),
        pytest.param({"links_at_once": 2, "since_sent_s": 0.0}, "scanner-many-links", id="two links at once"),
        pytest.param({"since_sent_s": 4.9}, "scanner-too-soon", id="an e-mail at once"),
        pytest.param({"since_sent_s": 5.0}, "human", id="an e-mail after five seconds"),
        pytest.param({"since_sent_s": 0.9, "is_email": False}, "scanner-too-soon", id="a chat at once"),
        pytest.param({"since_sent_s": 1.0, "is_email": False}, "human", id="a chat after a second"),
        pytest.param({"since_sent_s": 43.0}, "human", id="the median of scanners, with one link"),
        pytest.param({"since_sent_s": 43.0, "network_kind": "hosting"}, "scanner-network", id="from a data centre"),
        pytest.param({"since_sent_s": 60.0, "network_kind": "hosting"}, "human", id="from there after a minute"),
        pytest.param({"since_sent_s": 43.0, "network_kind": "residential"}, "human", id="from home"),
        pytest.param(
            {"since_sent_s": 10.0, "is_email": False, "network_kind": "hosting"}, "human", id="a chat over a VPN"
        ),
        pytest.param({"since_sent_s": float("nan")}, "human", id="at a time that is none"),
    ],
)
def test_the_message_of_a_link_tells_a_scanner_from_a_reader(known: dict[str, Any], reason: str) -> None:
    assert classify(PERSON._replace(message=READ._replace(**known))) == Verdict(REASONS[reason], reason)


@pytest.mark.parametrize(
    ("since_last_ms", "kind"),
    [(None, "human"), (0, "repeat"), (9_999, "repeat"), (10_000, "human"), (-9_999, "repeat"), (-10_000, "human")],
)
def test_who_comes_again_within_ten_seconds_has_clicked_once_also_if_told_in_another_order(
    since_last_ms: int | None, kind: str
) -> None:
    assert classify(PERSON._replace(since_last_ms=since_last_ms)).kind.name.lower() == kind


@pytest.mark.parametrize(
    ("reason", "agents"),
    [
        pytest.param("no-agent", ["", " \t"], id="nothing"),
        pytest.param(
            "agent-preview",
            [
                f"{_MAC} facebookexternalhit/1.1 Facebot Twitterbot/1.0",  # Messages of Apple
                "WhatsApp/2.24.9.78 A",
                "TelegramBot (like TwitterBot)",
                "Slackbot-LinkExpanding 1.0 (+https://api.slack.com/robots)",
                "LinkedInBot/1.0 (compatible; Mozilla/5.0; Apache-HttpClient +http://www.linkedin.com)",
                "Mozilla/5.0 (compatible; Discordbot/2.0; +https://discordapp.com)",
                "Mozilla/5.0 (Windows NT 6.1; WOW64) SkypeUriPreview Preview/0.5 skype-url-preview@microsoft.com",
                f"{_PC} Google-PageRenderer Google (+https://developers.google.com/+/web/snippet/)",
            ],
            id="previews",
        ),
        pytest.param(
            "agent-crawler",
            [
                "Mozilla/5.0 (compatible; bingbot/2.0; +http://www.bing.com/bingbot.htm)",
                "Barracuda Sentinel (EE)",
                "python-requests/2.32.3 (pricebot)",  # a tool that says what it is for
                f"{_PC} (+https://example.com/why-we-visit)",
                f"{_PC} someone@7visits.example",
                f"{_PC} Visits/1.0 (visits.example.com)",
                "Mozilla/5.0 (compatible; Anything/1.0)",
                f"{_PC} Example-Monitor/2.1",
            ],
            id="crawlers",
        ),
        pytest.param(
            "agent-tool",
            [
                *("curl/8.5.0", "Wget/1.21.4", "python-requests/2.32.3", "python-httpx/0.28.1", "Python-urllib/3.13"),
                *("Python/3.13 aiohttp/3.11.0", "okhttp/4.12.0", "Go-http-client/2.0", "axios/1.7.9", "node", "undici"),
                *("node-fetch/1.0 (+https://github.com/bitinn/node-fetch)", "Java/21.0.2", "Java-http-client/21.0.2"),
                *(
                    "Apache-HttpClient/4.5.14 (Java/21.0.2)",
                    "libwww-perl/6.77",
                    "GuzzleHttp/7",
                    "PostmanRuntime/7.43.0",
                ),
                *("k6/0.55.0 (https://k6.io/)", "ApacheBench/2.3", "Ruby", "reqwest/0.12.9", "Dart/3.5 (dart:io)"),
                "Dalvik/2.1.0 (Linux; U; Android 15; Pixel 9)",
                "Example/7 CFNetwork/1568.200.51 Darwin/24.1.0",
                "Mozilla/5.0 (Windows NT; Windows NT 10.0; en-US) WindowsPowerShell/5.1.19041.1682",
                _PC.replace("Chrome", "HeadlessChrome"),
                f"{_PC} Playwright/1.49",
            ],
            id="tools",
        ),
        pytest.param("agent-unknown", ["hello", "Mozilla/5.0", "Example/1.0", "Mozilla/5.0 (X11)"], id="no browsers"),
        pytest.param(
            None,
            [
                *(_MAC, _PC, f"{_IPHONE} Version/18.5 Mobile/15E148 Safari/604.1", f"{_PC} Edg/142.0.0.0"),
                f"{_IPHONE} Mobile/15E148 [FBAN/FBIOS;FBAV/470.0.0.41.81;FBDV/iPhone12,1]",
                f"{_ANDROID} Instagram 406.0.0.58.159 Android (35/15; 480dpi; 1080x2400; google; Pixel 9; en_US)",
                f"{_ANDROID} MetaIAB Facebook",
                f"{_IPHONE} Mobile/15E148 LinkedInApp/9.29",
                f"{_IPHONE} Version/18.4 Mobile/15E148 Safari/605.1.15 (Ecosia ios@11.0.2.2268)",
                f"{_IPHONE} GSA/343.0 Mobile/15E148 Safari/604.1",
                f"Mozilla/5.0 (Linux; Android 9; CUBOT_X19) {_CHROME} Mobile Safari/537.36",
                f"Mozilla/5.0 (Web0S; Linux/SmartTV) {_CHROME} Safari/537.36 WebAppManager",
                "Mozilla/5.0 (compatible; MSIE 10.0; Windows NT 6.2; Trident/6.0)",
                "Mozilla/5.0 (compatible; Konqueror/4.4; Linux) KHTML/4.4.5 (like Gecko)",
                "Mozilla/4.5 (compatible; iCab 2.9.8; Macintosh; U; PPC) Opera 5",
                "Opera/9.80 (J2ME/MIDP; Opera Mini/9.80; U; en) Presto/2.5.25",
                "BlackBerry8520/5.0.0.681 Profile/MIDP-2.1 Configuration/CLDC-1.1 VendorID/600",
                f"LG-D855 Mozilla/5.0 (Linux; Android 5.0) {_CHROME} Mobile Safari/537.36",
                "ELinks/0.12 (textmode; Linux 3.11.0 i686; 100x25-2)",
            ],
            id="browsers, and apps that show pages",
        ),
    ],
)
def test_what_an_agent_says_of_itself(reason: str | None, agents: list[str]) -> None:
    judged = {agent: verdict.reason if (verdict := kind_of_agent(agent)) else None for agent in agents}
    assert judged == dict.fromkeys(agents, reason)


def taken_for_bots(agents: set[str]) -> set[str]:
    """Those of which the agent alone tells that nobody looks through them."""
    return {agent for agent in agents if kind_of_agent(agent[:MAX_USER_AGENT])}


def test_nearly_all_crawlers_that_others_have_met_are_found() -> None:
    known = json.loads(files("crawleruseragents").joinpath("crawler-user-agents.json").read_text("utf-8"))
    agents = {agent for crawler in known for agent in crawler["instances"]}
    missed = agents - taken_for_bots(agents)
    assert len(agents) > 2_000
    assert len(missed) <= len(agents) * 0.01, "\n".join([f"missed {len(missed)} of {len(agents)}:", *sorted(missed)])


def test_hardly_any_browser_that_others_have_met_is_taken_for_a_bot() -> None:
    lines = files("fake_useragent").joinpath("data/browsers.jsonl").read_text("utf-8").splitlines()
    agents = {json.loads(line)["useragent"] for line in lines}
    wrong = taken_for_bots(agents)
    assert len(agents) > 800
    assert len(wrong) <= len(agents) * 0.001, "\n".join([f"took {len(wrong)} of {len(agents)}:", *sorted(wrong)])
