"""Facts about a visitor that a rule can ask: each from what is sent, and none for more than is read of it."""

import random
import statistics
import subprocess
import sys
import time

import pytest
from crawlerdetect import CrawlerDetect
from crawlerdetect.providers import crawlers, exclusions
from hypothesis import example, given
from hypothesis import strategies as st

from shared.visitor import BROWSERS, DEVICES, SYSTEMS, Visitor, asks_ahead, is_bot, language_tag, makes_previews
from tests.houses import BROWSER


def visitor(**known: str) -> Visitor:
    """Somebody of whom only this is known."""
    said = {"address": "", "user_agent": BROWSER, "accept_language": "", "referrer": "", "query": "", **known}
    return Visitor(**said, at_ms=0)


_WEBKIT = "AppleWebKit/605.1.15 (KHTML, like Gecko)"
_CHROME = "AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0"
_IPHONE = f"Mozilla/5.0 (iPhone; CPU iPhone OS 18_5 like Mac OS X) {_WEBKIT}"
_MAC = "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7)"
_PC = f"Mozilla/5.0 (Windows NT 10.0; Win64; x64) {_CHROME} Safari/537.36"


@pytest.mark.parametrize(
    ("user_agent", "device", "os", "browser"),
    [
        (f"{_IPHONE} Version/18.5 Mobile/15E148 Safari/604.1", "mobile", "ios", "safari"),
        (f"{_IPHONE} CriOS/130.0.6723.37 Mobile/15E148 Safari/604.1", "mobile", "ios", "chrome"),
        (f"{_IPHONE} FxiOS/132.0 Mobile/15E148 Safari/605.1.15", "mobile", "ios", "firefox"),
        (f"{_IPHONE} Version/17.0 EdgiOS/130.0.2849.56 Mobile/15E148 Safari/605.1.15", "mobile", "ios", "edge"),
        (f"{_IPHONE} Mobile/15E148 [FBAN/FBIOS;FBAV/470.0.0;FBDV/iPhone12,1]", "mobile", "ios", "facebook"),
        (f"{_IPHONE} Mobile/15E148 Instagram 300.0.0.29.110 (iPhone12,1)", "mobile", "ios", "instagram"),
        (
            f"Mozilla/5.0 (iPad; CPU OS 12_5 like Mac OS X) {_WEBKIT} Version/12.1.2 Mobile/15E148 Safari/604.1",
            *("tablet", "ios", "safari"),
        ),
        (f"{_MAC} {_WEBKIT} Version/17.5 Safari/605.1.15", "desktop", "macos", "safari"),
        (f"{_MAC} {_CHROME} Safari/537.36", "desktop", "macos", "chrome"),
        (f"Mozilla/5.0 (Linux; Android 10; K) {_CHROME} Mobile Safari/537.36", "mobile", "android", "chrome"),
        (f"Mozilla/5.0 (Linux; Android 10; K) {_CHROME} Safari/537.36", "tablet", "android", "chrome"),
        (
            "Mozilla/5.0 (Linux; Android 10; K) AppleWebKit/537.36 (KHTML, like Gecko) SamsungBrowser/26.0 "
            "Chrome/122.0.0.0 Mobile Safari/537.36",
            *("mobile", "android", "samsung"),
        ),
        ("Mozilla/5.0 (Android 14; Mobile; rv:132.0) Gecko/132.0 Firefox/132.0", "mobile", "android", "firefox"),
        ("Mozilla/5.0 (Android 14; Tablet; rv:132.0) Gecko/132.0 Firefox/132.0", "tablet", "android", "firefox"),
        (
            "Opera/9.80 (Android; Opera Mini/36.2.2254/119.132; U; id) Presto/2.12.423 Version/12.16",
            *("mobile", "android", "opera"),
        ),
        ("Opera/9.80 (J2ME/MIDP; Opera Mini/9.80; U; en) Presto/2.5.25", "mobile", "other", "opera"),
        (
            f"Mozilla/5.0 (Windows Phone 10.0; Android 6.0.1; Microsoft; Lumia 950) {_CHROME} Mobile Safari/537.36 "
            "Edge/15.15063",
            *("mobile", "other", "edge"),
        ),
        (_PC, "desktop", "windows", "chrome"),
        (f"{_PC} Edg/130.0.2849.56", "desktop", "windows", "edge"),
        (f"{_PC} OPR/114.0.0.0", "desktop", "windows", "opera"),
        (f"{_PC} Vivaldi/7.0.3495.11", "desktop", "windows", "other"),
        ("Mozilla/5.0 (Windows NT 6.1; Trident/7.0; Tablet PC 2.0; rv:11.0) like Gecko", "desktop", "windows", "other"),
        (
            "Mozilla/5.0 (X11; Ubuntu; Linux x86_64; rv:132.0) Gecko/20100101 Firefox/132.0",
            *("desktop", "linux", "firefox"),
        ),
        (
            "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Ubuntu Chromium/80.0.3987.87 "
            "Chrome/80.0.3987.87 Safari/537.36",
            *("desktop", "linux", "chrome"),
        ),
        ("Mozilla/5.0 (X11; FreeBSD amd64; rv:132.0) Gecko/20100101 Firefox/132.0", "desktop", "other", "firefox"),
        (f"Mozilla/5.0 (X11; CrOS x86_64 14541.0.0) {_CHROME} Safari/537.36", "desktop", "chromeos", "chrome"),
        (f"Mozilla/5.0 (Web0S; Linux/SmartTV) {_CHROME} Safari/537.36 WebAppManager", "tv", "other", "chrome"),
        (f"Mozilla/5.0 (Linux; Android 9; BRAVIA 4K UR2) {_CHROME} Safari/537.36", "tv", "android", "chrome"),
        ("AppleTV11,1/11.1", "tv", "other", "other"),
        (
            f"Mozilla/5.0 (Linux; Android 6.0.1; Nexus 5X) {_CHROME} Mobile Safari/537.36 (compatible; Googlebot/2.1; "
            "+http://www.google.com/bot.html)",
            *("bot", "android", "other"),
        ),
        ("Viber", "bot", "other", "other"),
        ("", "bot", "other", "other"),
        ("hello", "other", "other", "other"),
    ],
)
def test_what_an_agent_says_of_device_system_and_browser(user_agent: str, device: str, os: str, browser: str) -> None:
    found = visitor(user_agent=user_agent)
    assert (found.device, found.os, found.browser) == (device, os, browser)


