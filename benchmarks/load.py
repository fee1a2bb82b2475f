"""Under load, does every visitor get the right answer, and is each redirect counted exactly once?

Starts a Linkwire, makes links, and lets the visitors of `benchmarks/locustfile.py` follow them. Then the redirects that
they were given are compared, link by link, with what the API counts. Any unexpected answer and any difference is a
failure; the figures are printed either way, and locust's report is in `benchmarks/results/load.html`.

Run it with `make load`, which installs locust. It must be a process of its own: gevent changes Python's sockets.
"""

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2

from tests.houses import House

REPORT = Path(__file__).parent / "results" / "load.html"
COUNTED_WITHIN_S = 60
CLIENTS = 8
"""Threads that talk to the API at once."""

HOSTNAMES = (None, None, None, "go.example", "xn--strae-oqa.example")
DESTINATIONS = (
    "https://www.example.com/landing/{}?utm_source=load&utm_medium=link",
    "https://shop.example.com/de/straße/{}#größen",
    "http://example.com:8080/{}?q=%20a%2Fb&empty=",
)


@dataclass
class Figures:
    """What the visitors saw, as `benchmarks/locustfile.py` writes it."""

    requests: int
    failures: int
    per_second: float
    p50_ms: float
    p95_ms: float
    p99_ms: float
    seen: dict[str, int]
    """The redirects that visitors were given, by hostname and path."""


def main() -> None:
    """Print the figures; fail with a sentence for everything that is wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--visitors", type=int, default=100, help="how many follow links at once")
    parser.add_argument("--links", type=int, default=2000)
    arguments = parser.parse_args()
    if importlib.util.find_spec("locust") is None:
        sys.exit("locust is not installed; `make load` installs it.")
    with _house() as house, house.api() as api:
        links = _make(api, arguments.links)
        print(f"{len(links)} links, {arguments.visitors} visitors, {arguments.seconds} s", flush=True)
        figures, problems = _visit(house, links, arguments.visitors, arguments.seconds)
        counted = _counted(api, links, figures.seen)
    problems += _differences(figures.seen, counted)
    print(f"requests    {figures.requests}, {figures.per_second:.0f} per second")
    print(f"latency     p50 {figures.p50_ms:.0f} ms   p95 {figures.p95_ms:.0f} ms   p99 {figures.p99_ms:.0f} ms")
    print(f"failures    {figures.failures}")
    print(f"recorded    {sum(figures.seen.values())} redirects that visitors were given")
    print(f"counted     {sum(counted.values())} clicks")
    if problems:
        sys.exit("\n".join(problems))


@contextmanager
def _house() -> Iterator[House]:
    with tempfile.TemporaryDirectory() as directory:
        house = House(Path(directory) / "home")
        house.start()
        try:
            house.wait_until_ready()
            yield house
        finally:
            house.stop()


def _make(api: httpx2.Client, count: int) -> list[dict[str, Any]]:
    """Links as the API answers them: on several hosts, with random paths and some chosen ones."""

    def make(number: int) -> dict[str, Any]:
        fields = {"destination": DESTINATIONS[number % len(DESTINATIONS)].format(number)}
        if hostname := HOSTNAMES[number % len(HOSTNAMES)]:
            fields["hostname"] = hostname
        if number % 10 == 0:
            fields["path"] = f"/herbst/größe-{number}"
        made = api.post("/links", json=fields)
        made.raise_for_status()
        return dict(made.json()["data"])

    with ThreadPoolExecutor(CLIENTS) as clients:
        return list(clients.map(make, range(count)))


def _visit(house: House, links: list[dict[str, Any]], visitors: int, seconds: int) -> tuple[Figures, list[str]]:
    """Let locust run. Its figures, and what is wrong with its run."""
    REPORT.parent.mkdir(exist_ok=True)
    listed, written = house.home / "load.links.json", house.home / "load.figures.json"
    listed.write_text(json.dumps(links))
    options = {
        "--locustfile": Path(__file__).with_name("locustfile.py"),
        "--host": house.edge_url.replace("localhost", "127.0.0.1"),
        "--users": visitors,
        "--spawn-rate": visitors,
        "--run-time": f"{seconds}s",
        # Longer than a visitor waits for an answer: nobody leaves whose redirect the edge may have recorded.
        "--stop-timeout": 70,
        "--exit-code-on-error": 1,
        "--html": REPORT,
    }
    ran = subprocess.run(
        [sys.executable, "-m", "locust", "--headless", "--only-summary"]
        + [str(word) for option in options.items() for word in option],
        env={**os.environ, "LOAD_LINKS": str(listed), "LOAD_FIGURES": str(written)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if not written.exists():
        sys.exit(f"locust did not run to its end:\n{ran.stdout}")
    figures = Figures(**json.loads(written.read_text()))
    problems = []
    if ran.returncode or figures.failures:
        problems.append(
            f"{figures.failures} answers were unexpected. The end of what locust said:\n{ran.stdout[-6000:]}"
        )
    if not figures.seen:
        problems.append("No visitor was redirected.")
    return figures, problems


def _counted(api: httpx2.Client, links: list[dict[str, Any]], seen: dict[str, int]) -> dict[str, int]:
    """What the API counts of each link, once two readings in a row agree with what was seen; else the last reading."""

    def total(link: dict[str, Any]) -> int:
        answer = api.get(f"/links/{link['id']}/stats")
        answer.raise_for_status()
        return int(answer.json()["data"]["total"])

    deadline = time.monotonic() + COUNTED_WITHIN_S
    agreed = False
    with ThreadPoolExecutor(CLIENTS) as clients:
        while True:
            totals = clients.map(total, links)
            counted = {link["hostname"] + link["path"]: clicks for link, clicks in zip(links, totals, strict=True)}
            agrees = not _differences(seen, counted)
            if (agrees and agreed) or time.monotonic() > deadline:
                return counted
            agreed = agrees


def _differences(seen: dict[str, int], counted: dict[str, int]) -> list[str]:
    """A sentence, if there is something to say."""
    different = [address for address in counted if counted[address] != seen.get(address, 0)]
    if not different:
        return []
    example = different[0]
    return [
        f"{len(different)} links have not as many clicks as visitors were redirected, such as {example}: "
        f"{counted[example]} counted, {seen.get(example, 0)} seen."
    ]


if __name__ == "__main__":
    main()
