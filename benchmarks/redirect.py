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
import re
import shutil
import socket
import statistics
import subprocess
import tempfile
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.servers import CLIENT_CORE, HOST, SERVERS, Links, Server, cpu_s, published, rss_mb

RESULTS = Path(__file__).parent / "results"
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
    serving, beside = cpu_s(server.serving), cpu_s(server.beside)
    requests, per_second, p50, p99 = _wrk(links.directory, server.port, seconds, connections, delay_ms)
    serving = cpu_s(server.serving) - serving
    server.settle()
    beside = cpu_s(server.beside) - beside
    return Figures(
        requests,
        per_second,
        p50,
        p99,
        serving / requests * 1e6,
        beside / requests * 1e6,
        rss_mb(server.serving),
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
        with published(directory, arguments.links) as links:
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
