"""What does a redirect cost, beside nginx's static `return 302`?

Runs four servers in turn, several times, each on core 0 with wrk on core 1: nginx (a `map` of all links and a buffered
access log), a Starlette route with a dict, a Starlette route with one Redis GET and one XADD, and the edge with its
shipper. Same links, same full browser headers, random slugs. Prints requests per second, latency, and CPU per request
of the serving process, as ratios to nginx of the same round; and for the edge what was recorded of what was served.
With the clients paced to half of the edge's saturated rate it prints the latency of all of them at that rate.

Run it with `make bench-redirect`. It needs nginx and wrk on the PATH (Debian: apt-get install nginx-light wrk).
"""

import argparse
import json
import os
import platform
import random
import re
import shutil
import signal
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import httpx2
import redis as redis_py

from admin import embedded
from admin.embedded import free_port
from shared import clicks
from shared.clicks import Batch
from shared.links import MARKER_KEY, Address, Entry, Marker, Published

RESULTS = Path(__file__).parent / "results"
HOST = "bench.example"
SERVER_CORE, CLIENT_CORE = "0", "1"
HEADERS = {
    "Host": HOST,
    "Connection": "keep-alive",
    "sec-ch-ua": '"Chromium";v="142", "Google Chrome";v="142", "Not_A Brand";v="99"',
    "sec-ch-ua-mobile": "?0",
    "sec-ch-ua-platform": '"Windows"',
    "Upgrade-Insecure-Requests": "1",
    "User-Agent": "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 "
    "Safari/537.36",
    "Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8",
    "Sec-Fetch-Site": "cross-site",
    "Sec-Fetch-Mode": "navigate",
    "Sec-Fetch-User": "?1",
    "Sec-Fetch-Dest": "document",
    "Referer": "https://www.example.com/newsletter",
    "Accept-Encoding": "gzip, deflate, br, zstd",
    "Accept-Language": "de-DE,de;q=0.9,en;q=0.8",
}


@dataclass
class Figures:
    """One run of one server."""

    requests: int
    per_second: float
    p50_ms: float
    p99_ms: float
    cpu_us: float
    """CPU of the serving process per request, in microseconds."""
    beside_us: float
    """The same of processes that work beside it: the shipper."""
    rss_mb: float
    recorded: float | None = None
    """What was recorded of what was served; None where nothing is recorded."""


class Server(NamedTuple):
    """A server that runs: its port, the pids that serve, and those beside."""

    port: int
    serving: list[int]
    beside: list[int]
    recorded: Callable[[], int] | None = None
    settle: Callable[[], None] = lambda: None
    """Waits until what works beside has done what there was to do."""


class Links(NamedTuple):
    """The links of all servers, and the Redis that has them."""

    paths: list[str]
    directory: Path
    redis_url: str


def destination(path: str) -> str:
    """Where a link leads."""
    return f"https://www.example.com/landing{path}?utm_source=bench"


@contextmanager
def nginx(links: Links) -> Iterator[Server]:
    """The yardstick: one worker, all links in a map, a buffered log line per request."""
    port, directory = free_port(), links.directory
    (directory / "links.map").write_text("".join(f"{HOST}{path} {destination(path)};\n" for path in links.paths))
    (directory / "nginx.conf").write_text(f"""
        daemon off; worker_processes 1; pid {directory}/nginx.pid; error_log {directory}/nginx.log;
        events {{ worker_connections 4096; }}
        http {{
            map_hash_max_size 262144; map_hash_bucket_size 128;
            map $host$uri $destination {{ include {directory}/links.map; }}
            log_format click '$msec $remote_addr $host $request_uri "$http_user_agent" "$http_referer"';
            access_log {directory}/access.log click buffer=64k;
            keepalive_requests 1000000000;
            client_body_temp_path {directory}/b; proxy_temp_path {directory}/p; fastcgi_temp_path {directory}/f;
            uwsgi_temp_path {directory}/u; scgi_temp_path {directory}/s;
            server {{
                listen 127.0.0.1:{port};
                location / {{ add_header Cache-Control "private, no-store"; return 302 $destination; }}
            }}
        }}""")
    command = ["nginx", "-c", str(directory / "nginx.conf"), "-p", str(directory), "-e", str(directory / "nginx.log")]
    with _running(command, {}, port) as pid:
        yield Server(port, _children(pid), [])


