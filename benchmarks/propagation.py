"""How long after the API has answered does an edge still answer with the old state?

Changes a link that the edge remembers (and makes links where it remembers a 404), asks the edge without a pause until
it answers with the new state, and prints the delay from the API's answer. The promise is 50 ms at p99. The time of one
request to the edge is part of each figure, and is printed beside it. Run it with `make bench-propagation`.
"""

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import httpx2

from tests.houses import House

CHANGES = 300


def main() -> None:
    """Print the figures."""
    with tempfile.TemporaryDirectory() as directory:
        house = House(Path(directory) / "home")
        house.start()
        house.wait_until_ready()
        try:
            with house.api() as api, httpx2.Client(base_url=house.edge_url, trust_env=False) as edge:
                _measure(api, edge)
        finally:
            house.stop()


def _measure(api: httpx2.Client, edge: httpx2.Client) -> None:
    link = api.post("/links", json={"destination": "https://example.com/", "path": "/edited"}).json()["data"]
    requests = [_until(lambda: edge.get("/edited").status_code == 302) for _ in range(CHANGES)]
    edits, creations = [], []
    for number in range(CHANGES):
        destination = f"https://example.com/{number}"
        api.put(f"/links/{link['id']}", json={"destination": destination}).raise_for_status()
        edits.append(_until(lambda wanted=destination: edge.get("/edited").headers["location"] == wanted))  # type: ignore[misc]
    for number in range(CHANGES):
        path = f"/new-{number}"
        assert edge.get(path).status_code == 404
        api.post("/links", json={"destination": "https://example.com/", "path": path}).raise_for_status()
        creations.append(_until(lambda path=path: edge.get(path).status_code == 302))  # type: ignore[misc]
    for name, delays in (("one request", requests), ("edits", edits), ("links where a 404 was", creations)):
        p99 = statistics.quantiles(delays, n=100)[98]
        print(f"{name:24} p50 {statistics.median(delays):6.2f} ms   p99 {p99:6.2f} ms   worst {max(delays):6.2f} ms")


def _until(holds: Callable[[], bool]) -> float:
    """Milliseconds until it holds."""
    began_at = time.perf_counter()
    while not holds():
        pass
    return (time.perf_counter() - began_at) * 1000


if __name__ == "__main__":
    main()
