"""How many links are imported in a second, published ones, and does an import need more memory the longer it is?

`make bench-imports`. Promise: 4,000 rows a second on two cores, aim for 10,000, and memory that does not grow. From the
request that sends the file until its last link was published, on a whole Linkwire: API, worker, edge and both servers.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks.servers import cpu_of_all_s, rss_mb
from tests.houses import House, wait_for

RESULTS = Path(__file__).parent / "results"
PROMISED = 4_000


def main() -> None:
    """Measure and tell."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--rows", type=int, default=100_000)
    rows = arguments.parse_args().rows
    with tempfile.TemporaryDirectory() as directory:
        house = House(Path(directory) / "home", LINKWIRE_CHECK_DESTINATIONS="0")
        house.start()
        try:
            house.wait_until_ready()
            figures = _measure(house, rows)
        finally:
            house.stop()
    for name, value in figures.items():
        print(f"{name:28} {value:12,.1f}")
    print(f"{'promised rows a second':28} {PROMISED:12,.1f}")
    RESULTS.joinpath("imports.json").write_text(json.dumps(figures, indent=2) + "\n")


def _measure(house: House, rows: int) -> dict[str, float]:
    processes = {
        "the worker": house.pids("admin work"),
        "the API": house.pids("admin serve"),
        "Postgres": house.pids(f"-D {house.home}/postgres"),
        "Valkey": house.pids("valkey-server"),
        "the edge": house.pids("-m edge"),
    }
    [worker] = processes["the worker"]
    _import(house, 2_000, "warm", lambda: None)  # so that what is loaded once is no growth
    used = {name: cpu_of_all_s(pids) for name, pids in processes.items()}
    rested_mb = rss_mb([worker])
    seen_mb: list[float] = []
    begun = time.monotonic()
    _import(house, rows, "full", lambda: seen_mb.append(rss_mb([worker])))
    took_s = time.monotonic() - begun
    third = max(1, len(seen_mb) // 3)
    return {
        "rows": rows,
        "rows a second": rows / took_s,
        **{
            f"CPU of {name}, us a row": (cpu_of_all_s(pids) - used[name]) * 1e6 / rows
            for name, pids in processes.items()
        },
        "worker at rest, MB": rested_mb,
        "in the first third, MB": max(seen_mb[:third]),
        "in the last third, MB": max(seen_mb[-third:]),
    }


def _import(house: House, rows: int, name: str, look: Callable[[], None]) -> None:
    """Import links that are new, and see that the last one is followed when the import has finished."""
    with house.api() as api:
        headers = {"Content-Type": "text/csv"}
        sent = api.post("/imports", params={"source": "dub"}, content=_file(rows, name), headers=headers, timeout=600)
        sent.raise_for_status()
        told = sent.json()["data"]["attributes"]
        while told["status"] in ("pending", "running"):
            time.sleep(0.1)
            look()
            told = api.get(f"/imports/{sent.json()['data']['id']}").json()["data"]["attributes"]
    if told["counts"]["created"] != rows:
        raise SystemExit(f"not all were imported: {told}")
    wait_for(lambda: house.visit(f"/{name}-{rows - 1}").status_code == 302, 60)


def _file(rows: int, name: str) -> Iterator[bytes]:
    """As Dub exports links."""
    yield b"Short link,Destination URL,Clicks,Created at,Tags\n"
    for first in range(0, rows, 1000):
        yield "".join(
            f"https://short.example/{name}-{number},https://www{number % 500}.example.com/landing/page/{number}"
            f'?utm_source=mail&utm_campaign=spring,{number % 1000},2026-02-03T09:10:11.000Z,"news, spring"\n'
            for number in range(first, min(first + 1000, rows))
        ).encode()


if __name__ == "__main__":
    main()
