"""What do a million published links cost, in Redis and in an edge worker that remembers a tenth of them?

Publishes the links to a Valkey of its own and prints its bytes per link (the promise is 350). Then visitors follow them
through an edge with one worker and its default memory, popular links more often than others (Zipf, exponent 1). Prints
the worker's anonymous memory (the promise is 250 MB), and for how many of the requests it knew the link without asking
Redis: while its memory fills, and afterwards.

A link that the worker does not remember costs one GET. The GETs that it sends while nobody visits, for the marker of
completeness, are left out; those of the shipper do not happen, because it stands still meanwhile.

Run it with `make bench-memory`. It needs wrk and taskset on the PATH (Debian: apt-get install wrk util-linux).
"""

import argparse
import json
import os
import platform
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from itertools import accumulate
from pathlib import Path

import redis as redis_py

from admin import embedded
from admin.embedded import free_port
from admin.links.taken import PATH_ALPHABET, PATH_LENGTH
from benchmarks.servers import children_of, running
from shared.entries import Entry
from shared.links import MARKER_KEY, Address, Marker, Published

RESULTS = Path(__file__).parent / "results"
HOST = "bench.example"
AGENT = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36"
CHUNK = 10_000
DRAWS = 1_000_000
CONNECTIONS = 64
IDLE_S = 5
PROMISED_BYTES, PROMISED_MB = 350, 250


@dataclass
class Visits:
    """One run of visitors."""

    requests: int
    per_second: float
    hit_ratio: float
    """How many of the requests needed no lookup in Redis."""
    errors: int
    """Requests that were not redirected: their lookup took too long, and they were answered 503."""


def main() -> None:
    """Measure and print; write the figures to `benchmarks/results/`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--links", type=int, default=1_000_000)
    parser.add_argument("--seconds", type=int, default=60, help="of each of the two runs of visitors")
    arguments = parser.parse_args()
    for tool in ("wrk", "taskset"):
        if shutil.which(tool) is None:
            raise SystemExit(f"{tool} is not installed (Debian: apt-get install wrk util-linux)")
    random.seed(7)
    paths = _paths(arguments.links)
    with tempfile.TemporaryDirectory() as temporary, _valkey(Path(temporary)) as (redis, url):
        bytes_per_link = _publish(redis, paths) / len(paths)
        print(
            f"Redis       {bytes_per_link:.0f} bytes per link, of {len(paths)} (promise: {PROMISED_BYTES})", flush=True
        )
        with _edge(Path(temporary), url) as (port, worker):
            began_with_mb = _anonymous_mb(worker)
            filling = _visit(redis, Path(temporary), port, paths, arguments.seconds)
            full = _visit(redis, Path(temporary), port, paths, arguments.seconds)
            worker_mb = _anonymous_mb(worker)
    print(f"edge worker {worker_mb:.0f} MB, {began_with_mb:.0f} MB before the first visitor (promise: {PROMISED_MB})")
    for name, visits in (("filling", filling), ("full", full)):
        print(
            f"{name:11} {visits.hit_ratio:.1%} of {visits.requests} requests from memory, "
            f"{visits.per_second:.0f} per second, {visits.errors} errors"
        )
    _write(
        {
            "links": len(paths),
            "redis_bytes_per_link": round(bytes_per_link, 1),
            "worker_anonymous_mb": round(worker_mb, 1),
            "filling": asdict(filling),
            "full": asdict(full),
        }
    )


def _paths(count: int) -> list[str]:
    """Random paths, such as links get; the first one is the most popular."""
    paths: dict[str, None] = {}
    while len(paths) < count:
        paths["/" + "".join(random.choices(PATH_ALPHABET, k=PATH_LENGTH))] = None
    return list(paths)


@contextmanager
def _valkey(directory: Path) -> "Iterator[tuple[redis_py.Redis, str]]":
    (directory / "logs").mkdir()
    server = embedded.valkey(directory)
    process = subprocess.Popen(server.command.argv, stdout=subprocess.DEVNULL)
    try:
        redis = redis_py.Redis.from_url(server.url)
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            try:
                redis.ping()
                break
            except redis_py.ConnectionError:
                time.sleep(0.05)
        yield redis, server.url
    finally:
        process.terminate()
        process.wait(30)


def _publish(redis: redis_py.Redis, paths: list[str]) -> int:
    """Bring all links to Redis; the bytes that they take there."""
    before = redis.info("memory")["used_memory"]
    for first in range(0, len(paths), CHUNK):
        writing = redis.pipeline(transaction=False)
        for number, path in enumerate(paths[first : first + CHUNK], start=first + 1):
            destination = f"https://www.example.com/landing/page{path}?utm_source=link"
            value = Published(number, Entry(number, number % 1000 + 1, destination)).to_bytes()
            writing.set(Address(HOST, path).key, value)
        writing.execute()
    redis.set(MARKER_KEY, Marker("bench", redis.info("server")["run_id"]).to_bytes())
    while (state := redis.info("persistence"))["aof_rewrite_in_progress"] or state["aof_rewrite_scheduled"]:
        time.sleep(0.2)
    return int(redis.info("memory")["used_memory"] - before)


@contextmanager
def _edge(directory: Path, redis_url: str) -> Iterator[tuple[int, int]]:
    """The edge as it is run; its port and its worker's pid. The shipper is stopped until the block ends."""
    port = free_port()
    environment = {
        "LINKWIRE_HOME": str(directory / "home"),
        "LINKWIRE_EDGE_PORT": str(port),
        "LINKWIRE_METRICS_PORT": "",
        "LINKWIRE_EDGE_WORKERS": "1",
        "LINKWIRE_EDGE_MEMORY_ENTRIES": "",
        "REDIS_URL": redis_url,
    }
    with running([sys.executable, "-m", "edge"], environment, port, "/readyz") as parent:
        commands = {child: Path(f"/proc/{child}/cmdline").read_text() for child in children_of(parent)}
        [shipper] = [child for child, command in commands.items() if "shipper" in command]
        [worker] = [child for child in commands if child != shipper]
        os.kill(shipper, signal.SIGSTOP)
        try:
            yield port, worker
        finally:
            os.kill(shipper, signal.SIGCONT)


