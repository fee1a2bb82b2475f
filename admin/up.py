"""`linkwire up`: everything on this box, from nothing, in the foreground, until Ctrl-C.

Starts servers where none are configured, migrates, makes the first organization, and keeps edge, admin and worker
running. What the operator sees is short; every process has its log in `LINKWIRE_HOME/logs`.
"""

import asyncio
import contextlib
import dataclasses
import fcntl
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import click
import httpx2

from admin import database, embedded
from admin.first_start import Credentials, establish
from admin.settings import AdminSettings
from shared import metrics
from shared.processes import Command, Supervisor
from shared.settings import SettingsError

_READY_WITHIN_S = 30.0
_COMPLETE_WITHIN_S = 3.0
_LOCK_WITHIN_S = 15.0
_OLD_LOG_BYTES = 10_000_000


class CannotStart(Exception):
    """Why Linkwire does not start; one sentence for the operator."""


async def run(settings: AdminSettings) -> None:
    """Start everything and keep it running until SIGINT or SIGTERM.

    Raises `CannotStart`, `embedded.EmbeddedError`, `database.MigrationError`, `SettingsError`.
    """
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    # Cancelled at whatever point it has reached; leaving its `async with` stops what was started.
    work = asyncio.create_task(_start(settings))
    stopped = asyncio.create_task(stop.wait())
    await asyncio.wait([work, stopped], return_when=asyncio.FIRST_COMPLETED)
    if not work.done():
        click.echo("\nLinkwire is stopping.")
        work.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await work
    stopped.cancel()
    click.echo("Linkwire has stopped.")


async def _start(settings: AdminSettings) -> None:
    metrics_port = settings.metrics_port or settings.edge_port + 1000
    async with _home(settings.home) as lock:
        for host, port, name in (
            (settings.edge_host, settings.edge_port, "LINKWIRE_EDGE_PORT"),
            (settings.host, settings.port, "LINKWIRE_ADMIN_PORT"),
            (settings.metrics_host, metrics_port, "LINKWIRE_METRICS_PORT"),
        ):
            _check_free(host, port, name)
        async with Supervisor(lambda sentence: click.echo(f"linkwire: {sentence}", err=True)) as children:
            environment = await _servers(settings, children, lock)
            credentials = await _prepare(settings, environment["DATABASE_URL"])
            environment |= {
                "LINKWIRE_HOME": str(settings.home),
                "LINKWIRE_PUBLIC_URL": settings.public_url,
                "LINKWIRE_METRICS_PORT": "",
                **metrics.prepare(settings.home / "metrics"),
            }
            for name, arguments in (("worker", "admin work"), ("edge", "edge"), ("admin", "admin serve")):
                await children.start(_process(settings.home, name, arguments.split(), environment, lock))
            metrics.serve(settings.metrics_host, metrics_port)
            await _wait_until_ready(settings)
            credentials.settle(edge_url=settings.public_url, admin_url=_admin_url(settings))
            click.echo(_banner(settings, credentials, metrics_port))
            await asyncio.get_running_loop().create_future()  # until it is cancelled


