"""APIs for tests in processes of their own: `admin serve`, on the servers of the test process."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2

from admin.embedded import free_port
from tests.conftest import Servers


@contextmanager
def running_api(servers: Servers, database_url: str, home: Path, **settings: str) -> Iterator[str]:
    """The URL of one that runs until the block ends. It may never log a traceback."""
    port = free_port()
    environment = {
        **os.environ,
        "LINKWIRE_HOME": str(home),
        "LINKWIRE_ADMIN_PORT": str(port),
        "LINKWIRE_SECRET": "a secret of tests in which there is no chance at all",
        "LINKWIRE_DEVELOPMENT": "1",
        "DATABASE_URL": database_url,
        "REDIS_URL": servers.redis_url,
        **settings,
    }
    log = home / f"api-{port}.log"
    with log.open("wb") as written:
        command = [sys.executable, "-m", "admin", "serve"]
        process = subprocess.Popen(command, env=environment, stdout=written, stderr=written)
    url = f"http://127.0.0.1:{port}"
    try:
        with httpx2.Client(trust_env=False, transport=httpx2.HTTPTransport(retries=8)) as client:
            assert client.get(f"{url}/readyz").status_code == 200
        yield url
        assert "Traceback" not in log.read_text()
    finally:
        process.terminate()
        process.wait(10)