@pytest.mark.parametrize(
    ("user_agent", "is_one"),
    [
        *[
            pytest.param(user_agent, True, id=user_agent[:30])
            for user_agent in (
                "facebookexternalhit/1.1 (+http://www.facebook.com/externalhit_uatext.php)",
                "Facebot",
                f"{_MAC} AppleWebKit/601.2.4 (KHTML, like Gecko) Version/9.0.1 Safari/601.2.4 facebookexternalhit/1.1 "
                "Facebot Twitterbot/1.0",
                "Twitterbot/1.0",
                "Slackbot-LinkExpanding 1.0 (+https://api.slack.com/robots)",
                "WhatsApp/2.23.20.0 A",
                "TelegramBot (like TwitterBot)",
                "Mozilla/5.0 (compatible; Discordbot/2.0; +https://discordapp.com)",
                "LinkedInBot/1.0 (compatible; Mozilla/5.0; Apache-HttpClient +http://www.linkedin.com)",
                "Mozilla/5.0 (compatible; Pinterestbot/1.0; +http://www.pinterest.com/bot.html)",
                "Mozilla/5.0 (Windows NT 6.1; WOW64) SkypeUriPreview Preview/0.5",
                "Mozilla/5.0 (compatible; redditbot/1.0; +http://www.reddit.com/feedback)",
                "Viber/6.2.1",
                "Mastodon/4.3.0 (http.rb/5.2.0; +https://mastodon.social/)",
                "Mozilla/5.0 (compatible; Bluesky Cardyb/1.1; +mailto:support@bsky.app)",
                "Mozilla/5.0 (compatible; vkShare; +http://vk.com/dev/Share)",
                "Iframely/1.3.1 (+https://iframely.com/docs/about)",
                "Mozilla/5.0 (compatible; Embedly/0.2; +http://support.embed.ly/)",
                "Mozilla/5.0 (Windows NT 10.0) AppleWebKit/537.36 (KHTML, like Gecko; Google-PageRenderer Google "
                "(+https://developers.google.com/+/web/snippet/)) Chrome/56.0.2924.87 Safari/537.36",
            )
        ],
        pytest.param(BROWSER, False, id="a browser"),
        pytest.param("", False, id="nobody"),
        pytest.param("Mozilla/5.0 (compatible; Googlebot/2.1)", False, id="a search engine"),
        pytest.param("curl/8.5.0", False, id="a tool"),
        pytest.param(f"{_IPHONE} Mobile/15E148 [FBAN/FBIOS;FBAV/470.0.0]", False, id="the app of a network"),
        pytest.param(f"{_IPHONE} Mobile/15E148 [Pinterest/iOS]", False, id="the app of another"),
        pytest.param(f"{_IPHONE} Mobile/15E148 Viber/21", False, id="the app of a messenger"),
        pytest.param(f"{_IPHONE} Mobile/15E148 [LinkedInApp]/9.29", False, id="the app of a third"),
    ],
)
def test_who_makes_previews_is_automatic_and_an_app_of_the_same_name_is_not(user_agent: str, is_one: bool) -> None:
    found = visitor(user_agent=user_agent)
    assert makes_previews(user_agent) is found.is_social_crawler is is_one
    assert found.is_automatic is (is_one or is_bot(user_agent))