@contextlib.asynccontextmanager
async def _home(home: Path) -> AsyncIterator[int]:
    """Make the home directory and lock it; the lock's file descriptor.

    Children inherit it, so the lock is held until the last one is gone: a start right after the supervisor was killed
    waits for the servers that are still shutting down, instead of starting others on their data.
    """
    try:
        (home / "logs").mkdir(parents=True, exist_ok=True)
        lock = os.open(home / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise CannotStart(f"LINKWIRE_HOME: can't write to {home}: {error.strerror}.") from error
    try:
        await _lock(lock, home)
        os.ftruncate(lock, 0)
        os.pwrite(lock, str(os.getpid()).encode(), 0)
        yield lock
    finally:
        os.close(lock)


async def _lock(lock: int, home: Path) -> None:
    deadline = asyncio.get_running_loop().time() + _LOCK_WITHIN_S
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError as error:
            holder = os.pread(lock, 20, 0).decode()
            if _is_running(holder) or asyncio.get_running_loop().time() > deadline:
                raise CannotStart(
                    f"Another Linkwire is running in {home} (pid {holder}); stop it, or set LINKWIRE_HOME."
                ) from error
        await asyncio.sleep(0.1)


def _is_running(pid: str) -> bool:
    return pid.isdigit() and Path(f"/proc/{pid}").exists()


def _check_free(host: str, port: int, setting: str) -> None:
    try:
        socket.create_server((host, port)).close()
    except OSError as error:
        raise CannotStart(f"{setting}: can't listen on {host}:{port}: {error.strerror}.") from error


async def _servers(settings: AdminSettings, children: Supervisor, lock: int) -> dict[str, str]:
    """The URLs of Postgres and Redis, after starting those that are not configured."""
    environment, starting = {}, []
    for name, url, server in (
        ("DATABASE_URL", settings.database_url, embedded.postgres),
        ("REDIS_URL", settings.redis_url, embedded.valkey),
    ):
        if url is None:
            ours = await asyncio.to_thread(server, settings.home)
            await children.start(dataclasses.replace(ours.command, pass_fds=[lock]))
            starting.append(ours)
            url = ours.url
        environment[name] = url
    for ours in starting:
        await embedded.wait_until_ready(ours)
    return environment


async def _prepare(settings: AdminSettings, database_url: str) -> Credentials:
    async with _connection(database_url) as connection:
        await database.migrate(connection)
        return await establish(connection, settings)


@contextlib.asynccontextmanager
async def _connection(database_url: str) -> AsyncIterator[database.Connection]:
    try:
        connection = await asyncpg.connect(database_url, timeout=10)
    except (*database.AWAY, asyncpg.PostgresError, ValueError) as error:
        raise SettingsError(f"DATABASE_URL: can't connect: {error or type(error).__name__}") from error
    try:
        yield connection
    finally:
        await connection.close()


def _process(home: Path, name: str, arguments: list[str], environment: dict[str, str], lock: int) -> Command:
    log = home / "logs" / f"{name}.log"
    if log.exists() and log.stat().st_size > _OLD_LOG_BYTES:
        log.rename(log.with_suffix(".log.1"))
    return Command(name, [sys.executable, "-m", *arguments], environment, log=log, pass_fds=[lock])


async def _wait_until_ready(settings: AdminSettings) -> None:
    """Edge and admin answer, and the edge knows all links, or will soon."""
    edge, admin = _local(settings.edge_host, settings.edge_port), _local(settings.host, settings.port)
    async with httpx2.AsyncClient(timeout=2.0) as client:
        for url in (f"{edge}/healthz", f"{admin}/healthz"):
            if not await _answers(client, url, _READY_WITHIN_S):
                raise CannotStart(f"{url} did not answer within {_READY_WITHIN_S:g} s; see {settings.home / 'logs'}.")
        # A million links take longer to publish; the edge says 503 meanwhile where it can't be sure.
        await _answers(client, f"{edge}/readyz", _COMPLETE_WITHIN_S)


async def _answers(client: httpx2.AsyncClient, url: str, within_s: float) -> bool:
    """Whether the URL answers 200 in time."""
    deadline = asyncio.get_running_loop().time() + within_s
    while asyncio.get_running_loop().time() < deadline:
        with contextlib.suppress(httpx2.HTTPError):
            if (await client.get(url)).status_code == 200:
                return True
        await asyncio.sleep(0.05)
    return False


def _local(host: str, port: int) -> str:
    """Where a server that listens on `host` is reached from this machine."""
    return f"http://{'127.0.0.1' if host in ('0.0.0.0', '') else host}:{port}"  # noqa: S104


def _admin_url(settings: AdminSettings) -> str:
    return f"http://{'localhost' if settings.host == '127.0.0.1' else settings.host}:{settings.port}"


def _banner(settings: AdminSettings, credentials: Credentials, metrics_port: int) -> str:
    admin = _admin_url(settings)
    shown = credentials.are_new
    kept = credentials.path if credentials.path.exists() else "made earlier; `linkwire key` makes another key"
    key = credentials.api_key if shown else "YOUR_API_KEY"
    secrets = (
        f"  API key       {credentials.api_key}\n  Owner         {credentials.email}   {credentials.password}\n"
        if shown
        else ""
    )
    return (
        f"\nLinkwire is ready.\n\n"
        f"  Short links   {settings.public_url}\n"
        f"  API           {admin}/v1   (docs: {admin}/docs)\n"
        f"{secrets}"
        f"  Credentials   {kept}\n"
        f"  Metrics       http://{settings.metrics_host}:{metrics_port}/metrics\n\n"
        f"Make a link:\n\n"
        f"  curl {admin}/v1/links -H 'Authorization: Bearer {key}' -d destination=https://example.com/\n\n"
        f"Ctrl-C stops everything.\n"
    )
