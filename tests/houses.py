"""Whole Linkwires for tests: `linkwire up` in a home of its own, driven through its command, ports and files only."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import httpx2
import pytest

from admin.embedded import free_port
from tests.servers import OwnRedis

READY_WITHIN_S = 40.0


class House:
    """One Linkwire. Its console is in `console`."""

    def __init__(self, home: Path, **environment: str) -> None:
        self.home = home
        self.environment = {
            "LINKWIRE_HOME": str(home),
            "LINKWIRE_EDGE_PORT": str(free_port()),
            "LINKWIRE_ADMIN_PORT": str(free_port()),
            "LINKWIRE_METRICS_PORT": str(free_port()),
            **environment,
        }
        self._console = home.with_name(home.name + ".console")
        self.process: subprocess.Popen[bytes] | None = None

    @classmethod
    def running(cls, home: Path, **environment: str) -> "Iterator[House]":
        """One that runs until the iterator goes on."""
        house = cls(home, **environment)
        try:
            house.start()
            house.wait_until_ready()
            yield house
        finally:
            _stopped(house)

    @property
    def console(self) -> str:
        return self._console.read_text()

    @property
    def edge_url(self) -> str:
        return f"http://localhost:{self.environment['LINKWIRE_EDGE_PORT']}"

    @property
    def admin_url(self) -> str:
        return f"http://localhost:{self.environment['LINKWIRE_ADMIN_PORT']}"

    @property
    def servers(self) -> dict[str, str]:
        """Its Postgres, its Redis and its secret, as settings."""
        servers = json.loads((self.home / "servers.json").read_text())
        return {**servers, "LINKWIRE_SECRET_FILE": str(self.home / "secret")}

    @property
    def credentials(self) -> dict[str, str]:
        return dict(json.loads((self.home / "credentials.json").read_text()))

    def command(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """Run `linkwire` with this house's settings."""
        return subprocess.run(
            [sys.executable, "-m", "admin", *arguments],
            env={**os.environ, **self.environment},
            capture_output=True,
            text=True,
            timeout=90,
        )

    def start(self) -> None:
        with self._console.open("wb") as console:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "admin", "up"],
                env={**os.environ, **self.environment, "PYTHONUNBUFFERED": "1"},
                stdout=console,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def wait_until_ready(self) -> None:
        assert self.process is not None
        wait_for(lambda: "Linkwire is ready" in self.console or self.process_has_ended(), READY_WITHIN_S)
        assert "Linkwire is ready" in self.console, self.console

    def process_has_ended(self) -> bool:
        return self.process is not None and self.process.poll() is not None

    def stop(self, with_signal: signal.Signals = signal.SIGTERM) -> int:
        assert self.process is not None
        self.process.send_signal(with_signal)
        return self.process.wait(30)

    def processes(self) -> dict[int, str]:
        """Every process of this house that runs, by pid: those whose environment or command line names its home."""
        found = {}
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                arguments = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                environment = (entry / "environ").read_bytes()
                state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
            except OSError:
                continue
            named = f"LINKWIRE_HOME={self.home}\0".encode() in environment or f"{self.home}/" in arguments
            if named and state != "Z" and int(entry.name) != os.getpid():
                found[int(entry.name)] = arguments
        return found

    def pids(self, *commands: str) -> list[int]:
        """The pids of this house's processes whose command line holds one of these texts."""
        return [pid for pid, said in self.processes().items() if any(command in said for command in commands)]

    def api(self) -> httpx2.Client:
        return httpx2.Client(
            base_url=self.admin_url + "/v1",
            headers={"Authorization": f"Bearer {self.credentials['apiKey']}"},
            timeout=10,
            trust_env=False,
            verify=False,  # loading certificates would take longer than most requests here
        )

    def link(self, **fields: Any) -> dict[str, Any]:
        with self.api() as api:
            made = api.post("/links", json={"destination": "https://example.com/", **fields})
        assert made.status_code == 201, made.text
        return dict(made.json()["data"])

    def visit(self, path: str, **headers: str) -> httpx2.Response:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        with httpx2.Client(trust_env=False, timeout=10, verify=False) as visitor:
            return visitor.get(self.edge_url + path, headers={"user-agent": BROWSER, **named})

    def pipeline(self) -> dict[str, Any]:
        """What became of every click. Raises OSError or AssertionError while the API can't say."""
        try:
            with self.api() as api:
                answer = api.get("/pipeline")
        except httpx2.HTTPError as error:
            raise OSError(error) from error
        assert answer.status_code == 200, answer.text
        return dict(answer.json()["data"]["attributes"])

    def stats(self, link_id: str) -> dict[str, Any]:
        with self.api() as api:
            return dict(api.get(f"/links/{link_id}/stats").json()["data"])


BROWSER = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36"


def wait_for(condition: Callable[[], object], within_s: float = 10.0) -> None:
    """Return as soon as the condition holds; fail when it does not in time."""
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


def _stopped(house: House) -> None:
    # Politely first: servers that are killed leave their shared memory behind.
    if house.process is not None and house.process.poll() is None:
        house.process.terminate()
        with suppress(subprocess.TimeoutExpired):
            house.process.wait(20)
        house.process.kill()
        house.process.wait()
    for pid in house.processes():
        os.kill(pid, signal.SIGKILL)


@pytest.fixture
def new_house(tmp_path: Path) -> Iterator[Callable[..., House]]:
    """Makes houses that are not started; whatever of them still runs afterwards is killed."""
    with ExitStack() as houses:

        def make(name: str = "home", **environment: str) -> House:
            house = House(tmp_path / name, **environment)
            houses.callback(_stopped, house)
            return house

        yield make


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """A running Linkwire that the tests of a module share and leave running."""
    home = tmp_path_factory.mktemp("shared") / "home"
    environment = {"LINKWIRE_PRIVATE_DESTINATIONS": "1"}  # where browsers are led to is on this machine
    if "TEST_REDIS_SERVER" not in os.environ:
        yield from House.running(home, **environment)
        return
    redis = OwnRedis(home.with_name("redis"))
    try:
        yield from House.running(home, REDIS_URL=redis.server.url, **environment)
    finally:
        redis.stop()