_PIECES = st.sampled_from([*crawlers.data, *exclusions.data]).map(lambda piece: piece.replace("\\", "").strip("^$"))
_CRAWLERS = CrawlerDetect()


@given(
    st.lists(st.sampled_from(["", " ", "; ", "/", "(", BROWSER]) | _PIECES | st.text(max_size=3), max_size=6),
    st.booleans(),
)
@example(["Yandex"], False)
@example(["YandexSearch"], False)
@example(["Safari bot"], False)
@example(["cubot"], True)
def test_automatic_are_those_of_whom_crawlerdetect_says_so(pieces: list[str], is_shouting: bool) -> None:
    user_agent = "".join(pieces).upper() if is_shouting else "".join(pieces)
    assert is_bot(user_agent) is (not user_agent.strip() or _CRAWLERS.isCrawler(user_agent))


@pytest.mark.parametrize("letters", ["a", "1", " b", "Ab_/", "abcdefghijklmnopqrstuvwxyz; ()./0123456789"])
def test_an_agent_that_was_never_seen_holds_nobody_up(letters: str) -> None:
    chance = random.Random(letters)
    is_bot("the first one loads the lists")
    took_s = []
    for _ in range(20):
        user_agent = "".join(chance.choices(letters, k=492)) + str(chance.random())
        began_at_s = time.thread_time()
        assert visitor(user_agent=user_agent).device
        took_s.append(time.thread_time() - began_at_s)
    assert statistics.median(took_s) < 0.002


@pytest.mark.parametrize(
    ("purpose", "is_ahead"),
    [
        ("prefetch", True),
        ("prefetch;prerender", True),
        ("prefetch; anonymous-client-ip", True),
        ("Preview", True),
        (",,prefetch,", True),
        ("", False),
        ("navigate", False),
        ("no-prefetch", False),
        ("prefetched", False),
        (" " * 300 + "prefetch", False),
    ],
)
def test_who_asks_ahead_is_automatic_and_no_other_device_for_it(purpose: str, is_ahead: bool) -> None:
    assert asks_ahead(purpose) is is_ahead
    ahead = Visitor("", BROWSER, "", "", "", 0, purpose=purpose)
    assert (ahead.is_automatic, ahead.device) == (is_ahead, "desktop")


@pytest.mark.parametrize(
    ("accept_language", "languages", "preferred"),
    [
        ("", "", ""),
        ("*", "", ""),
        ("pt-BR,pt;q=0.9,en-US;q=0.8,en;q=0.7", "pt-BR pt en-US en", "pt-BR"),
        ("en;q=0.8, DE ;q=0.9,zh_hant_tw", "zh-Hant-TW de en", "zh-Hant-TW"),
        ("de, en", "de en", "de en"),
        ("en;q=0.5,de;q=0.5", "en de", "en de"),
        ("fr;q=0, en;q=0.001", "en", "en"),
        ("de;q=0.2, de;q=0.9, en;q=0.5, de;q=0.1", "de en", "de"),
        ("de ; Q=1.000 , en;q=1.001, fr;q=0.1234, it;q=, es;x=1", "de", "de"),
        ("de;q=., 123, -, d-, über, ſv, \uff44\uff45, deutschland", "", ""),
        ("de," * 50_000, "de", "de"),
    ],
)
def test_the_languages_of_a_visitor_are_in_the_order_it_wants_them(
    accept_language: str, languages: str, preferred: str
) -> None:
    found = visitor(accept_language=accept_language)
    assert " ".join(found.languages) == languages
    assert " ".join(found.preferred_languages) == preferred


@given(st.text(max_size=300) | st.text("deEN-_,;q=019. *", max_size=300))
def test_any_languages_are_tags_and_the_preferred_ones_lead(accept_language: str) -> None:
    found = visitor(accept_language=accept_language)
    assert [language_tag(tag) for tag in found.languages] == list(found.languages)
    assert found.languages[: len(found.preferred_languages)] == found.preferred_languages
    assert bool(found.languages) is bool(found.preferred_languages)


