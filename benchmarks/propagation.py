"""How long after the API has answered does an edge worker still answer with the old state?

Changes a link that all workers of an edge remember (and makes links where they remember a 404), asks each worker
without a pause until it answers with the new state, and prints the delay of the slowest worker, counted from the API's
answer. The promise is 50 ms at p99. The time of one request to each worker is part of every figure, and is printed
beside it. Run it with `make bench-propagation`.

The workers share one listening socket, and a connection stays with the worker that accepted it. So there is one
connection per worker, found by opening connections until each worker has one.
"""

import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path

from tests.houses import House

CHANGES = 300
WORKERS = 4
GIVE_UP_AFTER_S = 10
_CONNECTIONS = 1000
_ESTABLISHED = "01"


def main() -> None:
    """Print the figures."""
    with tempfile.TemporaryDirectory() as directory:
        house = House(Path(directory) / "home", LINKWIRE_EDGE_WORKERS=str(WORKERS))
        house.start()
        try:
            house.wait_until_ready()
            with ExitStack() as opened:
                _measure(house, _one_per_worker(house, opened))
        finally:
            house.stop()


def _measure(house: House, workers: list[HTTPConnection]) -> None:
    requests, edits, creations = [], [], []
    with house.api() as api:
        link = api.post("/links", json={"destination": "https://example.com/", "path": "/edited"}).json()["data"]
        for _ in range(CHANGES):
            requests.append(_until_all(workers, "/edited", lambda answer: answer.status == 302))
        for number in range(CHANGES):
            destination = f"https://example.com/{number}"
            api.put(f"/links/{link['id']}", json={"destination": destination}).raise_for_status()
            edits.append(_until_all(workers, "/edited", _leads_to(destination)))
        for number in range(CHANGES):
            path = f"/new-{number}"
            _until_all(workers, path, lambda answer: answer.status == 404)
            api.post("/links", json={"destination": "https://example.com/", "path": path}).raise_for_status()
            creations.append(_until_all(workers, path, _leads_to("https://example.com/")))
    print(f"the slowest of {len(workers)} workers, {CHANGES} times (promise: 50 ms at p99)")
    for name, delays in (("one request to each", requests), ("edits", edits), ("links where a 404 was", creations)):
        p99 = statistics.quantiles(delays, n=100)[98]
        print(f"{name:24} p50 {statistics.median(delays):6.2f} ms   p99 {p99:6.2f} ms   worst {max(delays):6.2f} ms")


def _until_all(workers: list[HTTPConnection], path: str, holds: Callable[[HTTPResponse], bool]) -> float:
    """Milliseconds until it holds for the answers of all workers, which are asked at once: none waits its turn."""
    began_at = time.perf_counter()
    waiting = workers
    while waiting:
        if time.perf_counter() - began_at > GIVE_UP_AFTER_S:
            raise SystemExit(f"{len(waiting)} workers still give the old answer for {path} after {GIVE_UP_AFTER_S} s.")
        for worker in waiting:
            worker.request("GET", path, headers={"Host": "localhost"})
        waiting = [worker for worker in waiting if not holds(_answer(worker))]
    return (time.perf_counter() - began_at) * 1000


def _leads_to(destination: str) -> Callable[[HTTPResponse], bool]:
    return lambda answer: answer.headers["location"] == destination


def _answer(worker: HTTPConnection) -> HTTPResponse:
    answer = worker.getresponse()
    answer.read()
    return answer


def _one_per_worker(house: House, opened: ExitStack) -> list[HTTPConnection]:
    """A connection to each worker."""
    by_pid: dict[int, HTTPConnection] = {}
    for _ in range(_CONNECTIONS):
        port = int(house.environment["LINKWIRE_EDGE_PORT"])
        connection = opened.enter_context(closing(HTTPConnection("127.0.0.1", port)))
        connection.request("GET", "/healthz")
        _answer(connection)  # now it has been accepted
        connection.auto_open = 0  # another connection would be to any worker
        by_pid.setdefault(_served_by(house, connection), connection)
        if len(by_pid) == WORKERS:
            return list(by_pid.values())
    raise SystemExit(f"{_CONNECTIONS} connections were accepted by {len(by_pid)} of {WORKERS} workers only.")


def _served_by(house: House, connection: HTTPConnection) -> int:
    """The pid of the process that has the other end of a connection: it holds the socket that the kernel lists."""
    ours, theirs = connection.sock.getsockname()[1], connection.sock.getpeername()[1]
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        _number, local, remote, state, *_rest = fields = line.split()
        ports = (int(local.partition(":")[2], 16), int(remote.partition(":")[2], 16))
        if ports == (theirs, ours) and state == _ESTABLISHED:
            socket = f"socket:[{fields[9]}]"
            for pid in house.pids("edge"):
                if any(str(file.readlink()) == socket for file in Path(f"/proc/{pid}/fd").iterdir()):
                    return pid
    raise SystemExit("No process of this Linkwire has the other end of a connection to its edge.")


if __name__ == "__main__":
    main()