@contextmanager
def starlette(links: Links, kind: str) -> Iterator[Server]:
    """A route such as one would write first."""
    port = free_port()
    (links.directory / "links.json").write_text(json.dumps({path: destination(path) for path in links.paths}))
    command = [sys.executable, "-m", "benchmarks.plain_starlette", kind, str(port)]
    environment = {"LINKS": str(links.directory / "links.json"), "REDIS_URL": links.redis_url}
    with _running(command, environment, port) as pid:
        yield Server(port, [pid], [])


@contextmanager
def edge(links: Links) -> Iterator[Server]:
    """The edge as it is run: a parent, one worker, the shipper; and something that takes clicks off the stream."""
    port, home = free_port(), links.directory / "home"
    shutil.rmtree(home, ignore_errors=True)
    environment = {
        "LINKWIRE_HOME": str(home),
        "LINKWIRE_EDGE_PORT": str(port),
        "LINKWIRE_METRICS_PORT": str(free_port()),
        "LINKWIRE_SPOOL_MAX_BYTES": str(2**35),
        "REDIS_URL": links.redis_url,
    }

    def recorded() -> int:
        return sum(struct.unpack_from("=QQQ", file.read_bytes())[1] for file in (home / "spool").glob("*.spool"))

    with (
        _running([sys.executable, "-m", "edge"], environment, port, "/readyz") as pid,
        Taker(links.redis_url) as taker,
    ):
        children = {child: Path(f"/proc/{child}/cmdline").read_text() for child in _children(pid)}
        serving = [child for child, command in children.items() if "--socket" in command]
        beside = [child for child, command in children.items() if "shipper" in command]
        yield Server(port, serving, beside, recorded, lambda: taker.wait_for(recorded()))


class Taker:
    """Takes clicks off the stream and says that they are committed, as ingest does, but keeps nothing."""

    def __init__(self, redis_url: str) -> None:
        self._redis = redis_py.Redis.from_url(redis_url)
        self._redis.delete(clicks.STREAM, clicks.COMMITTED_KEY, clicks.REPORTS_KEY)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._take)
        self._positions: dict[str, int] = {}

    def __enter__(self) -> "Taker":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._redis.close()

    def _take(self) -> None:
        last: Any = "0"
        while not self._stop.is_set():
            answer: Any = self._redis.xread({clicks.STREAM: last}, count=20, block=200)
            for _, entries in answer or []:
                for entry_id, fields in entries:
                    last = entry_id
                    batch = Batch.from_fields(fields)
                    self._positions[batch.spool] = max(self._positions.get(batch.spool, 0), batch.end)
                self._redis.hset(clicks.COMMITTED_KEY, mapping=dict(self._positions))  # type: ignore[arg-type]
                self._redis.xtrim(clicks.STREAM, minid=last)

    def wait_for(self, count: int) -> None:
        """Until so many have been taken."""
        deadline = time.monotonic() + 60
        while sum(self._positions.values()) < count and time.monotonic() < deadline:
            time.sleep(0.05)


SERVERS: dict[str, Callable[[Links], AbstractContextManager[Server]]] = {
    "nginx": nginx,
    "starlette + dict": lambda links: starlette(links, "dict"),
    "starlette + redis": lambda links: starlette(links, "redis"),
    "edge": edge,
}


