"""`python -m edge`: one parent binds the socket; workers inherit it, and the shipper runs beside them."""

import argparse
import asyncio
import gc
import logging
import resource
import signal
import socket
import sys

import uvicorn

from edge.settings import EdgeSettings
from edge.spool import SEGMENT_BYTES
from shared import metrics
from shared.processes import Command, Supervisor
from shared.settings import SettingsError, load

_DRAIN_S = 5
# Else the C library gives the memory of each batch back and takes it again, which costs as much as reading the records.
_KEEP_MEMORY = {"MALLOC_TRIM_THRESHOLD_": "67108864", "MALLOC_MMAP_THRESHOLD_": "16777216"}


def main() -> None:
    """Run the parent, or one worker of it when a socket is handed over."""
    parser = argparse.ArgumentParser(prog="python -m edge", description="Serve short links.")
    parser.add_argument("--socket", type=int, metavar="FD", help="be a worker on this inherited listening socket")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    try:
        settings = load(EdgeSettings)
        settings.redis()
        if arguments.socket is None:
            asyncio.run(_parent(settings))
        else:
            _worker(settings, socket.socket(fileno=arguments.socket))
    except SettingsError as error:
        sys.exit(str(error))


async def _parent(settings: EdgeSettings) -> None:
    if settings.spool_max_bytes < 2 * settings.workers * SEGMENT_BYTES:
        raise SettingsError(
            f"LINKWIRE_SPOOL_MAX_BYTES: {settings.workers} edge processes need "
            f"{2 * settings.workers * SEGMENT_BYTES} bytes"
        )
    stop = asyncio.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(name, stop.set)
    try:
        listening = socket.create_server((settings.edge_host, settings.edge_port), backlog=2048)
        environment = {}
        if settings.metrics_port is not None:
            environment = metrics.prepare(settings.home, "edge")
            metrics.serve(settings.metrics_host, settings.metrics_port)
    except OSError as error:
        raise SettingsError(
            f"the edge can't listen on {settings.edge_host}:{settings.edge_port} or the metrics port: {error}"
        ) from error
    listening.setblocking(False)
    fd = listening.fileno()
    python = [sys.executable, "-m"]
    async with Supervisor(logging.getLogger("edge").warning) as children:
        await children.start(Command("shipper", [*python, "edge.shipper"], {**environment, **_KEEP_MEMORY}))
        for number in range(1, settings.workers + 1):
            await children.start(
                Command(
                    f"worker {number}",
                    [*python, "edge", "--socket", str(fd)],
                    environment,
                    pass_fds=[fd],
                    stop_within_s=_DRAIN_S + 2,
                )
            )
        await stop.wait()
        listening.close()  # once the workers have closed it too, nobody is left waiting for an answer


def _worker(settings: EdgeSettings, listening: socket.socket) -> None:
    from edge.app import build

    # A full collection looks at every remembered link: it took 0.17 s, and lookups in flight ran out of time. What it
    # would find is next to nothing, because connections take their cycles apart when they end.
    gc.set_threshold(10_000, 100, 1_000_000)
    worker = build(settings)
    _allow_files(settings.connections)
    config = uvicorn.Config(
        worker.app,
        loop="uvloop",
        http=worker.protocol,  # type: ignore[arg-type]  # it is only ever called
        ws="none",
        access_log=False,
        log_config=None,
        log_level="error",  # warnings are about requests, and whoever sends them could fill the disk
        proxy_headers=False,  # the shipper reads X-Forwarded-For itself, only for the click
        server_header=False,
        timeout_graceful_shutdown=_DRAIN_S,
    )
    uvicorn.Server(config).run(sockets=[listening])


def _allow_files(connections: int) -> None:
    """Let the process have as many sockets as connections are allowed, or as many as the system lets it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = max(soft, connections + 200)
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted if hard == resource.RLIM_INFINITY else min(wanted, hard), hard))


if __name__ == "__main__":
    main()
