"""Prometheus metrics: processes that belong together add to the same ones, and one of them serves the sum.

They share files in a directory (prometheus-client's multiprocess mode, chosen by PROMETHEUS_MULTIPROC_DIR at its first
import). Whoever starts the processes prepares the directory before, and serves. A process alone serves its own.
"""

import atexit
import hashlib
import os
import shutil
import tempfile
from pathlib import Path

_DIRECTORY = "PROMETHEUS_MULTIPROC_DIR"
_MEMORY = Path("/dev/shm")  # noqa: S108


def prepare(home: Path, name: str) -> dict[str, str]:
    """Make an empty directory, and return the environment that makes child processes write their metrics there.

    In memory where that can be had: the files are mapped and sparse, and a full disk would kill who writes to them. It
    goes with this process, or, if that is killed, at the next start.
    """
    place = hashlib.sha256(f"{home}/{name}".encode()).hexdigest()[:16]
    directory = (_MEMORY if _MEMORY.is_dir() else home) / f"linkwire-{os.geteuid()}-{place}"
    shutil.rmtree(directory, ignore_errors=True)
    try:
        directory.mkdir(mode=0o700)
    except FileExistsError:  # somebody else's
        directory = Path(tempfile.mkdtemp(prefix="linkwire-"))
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
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
