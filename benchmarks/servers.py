"""The servers of benchmarks: those that are compared on a core of their own (nginx, plain Starlette routes, the edge as
it is run), and those that the worker works with."""

import json
import os
import random
import secrets
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import httpx2
import redis as redis_py

from admin import embedded
from admin.embedded import free_port
from edge.segments import COUNTS_SUFFIX, SpoolReader
from shared import clicks
from shared.clicks import Batch
from shared.entries import Entry
from shared.links import MARKER_KEY, Address, Marker, Published
from tests.servers import run

HOST = "bench.example"
SERVER_CORE, CLIENT_CORE = "0", "1"


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


class Edge(NamedTuple):
    """An edge that runs: its port, its pids, and where its spools are."""

    port: int
    parent: int
    workers: list[int]
    shipper: list[int]
    spools: Path

    def recorded(self) -> int:
        """How many clicks its spools have had."""
        found = 0
        for path in self.spools.glob("*" + COUNTS_SUFFIX):
            reader = SpoolReader(path.parent, path.stem)
            found += reader.counts.recorded
            reader.close()
        return found


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
    with running(command, {}, port) as pid:
        yield Server(port, children_of(pid), [])


@contextmanager
def starlette(links: Links, kind: str) -> Iterator[Server]:
    """A route such as one would write first."""
    port = free_port()
    (links.directory / "links.json").write_text(json.dumps({path: destination(path) for path in links.paths}))
    command = [sys.executable, "-m", "benchmarks.plain_starlette", kind, str(port)]
    environment = {"LINKS": str(links.directory / "links.json"), "REDIS_URL": links.redis_url}
    with running(command, environment, port) as pid:
        yield Server(port, [pid], [])


@contextmanager
def edge(links: Links) -> Iterator[Server]:
    """The edge as it is run, and something that takes clicks off the stream."""
    home = links.directory / "home"
    shutil.rmtree(home, ignore_errors=True)
    with started_edge(home, links.redis_url, SERVER_CORE) as edge, Taker(links.redis_url) as taker:
        yield Server(edge.port, edge.workers, edge.shipper, edge.recorded, lambda: taker.wait_for(edge.recorded()))


@contextmanager
def started_edge(home: Path, redis_url: str, core: str | None = None) -> Iterator[Edge]:
    """A parent, one worker and the shipper until the block ends."""
    port = free_port()
    environment = {
        "LINKWIRE_HOME": str(home),
        "LINKWIRE_EDGE_PORT": str(port),
        "LINKWIRE_METRICS_PORT": str(free_port()),
        "LINKWIRE_SPOOL_MAX_BYTES": str(2**35),
        "REDIS_URL": redis_url,
    }
    with running([sys.executable, "-m", "edge"], environment, port, "/readyz", core) as pid:
        children = {child: Path(f"/proc/{child}/cmdline").read_text() for child in children_of(pid)}
        workers = [child for child, command in children.items() if "--socket" in command]
        shipper = [child for child, command in children.items() if "shipper" in command]
        yield Edge(port, pid, workers, shipper, home / "spool")


@contextmanager
def started_worker(home: Path, postgres_url: str, redis_url: str) -> Iterator[int]:
    """The worker until the block ends; its pid."""
    environment = {
        "LINKWIRE_HOME": str(home),
        "LINKWIRE_PUBLIC_URL": "http://localhost",
        "LINKWIRE_SECRET": secrets.token_urlsafe(32),
        "LINKWIRE_METRICS_PORT": "",
        "DATABASE_URL": postgres_url,
        "REDIS_URL": redis_url,
    }
    with (home / "logs/worker.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "admin", "work"], env={**os.environ, **environment}, stdout=log, stderr=log
        )
    try:
        yield process.pid
    finally:
        process.terminate()
        process.wait(30)


@asynccontextmanager
async def started(server: embedded.Server) -> AsyncIterator[tuple[str, int]]:
    """An embedded server until the block ends; its URL and its pid."""
    process = run(server)
    try:
        await embedded.wait_until_ready(server)
        yield server.url, process.pid
    finally:
        process.send_signal(server.command.stop_signal)
        process.wait(60)


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
def running(
    command: list[str], environment: dict[str, str], port: int, path: str = "/", core: str | None = SERVER_CORE
) -> Iterator[int]:
    """Run a command until the block ends, on the server's core or another or (None) on any; wait for it to answer."""
    process = subprocess.Popen(
        [*(["taskset", "-c", core] if core else []), *command],
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


def cpu_s(pids: list[int]) -> float:
    """Seconds of CPU that these processes have used, in user and in kernel mode."""
    ticks = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def cpu_of_all_s(pids: list[int]) -> float:
    """The same, with all that they have started, also what has ended since."""
    ticks = 0
    for pid in pids:
        ticks += sum(map(int, Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:15]))
    return ticks / os.sysconf("SC_CLK_TCK") + cpu_s([child for pid in pids for child in children_of(pid)])


def rss_mb(pids: list[int]) -> float:
    """Memory that these processes have, in millions of bytes."""
    return sum(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in pids) * 4096 / 1e6


def children_of(pid: int) -> list[int]:
    """The pids of the processes it has started and not outlived."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@contextmanager
def published(directory: Path, count: int) -> Iterator[Links]:
    """Publish the links to a Valkey of our own."""
    (directory / "logs").mkdir()
    paths = random_paths(count)
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
        publish(client, {path: Entry(number, 1, destination(path)) for number, path in enumerate(paths, start=1)})
        yield Links(paths, directory, server.url)
    finally:
        process.terminate()
        process.wait(10)


def random_paths(count: int) -> list[str]:
    """Such as links get; the same with each run."""
    random.seed(7)
    alphabet = "23456789abcdefghijkmnpqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ"
    return list(dict.fromkeys("/" + "".join(random.choices(alphabet, k=7)) for _ in range(count)))


def publish(client: redis_py.Redis, entries: Mapping[str, Entry]) -> None:
    """Have links by their paths, and say that these are all."""
    writing = client.pipeline(transaction=False)
    for path, entry in entries.items():
        writing.set(Address(HOST, path).key, Published(entry.link_id, entry).to_bytes())
    writing.set(MARKER_KEY, Marker("bench", client.info("server")["run_id"]).to_bytes())
    writing.execute()
