"""Does every visitor get the right answer? Visitors of the edge, for locust.

Popular links are followed more often than others (Zipf), by browsers and by bots, with GET and with HEAD; some visitors
mistype a path or come to a host that has no links. Redirects are checked and not followed.

`make load` (`benchmarks/load.py`) runs it on a Linkwire of its own. By hand, on one that runs:

    LOAD_LINKS=links.json locust -f benchmarks/locustfile.py --host http://localhost:8000

`LOAD_LINKS` names a JSON file of the links to visit: a list of objects with `hostname`, `path` and `destination`, such
as the `data` of `GET /v1/links`. If `LOAD_FIGURES` names a file, what was seen is written there as JSON when the test
stops, with the number of redirects of each link.
"""

import json
import os
import random
import sys
from collections import Counter
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple

from locust import FastHttpUser, between, events, task

_WEBKIT = "AppleWebKit/537.36 (KHTML, like Gecko)"
_WINDOWS = f"Mozilla/5.0 (Windows NT 10.0; Win64; x64) {_WEBKIT}"
_MAC = f"Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) {_WEBKIT}"
_LINUX = f"Mozilla/5.0 (X11; Linux x86_64) {_WEBKIT}"
_ANDROID = f"Mozilla/5.0 (Linux; Android 10; K) {_WEBKIT}"
_SAFARI = "AppleWebKit/605.1.15 (KHTML, like Gecko)"
_IPHONE = f"Mozilla/5.0 (iPhone; CPU iPhone OS 18_7 like Mac OS X) {_SAFARI}"
_IPAD = f"Mozilla/5.0 (iPad; CPU OS 18_7 like Mac OS X) {_SAFARI}"

BROWSERS = (
    f"{_WINDOWS} Chrome/142.0.0.0 Safari/537.36",
    f"{_WINDOWS} Chrome/141.0.0.0 Safari/537.36",
    f"{_WINDOWS} Chrome/109.0.0.0 Safari/537.36",
    f"{_WINDOWS} Chrome/142.0.0.0 Safari/537.36 Edg/142.0.0.0",
    f"{_WINDOWS} Chrome/140.0.0.0 Safari/537.36 OPR/124.0.0.0",
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:145.0) Gecko/20100101 Firefox/145.0",
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:140.0) Gecko/20100101 Firefox/140.0",
    f"{_MAC} Chrome/142.0.0.0 Safari/537.36",
    f"{_MAC} Chrome/142.0.0.0 Safari/537.36 Edg/142.0.0.0",
    f"Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) {_SAFARI} Version/26.1 Safari/605.1.15",
    f"Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) {_SAFARI} Version/18.6 Safari/605.1.15",
    "Mozilla/5.0 (Macintosh; Intel Mac OS X 10.15; rv:145.0) Gecko/20100101 Firefox/145.0",
    f"{_LINUX} Chrome/142.0.0.0 Safari/537.36",
    "Mozilla/5.0 (X11; Linux x86_64; rv:145.0) Gecko/20100101 Firefox/145.0",
    "Mozilla/5.0 (X11; Ubuntu; Linux x86_64; rv:144.0) Gecko/20100101 Firefox/144.0",
    f"{_ANDROID} Chrome/142.0.0.0 Mobile Safari/537.36",
    f"{_ANDROID} Chrome/141.0.0.0 Mobile Safari/537.36",
    f"{_ANDROID} SamsungBrowser/29.0 Chrome/136.0.0.0 Mobile Safari/537.36",
    "Mozilla/5.0 (Android 15; Mobile; rv:145.0) Gecko/145.0 Firefox/145.0",
    f"{_IPHONE} Version/26.1 Mobile/15E148 Safari/604.1",
    f"{_IPHONE} Version/18.6 Mobile/15E148 Safari/604.1",
    f"{_IPHONE} CriOS/142.0.7444.77 Mobile/15E148 Safari/604.1",
    f"{_IPHONE} FxiOS/145.0 Mobile/15E148 Safari/605.1.15",
    f"{_IPHONE} Mobile/15E148 Instagram 405.0.0.24.72 (iPhone15,2; iOS 18_7; de_DE; de; scale=3.00; 1179x2556)",
    f"{_IPAD} Version/18.6 Mobile/15E148 Safari/604.1",
)