def _visit(redis: redis_py.Redis, directory: Path, port: int, paths: list[str], seconds: int) -> Visits:
    """Let visitors follow links that are drawn anew. Fails when it is not the links that are measured."""
    weights = list(accumulate(1 / rank for rank in range(1, len(paths) + 1)))
    (directory / "paths.txt").write_text("\n".join(random.choices(paths, cum_weights=weights, k=DRAWS)))
    (directory / "wrk.lua").write_text(f"""
        local paths, visited = {{}}, 0
        for path in io.lines("{directory}/paths.txt") do paths[#paths + 1] = path end
        function request()
            visited = visited % {DRAWS} + 1
            return "GET " .. paths[visited] .. " HTTP/1.1\\r\\nHost: {HOST}\\r\\nUser-Agent: {AGENT}\\r\\n\\r\\n"
        end
        function done(summary)
            local errors = summary.errors
            io.write(string.format("FIGURES %d %d %d\\n", summary.requests, summary.duration,
                errors.status + errors.connect + errors.read + errors.timeout))
        end""")
    idle = _gets(redis)
    time.sleep(IDLE_S)
    before = _gets(redis)
    command = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s", "-s", str(directory / "wrk.lua")]
    said = subprocess.run([*command, f"http://127.0.0.1:{port}/"], capture_output=True, text=True, check=True).stdout
    found = re.search(r"FIGURES (\d+) (\d+) (\d+)", said)
    if found is None or int(found[3]) > int(found[1]) / 1000:
        raise SystemExit(f"wrk saw unexpected answers:\n{said}")
    requests, duration_s, errors = int(found[1]), int(found[2]) / 1e6, int(found[3])
    lookups = _gets(redis) - before - (before - idle) / IDLE_S * duration_s
    return Visits(requests, requests / duration_s, 1 - lookups / requests, errors)


def _gets(redis: redis_py.Redis) -> int:
    return int(redis.info("commandstats")["cmdstat_get"]["calls"])


def _anonymous_mb(pid: int) -> float:
    found = re.search(r"^RssAnon:\s+(\d+) kB$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1]) * 1024 / 1e6


def _write(figures: dict[str, object]) -> None:
    RESULTS.mkdir(exist_ok=True)
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
    about = {
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}",
    }
    (RESULTS / "memory.json").write_text(json.dumps({**about, **figures}, indent=1) + "\n")


if __name__ == "__main__":
    main()