@contextmanager
def _running(command: list[str], environment: dict[str, str], port: int, path: str = "/") -> Iterator[int]:
    """Run a command on the server's core until the block ends; wait for it to answer."""
    process = subprocess.Popen(
        ["taskset", "-c", SERVER_CORE, *command],
        env={**os.environ, **environment},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + 20
        while True:
            try:
                answer = httpx2.get(f"http://127.0.0.1:{port}{path}", headers={"Host": HOST}, trust_env=False)
                if path == "/" or answer.status_code == 200:
                    break
            except httpx2.HTTPError:
                pass
            if time.monotonic() > deadline or process.poll() is not None:
                raise SystemExit(f"{command[0]} did not start")
            time.sleep(0.05)
        yield process.pid
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(20)


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _cpu_s(pids: list[int]) -> float:
    ticks = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def _rss_mb(pids: list[int]) -> float:
    return sum(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in pids) * 4096 / 1e6


def _wrk(
    directory: Path, port: int, seconds: int, connections: int, delay_ms: float = 0
) -> tuple[int, float, float, float]:
    """Requests, requests per second, p50 and p99 in milliseconds. Fails on any answer but a redirect."""
    script = directory / "wrk.lua"
    headers = ", ".join(f"[{json.dumps(name)}]={json.dumps(value)}" for name, value in HEADERS.items())
    pause = f"function delay() return math.random() * {2 * delay_ms:.3f} end" if delay_ms else ""
    script.write_text(
        f"""
        local paths = {{}}
        for line in io.lines("{directory}/paths.txt") do paths[#paths + 1] = line end
        local heads = {{}}
        wrk.headers = {{ {headers} }}
        function init() for i, path in ipairs(paths) do heads[i] = wrk.format("GET", path) end end
        function request() return heads[math.random(#heads)] end
        {pause}
        function done(summary, latency)
            io.write(string.format("FIGURES %d %d %.3f %.3f %d\\n", summary.requests, summary.duration,
                latency:percentile(50) / 1000, latency:percentile(99) / 1000,
                summary.errors.status + summary.errors.connect + summary.errors.read + summary.errors.timeout))
        end"""
    )
    command = ["taskset", "-c", CLIENT_CORE, "wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "-s", str(script)]
    said = subprocess.run([*command, f"http://127.0.0.1:{port}/"], capture_output=True, text=True, check=True).stdout
    found = re.search(r"FIGURES (\d+) (\d+) (\S+) (\S+) (\d+)", said)
    if found is None or int(found[5]):
        raise SystemExit(f"wrk saw unexpected answers:\n{said}")
    requests = int(found[1])
    return requests, requests / int(found[2]) * 1e6, float(found[3]), float(found[4])


def _follow_all(port: int, paths: list[str]) -> None:
    """So that the edge remembers them."""
    with socket.create_connection(("127.0.0.1", port)) as connection:
        for path in paths:
            connection.sendall(f"GET {path} HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode())
            answer = b""
            while not answer.endswith(b"\r\n\r\n"):
                answer += connection.recv(65536)
            assert answer.startswith(b"HTTP/1.1 302 "), answer


def measure(server: Server, links: Links, seconds: int, connections: int, delay_ms: float = 0) -> Figures:
    """One run, after each link was followed once and a short run to warm up."""
    if server.recorded:
        _follow_all(server.port, (links.directory / "paths.txt").read_text().split())
    _wrk(links.directory, server.port, 2, connections, delay_ms)
    server.settle()
    before = server.recorded() if server.recorded else 0
    serving, beside = _cpu_s(server.serving), _cpu_s(server.beside)
    requests, per_second, p50, p99 = _wrk(links.directory, server.port, seconds, connections, delay_ms)
    serving = _cpu_s(server.serving) - serving
    server.settle()
    beside = _cpu_s(server.beside) - beside
    return Figures(
        requests,
        per_second,
        p50,
        p99,
        serving / requests * 1e6,
        beside / requests * 1e6,
        _rss_mb(server.serving),
        (server.recorded() - before) / requests if server.recorded else None,
    )


def main() -> None:
    """Run and print; write the figures to `benchmarks/results/`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=6)
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--links", type=int, default=100_000)
    parser.add_argument("--only", nargs="*", choices=list(SERVERS), default=list(SERVERS))
    arguments = parser.parse_args()
    for tool in ("nginx", "wrk", "taskset"):
        if shutil.which(tool) is None:
            raise SystemExit(f"{tool} is not installed (Debian: apt-get install nginx-light wrk util-linux)")
    os.sched_setaffinity(0, {int(CLIENT_CORE)})
    with tempfile.TemporaryDirectory() as temporary:
        directory = Path(temporary)
        with _links(directory, arguments.links) as links:
            runs: dict[str, list[Figures]] = {name: [] for name in arguments.only}
            paced: dict[str, list[Figures]] = {name: [] for name in arguments.only}
            for _ in range(arguments.rounds):
                for name in arguments.only:
                    with SERVERS[name](links) as server:
                        runs[name].append(measure(server, links, arguments.seconds, arguments.connections))
                # Nobody is asked for more than half of what the edge can do, and all for the same.
                half = runs["edge" if "edge" in runs else arguments.only[0]][-1].per_second / 2
                delay_ms = arguments.connections / half * 1000
                for name in arguments.only:
                    with SERVERS[name](links) as server:
                        paced[name].append(measure(server, links, arguments.seconds, arguments.connections, delay_ms))
    _report(runs, paced)


@contextmanager
def _links(directory: Path, count: int) -> Iterator[Links]:
    """Publish the links to a Valkey of our own."""
    (directory / "logs").mkdir()
    random.seed(7)
    alphabet = "23456789abcdefghijkmnpqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ"
    paths = list({"/" + "".join(random.choices(alphabet, k=7)) for _ in range(count)})
    (directory / "paths.txt").write_text("\n".join(random.sample(paths, min(10_000, len(paths)))))
    server = embedded.valkey(directory)
    process = subprocess.Popen(["taskset", "-c", CLIENT_CORE, *server.command.argv], stdout=subprocess.DEVNULL)
    try:
        client = redis_py.Redis.from_url(server.url)
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            try:
                client.ping()
                break
            except redis_py.ConnectionError:
                time.sleep(0.05)
        writing = client.pipeline(transaction=False)
        for number, path in enumerate(paths, start=1):
            value = Published(number, Entry(number, 1, destination(path))).to_bytes()
            writing.set(Address(HOST, path).key, value)
        writing.set(MARKER_KEY, Marker("bench", client.info("server")["run_id"]).to_bytes())
        writing.execute()
        yield Links(paths, directory, server.url)
    finally:
        process.terminate()
        process.wait(10)


def _median(figures: list[Figures], name: str) -> float:
    return float(statistics.median(getattr(one, name) for one in figures))


def _report(runs: dict[str, list[Figures]], paced: dict[str, list[Figures]]) -> None:
    columns = ("per_second", "p50_ms", "p99_ms", "cpu_us", "beside_us", "rss_mb")
    print(
        f"{'saturated':18}" + "".join(f"{name:>11}" for name in (*columns, "recorded")) + "   CPU ÷ nginx (all of it)"
    )
    for name, figures in runs.items():
        yard = runs.get("nginx", figures)
        alone = [one.cpu_us / nginx.cpu_us for one, nginx in zip(figures, yard, strict=True)]
        both = [(one.cpu_us + one.beside_us) / nginx.cpu_us for one, nginx in zip(figures, yard, strict=True)]
        recorded = figures[-1].recorded
        print(
            f"{name:18}"
            + "".join(f"{_median(figures, column):11.2f}" for column in columns)
            + (f"{'-':>11}" if recorded is None else f"{recorded:11.4f}")
            + f"   {statistics.median(alone):.2f}, from {min(alone):.2f} to {max(alone):.2f}"
            + f" ({statistics.median(both):.2f})"
        )
    print(f"\n{'paced to half':18}" + "".join(f"{name:>11}" for name in columns[:3]) + "   p99 ÷ nginx")
    for name, figures in paced.items():
        yard = paced.get("nginx", figures)
        ratios = [one.p99_ms / nginx.p99_ms for one, nginx in zip(figures, yard, strict=True)]
        print(
            f"{name:18}"
            + "".join(f"{_median(figures, column):11.2f}" for column in columns[:3])
            + f"   {statistics.median(ratios):.2f}"
        )
    RESULTS.mkdir(exist_ok=True)
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
    written = RESULTS / "redirect.json"
    written.write_text(
        json.dumps(
            {
                "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
                "commit": commit,
                "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}",
                "saturated": {name: [asdict(one) for one in figures] for name, figures in runs.items()},
                "paced": {name: [asdict(one) for one in figures] for name, figures in paced.items()},
            },
            indent=1,
        )
        + "\n"
    )


if __name__ == "__main__":
    main()
