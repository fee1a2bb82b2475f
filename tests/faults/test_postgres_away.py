"""Postgres away: the API says so at once and recovers by itself; the edge does not notice."""

import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx2
import pytest

from admin import embedded
from shared.processes import Command
from tests.houses import House, wait_for
from tests.servers import run


class OwnPostgres:
    """A Postgres that a test stops and starts."""

    def __init__(self, home: Path) -> None:
        (home / "logs").mkdir(parents=True)
        self.server = embedded.postgres(home)
        self.process = self.start()

    def start(self) -> "subprocess.Popen[bytes]":
        import asyncio

        process = run(self.server)
        asyncio.run(embedded.wait_until_ready(self.server))
        return process

    def stop(self) -> None:
        self.process.send_signal(self.command.stop_signal)
        self.process.wait(30)

    @property
    def command(self) -> Command:
        return self.server.command

    def group(self, number: signal.Signals) -> None:
        """Send a signal to the server and all its children, each of which has a group of its own."""
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                stat = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(entry.name) == self.process.pid or stat[1] == str(self.process.pid):
                os.kill(int(entry.name), number)


@pytest.fixture
def postgres(tmp_path: Path) -> Iterator[OwnPostgres]:
    postgres = OwnPostgres(tmp_path / "postgres-home")
    yield postgres
    postgres.group(signal.SIGCONT)
    postgres.stop()


def status_of(house: House, method: str) -> tuple[int, str | None]:
    with house.api() as api:
        # The promise is an answer within two seconds; a third is this machine's.
        answer = api.request(method, "/links", json={"destination": "https://example.com/"}, timeout=3)
        if answer.status_code == 503:
            assert answer.json()["error"]["code"] == "SERVICE_UNAVAILABLE"
        return answer.status_code, answer.headers.get("retry-after")


def recovered(house: House) -> bool:
    try:
        return status_of(house, "POST")[0] == 201
    except httpx2.HTTPError:
        return False


def test_stopped_and_stuck(new_house: Callable[..., House], postgres: OwnPostgres) -> None:
    house = new_house(DATABASE_URL=postgres.server.url)
    house.start()
    house.wait_until_ready()
    link = house.link()
    assert house.visit(link["path"]).status_code == 302

    postgres.stop()
    assert status_of(house, "GET") == (503, "1")
    assert status_of(house, "POST") == (503, "1")
    for _ in range(5):
        assert house.visit(link["path"]).status_code == 302
    assert house.visit("/nothing").status_code == 404
    with httpx2.Client(trust_env=False) as client:
        assert client.get(house.admin_url + "/healthz").status_code == 200
        assert client.get(house.admin_url + "/readyz").status_code == 503
    postgres.process = postgres.start()
    wait_for(lambda: recovered(house))

    postgres.group(signal.SIGSTOP)
    for _ in range(3):
        assert status_of(house, "GET") == (503, "1")
        assert status_of(house, "POST") == (503, "1")
    assert house.visit(link["path"]).status_code == 302
    postgres.group(signal.SIGCONT)
    wait_for(lambda: recovered(house))
    wait_for(lambda: house.stats(link["id"])["total"] == 7)
    assert house.stop() == 0
