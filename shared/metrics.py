"""Prometheus metrics: processes that belong together add to the same ones, and one of them serves the sum.

They share files in a directory (prometheus-client's multiprocess mode, chosen by PROMETHEUS_MULTIPROC_DIR at its first
import). Whoever starts the processes prepares the directory before, and serves. A process alone serves its own.
"""

import os
import shutil
from pathlib import Path

_DIRECTORY = "PROMETHEUS_MULTIPROC_DIR"


def prepare(directory: Path) -> dict[str, str]:
    """Empty the directory, and return the environment that makes child processes write their metrics there."""
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    os.environ[_DIRECTORY] = str(directory)
    return {_DIRECTORY: str(directory)}


def serve(host: str, port: int) -> None:
    """Answer `/metrics` on this port from a thread. Raises OSError when the port is taken."""
    from prometheus_client import REGISTRY, CollectorRegistry, start_http_server
    from prometheus_client.multiprocess import MultiProcessCollector

    registry = REGISTRY
    if _DIRECTORY in os.environ:
        registry = CollectorRegistry()
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    start_http_server(port, host, registry)
