"""What do the conventions of the API cost? CPU of the server per request, with them and on a bare FastAPI route.

`make bench-conventions`. Reach: 1.5 ms more. The servers run on one core and wrk on the other, in turns.
"""

import asyncio
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import asyncpg

from admin import database, embedded
from admin.embedded import free_port
from admin.identity import keys, organizations
from benchmarks.servers import CLIENT_CORE, cpu_s, running

_SECONDS = 5
_ROUNDS = 5
RESULTS = Path(__file__).parent / "results"


async def _prepare(url: str, key: str) -> None:
    connection = await asyncpg.connect(url)
    await database.migrate(connection)
    organization = await organizations.create(connection, name="bench", tier="enterprise")
    await keys.add(connection, organization.id, key, name="bench", permissions=frozenset({"links:read"}))
    await connection.close()


def _cost_ms(kind: str, key: str, environment: dict[str, str], log: Path) -> float:
    port = free_port()
    with running([sys.executable, "-m", "benchmarks.thing", kind, str(port), str(log)], environment, port) as pid:
        before = cpu_s([pid])
        command = ["wrk", "-t1", "-c16", f"-d{_SECONDS}s", "-H", f"Authorization: Bearer {key}"]
        said = subprocess.run(
            ["taskset", "-c", CLIENT_CORE, *command, f"http://127.0.0.1:{port}/v1/thing"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        used = cpu_s([pid]) - before
    found = re.search(r"(\d+) requests in", said)
    if found is None or "Non-2xx" in said:
        raise SystemExit(f"wrk saw unexpected answers:\n{said}")
    return used * 1000 / int(found[1])


def main() -> None:
    """Measure and tell."""
    os.sched_setaffinity(0, {int(CLIENT_CORE)})
    with tempfile.TemporaryDirectory() as temporary:
        home = Path(temporary)
        (home / "logs").mkdir()
        servers = [embedded.postgres(home), embedded.valkey(home)]
        processes = [
            subprocess.Popen(server.command.argv, cwd="/", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            for server in servers
        ]
        try:
            for server in servers:
                asyncio.run(embedded.wait_until_ready(server))
            key = keys.new_key()
            asyncio.run(_prepare(servers[0].url, key))
            environment = {
                "DATABASE_URL": servers[0].url,
                "REDIS_URL": servers[1].url,
                "LINKWIRE_SECRET": "x" * 32,
                "LINKWIRE_ENTERPRISE_PER_MINUTE": "1000000000",
            }
            costs: dict[str, list[float]] = {"bare": [], "shared": []}
            for _ in range(_ROUNDS):
                for kind, each in costs.items():
                    each.append(_cost_ms(kind, key, environment, home / "log"))
        finally:
            for server, process in zip(servers, processes, strict=True):
                process.send_signal(server.command.stop_signal)
                process.wait(20)
    more = [with_them - without for with_them, without in zip(costs["shared"], costs["bare"], strict=True)]
    for kind, each in costs.items():
        print(f"{kind:8} {statistics.median(each):6.3f} ms of CPU per request, from {min(each):.3f} to {max(each):.3f}")
    print(f"more     {statistics.median(more):6.3f} ms (reach 1.5), from {min(more):.3f} to {max(more):.3f}")
    RESULTS.joinpath("conventions.json").write_text(json.dumps({**costs, "more": more}, indent=2) + "\n")


if __name__ == "__main__":
    main()