BOTS = (
    "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)",
    "Mozilla/5.0 (Linux; Android 6.0.1; Nexus 5X Build/MMB29P) AppleWebKit/537.36 (KHTML, like Gecko) "
    "Chrome/142.0.0.0 Mobile Safari/537.36 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)",
    "Mozilla/5.0 (compatible; bingbot/2.0; +http://www.bing.com/bingbot.htm)",
    "Mozilla/5.0 (compatible; YandexBot/3.0; +http://yandex.com/bots)",
    "facebookexternalhit/1.1 (+http://www.facebook.com/externalhit_uatext.php)",
    "Slackbot-LinkExpanding 1.0 (+https://api.slack.com/robots)",
    "WhatsApp/2.23.20.0",
    "Twitterbot/1.0",
    "curl/8.17.0",
    "python-requests/2.32.5",
)

REFERRERS = (
    "",  # typed, scanned from paper, or opened in an app
    "https://www.google.com/",
    "https://www.google.de/",
    "https://www.bing.com/",
    "https://duckduckgo.com/",
    "https://www.facebook.com/",
    "https://l.instagram.com/",
    "https://t.co/",
    "https://www.linkedin.com/",
    "https://www.reddit.com/",
    "https://www.youtube.com/",
    "android-app://com.google.android.gm/",
    "https://news.example.com/2026/11/21/a-story-with-a-long-name.html?utm_source=newsletter&utm_medium=email",
)


class Link(NamedTuple):
    """A link that can be visited."""

    hostname: str
    path: str
    destination: str


def _links() -> list[Link]:
    try:
        listed = json.loads(Path(os.environ["LOAD_LINKS"]).read_text())
    except KeyError:
        sys.exit("LOAD_LINKS is not set; it names a JSON file of the links to visit.")
    return [Link(one["hostname"], one["path"], one["destination"]) for one in listed]


LINKS = _links()
UP_TO_RANK = list(accumulate(1 / rank for rank in range(1, len(LINKS) + 1)))
"""Zipf's weights, summed up: the first link is visited most often."""

SEEN: Counter[str] = Counter()
"""The redirects that visitors were given, by hostname and path."""


class Visitor(FastHttpUser):
    """Follows links one after the other, over one connection, with a short pause between them."""

    wait_time = between(0.0, 0.1)

    @task(82)
    def follow(self) -> None:
        """A browser follows a link."""
        self._visit("a browser", "GET", _any_link(), BROWSERS)

    @task(5)
    def crawl(self) -> None:
        """A bot follows a link."""
        self._visit("a bot", "GET", _any_link(), BOTS)

    @task(4)
    def probe(self) -> None:
        """Something looks where a link leads, without wanting a body."""
        self._visit("HEAD", "HEAD", _any_link(), BROWSERS + BOTS)

    @task(6)
    def mistype(self) -> None:
        """A path that has no link."""
        link = _any_link()
        self._visit("no such path", "GET", (link.hostname, f"{link.path}-{random.randrange(100_000)}", None), BROWSERS)

    @task(3)
    def stray(self) -> None:
        """A host that has no links."""
        hostname = f"host-{random.randrange(1000)}.example"
        self._visit("no such host", "GET", (hostname, _any_link().path, None), BROWSERS + BOTS)

    def _visit(self, name: str, method: str, link: tuple[str, str, str | None], agents: tuple[str, ...]) -> None:
        """Ask once and check the answer: a redirect to the destination, or 404 where there is none."""
        hostname, path, destination = link
        wanted = (302, destination) if destination else (404, None)
        headers = {"Host": hostname, "User-Agent": random.choice(agents), "Accept": "text/html,*/*;q=0.8"}
        if referrer := random.choice(REFERRERS):
            headers["Referer"] = referrer
        with self.client.request(
            method, path, name=name, headers=headers, allow_redirects=False, catch_response=True
        ) as answer:
            got = (answer.status_code, answer.headers.get("location") if answer.headers else None)
            if got[0] == 302:
                SEEN[hostname + path] += 1
            if got == wanted:
                answer.success()
            else:
                error = getattr(answer, "error", None)  # why there was no answer at all
                answer.failure(f"expected {wanted}, got {got}" + (f": {error!r}" if error else ""))


def _any_link() -> Link:
    return random.choices(LINKS, cum_weights=UP_TO_RANK)[0]


@events.test_stop.add_listener
def write_figures(environment: Any, **_: Any) -> None:
    """Say what visitors saw, now that the last one has had an answer."""
    if place := os.environ.get("LOAD_FIGURES"):
        total = environment.stats.total
        figures = {
            "requests": total.num_requests,
            "failures": total.num_failures,
            "per_second": total.total_rps,
            "p50_ms": total.get_response_time_percentile(0.5),
            "p95_ms": total.get_response_time_percentile(0.95),
            "p99_ms": total.get_response_time_percentile(0.99),
            "seen": SEEN,
        }
        Path(place).write_text(json.dumps(figures))
