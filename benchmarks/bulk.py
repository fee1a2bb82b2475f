"""What do 1,000 new links in one request cost? CPU of the API's process, and of everything that runs.

`make bench-bulk`. Reach: 600 ms of the API's process, aim for 250.
"""

import json
import statistics
import tempfile
from pathlib import Path

from benchmarks.servers import cpu_s
from tests.houses import House

ROUNDS = 15
LINKS = 1000
RESULTS = Path(__file__).parent / "results"


def main() -> None:
    """Measure and tell."""
    with tempfile.TemporaryDirectory() as directory:
        house = House(Path(directory) / "home")
        house.start()
        try:
            house.wait_until_ready()
            api_ms, all_ms = _measure(house)
        finally:
            house.stop()
    for name, each in (("the API's process", api_ms), ("everything", all_ms)):
        print(f"{name:18} {statistics.median(each):6.0f} ms of CPU, from {min(each):.0f} to {max(each):.0f}")
    RESULTS.joinpath("bulk.json").write_text(json.dumps({"api_ms": api_ms, "all_ms": all_ms}, indent=2) + "\n")


def _measure(house: House) -> tuple[list[float], list[float]]:
    api_ms, all_ms = [], []
    serving = house.pids("admin serve")
    with house.api() as api:
        for number in range(ROUNDS):
            new = [
                {
                    "destination": f"https://{index % 50}.example/{number}/{index}",
                    "title": f"Link {index}",
                    "tags": ["a"],
                }
                for index in range(LINKS)
            ]
            before, all_before = cpu_s(serving), cpu_s(list(house.processes()))
            answer = api.post("/links/bulk", json={"links": new})
            api_ms.append((cpu_s(serving) - before) * 1000)
            all_ms.append((cpu_s(list(house.processes())) - all_before) * 1000)
            if not answer.json()["success"]:
                raise SystemExit(f"a link was refused: {answer.text[:500]}")
    return api_ms, all_ms


if __name__ == "__main__":
    main()