@pytest.mark.parametrize(
    ("referrer", "host"),
    [
        ("", ""),
        ("https://www.Example.COM:8443/path?q=1", "www.example.com"),
        ("http://user@example.com./", "example.com"),
        ("https://Bücher.example/", "xn--bcher-kva.example"),
        ("android-app://com.google.android.gm/", "com.google.android.gm"),
        ("http://192.0.2.1/", "192.0.2.1"),
        ("about:blank", ""),
        ("example.com/path", ""),
        ("https://exa mple.com/", ""),
        ("https://[::1]/", ""),
        ("https://[broken/", ""),
        ("https:///", ""),
    ],
)
def test_the_host_a_visitor_comes_from(referrer: str, host: str) -> None:
    assert visitor(referrer=referrer).referrer_host == host


@pytest.mark.parametrize(
    ("address", "country"),
    [
        ("8.8.8.8", "US"),
        ("::ffff:8.8.8.8", "US"),
        ("2001:4860:4860::8888", "US"),
        ("193.99.144.80", "DE"),
        ("158.67.1.1", ""),  # registered for the European Union
        ("10.0.0.1", ""),
        ("", ""),
        ("testclient", ""),
    ],
)
def test_the_country_of_an_address(address: str, country: str) -> None:
    assert visitor(address=address).country == country


def test_an_explainer_may_say_country_and_language_itself() -> None:
    told = Visitor("8.8.8.8", BROWSER, "en", "", "", 0, country="br", language="pt-br,pt;q=0.5")
    assert (told.country, told.languages) == ("BR", ("pt-BR", "pt"))


def test_parameters_are_decoded_and_only_the_first_hundred_are_read() -> None:
    assert visitor(query="a=1&b=%C3%BC+x&a=&c&&%FF=").parameters == {
        "a": ["1", ""],
        "b": ["ü x"],
        "c": [""],
        "\ufffd": [""],
    }
    many = visitor(query="&".join(f"p{number}" for number in range(200))).parameters
    assert list(many) == [f"p{number}" for number in range(100)]


@given(*[st.text(max_size=60)] * 5)
def test_whatever_is_sent_has_facts(address: str, user_agent: str, language: str, referrer: str, query: str) -> None:
    found = Visitor(address, user_agent, language, referrer, query, 0)
    assert found.device in DEVICES and found.os in SYSTEMS and found.browser in BROWSERS
    assert found.country == found.country.upper() and len(found.country) in (0, 2)
    assert found.address == (str(found.ip) if found.ip else "")
    assert found.referrer_host.isascii()
    assert (found.device == "bot") is found.is_automatic
    assert all(values for values in found.parameters.values())


def test_facts_do_not_depend_on_what_is_beyond_the_part_of_an_agent_that_a_click_keeps() -> None:
    long = visitor(user_agent=f"{BROWSER:512} Googlebot/2.1")
    assert long.user_agent == f"{BROWSER:512}"
    assert not long.is_automatic


@pytest.mark.parametrize(
    ("user_agent", "is_automatic"),
    [
        pytest.param(BROWSER, False, id="a desktop browser"),
        pytest.param(
            "Mozilla/5.0 (iPhone; CPU iPhone OS 18_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) "
            "Version/18.5 Mobile/15E148 Safari/604.1",
            False,
            id="a phone",
        ),
        pytest.param(
            "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)", True, id="a search engine"
        ),
        pytest.param("facebookexternalhit/1.1", True, id="a preview"),
        pytest.param("curl/8.5.0", True, id="a tool"),
        pytest.param("python-requests/2.32.3", True, id="a library"),
        pytest.param("", True, id="no agent at all"),
        pytest.param("  \t", True, id="nothing but spaces"),
    ],
)
def test_who_names_itself_automatic_is_a_bot(user_agent: str, is_automatic: bool) -> None:
    assert is_bot(user_agent) is is_automatic


@given(st.text(max_size=100))
def test_any_agent_gets_an_answer_and_always_the_same(user_agent: str) -> None:
    assert is_bot(user_agent) is is_bot.__wrapped__(user_agent)


_LAZY = """
import sys
from shared.entries import Entry
from shared.rules import decide
from shared.addresses import Proxies
from shared.visitor import Visitor
visitor = Visitor(Proxies(()).client_of("8.8.8.8", ""), "curl/8.5.0", "en", "https://example.com/", "a=b", 0)
decide(Entry(1, 1, "https://example.com/"), visitor)
heavy = {"ua_parser", "ua_parser_rs", "iptocc", "crawlerdetect"}
assert not heavy & set(sys.modules), heavy & set(sys.modules)
assert visitor.device == "bot" and visitor.country == "US"
assert heavy <= set(sys.modules)
"""


def test_a_process_that_serves_plain_links_carries_no_lists_of_agents_and_countries() -> None:
    subprocess.run([sys.executable, "-c", _LAZY], check=True, timeout=30)
