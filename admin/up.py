"""`linkwire up`: everything on this box, from nothing, in the foreground, until Ctrl-C.

Starts servers where none are configured, migrates, makes the first organization, and keeps edge, admin and worker
running. What the operator sees is short; every process has its log in `LINKWIRE_HOME/logs`.
"""

import asyncio
import contextlib
import dataclasses
import fcntl
import json
import os
import secrets
import signal
import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import click
import httpx2

from admin import database, embedded
from admin.first_start import Credentials, establish
from admin.settings import AdminSettings
from shared import metrics
from shared.processes import Command, Supervisor
from shared.redis import LOST, RedisError, open_redis
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
    settings.require_mail()
    metrics_port = settings.metrics_port or settings.edge_port + 1000
    async with _home(settings.home) as lock:
        _check_free(
            (settings.edge_host, settings.edge_port, "LINKWIRE_EDGE_PORT"),
            (settings.host, settings.port, "LINKWIRE_ADMIN_PORT"),
            (settings.metrics_host, metrics_port, "LINKWIRE_METRICS_PORT"),
        )
        try:
            async with Supervisor(lambda sentence: click.echo(f"linkwire: {sentence}", err=True)) as children:
                await _run(settings, children, lock, metrics_port)
        finally:
            settings.servers_file.unlink(missing_ok=True)


async def _run(settings: AdminSettings, children: Supervisor, lock: int, metrics_port: int) -> None:
    servers = await _servers(settings, children, lock)
    embedded.write_private(settings.servers_file, json.dumps(servers))
    credentials = await _prepare(settings, servers["DATABASE_URL"])
    environment = {
        **servers,
        "LINKWIRE_HOME": str(settings.home),
        "LINKWIRE_PUBLIC_URL": settings.public_url,
        "LINKWIRE_METRICS_PORT": "",
        **metrics.prepare(settings.home, "up"),
    }
    # Empty for the edge, or it would have ours: it seals nothing, and is what strangers talk to.
    sealing, without = {"LINKWIRE_SECRET": _secret(settings)}, {"LINKWIRE_SECRET": ""}
    for name, arguments, secret in (
        ("worker", "admin work", sealing),
        ("edge", "edge", without),
        ("admin", "admin serve", sealing),
    ):
        await children.start(_process(settings.home, name, arguments.split(), {**environment, **secret}, lock))
    metrics.serve(settings.metrics_host, metrics_port)
    await _wait_until_ready(settings)
    credentials.settle(
        edge_url=_url(settings.edge_host, settings.edge_port), admin_url=_url(settings.host, settings.port)
    )
    click.echo(_banner(settings, credentials, metrics_port))
    await asyncio.get_running_loop().create_future()  # until it is cancelled


def _secret(settings: AdminSettings) -> str:
    """What is configured, or a secret of our own, which must stay the same as long as what it has sealed."""
    if settings.secrets is not None:
        return ",".join(settings.secrets)
    path = settings.home / "secret"
    if not path.exists():
        embedded.write_private(path, secrets.token_urlsafe(32) + "\n")
    return path.read_text().strip()


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


def _check_free(*wanted: tuple[str, int, str]) -> None:
    """Listen on all of them at once, for a moment: two that are the same are noticed, too."""
    with contextlib.ExitStack() as listening:
        for host, port, setting in wanted:
            try:
                listening.enter_context(socket.create_server((host, port)))
            except (OSError, OverflowError) as error:
                reason = getattr(error, "strerror", None) or error
                raise CannotStart(f"{setting}: can't listen on {host}:{port}: {reason}.") from error


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
    if settings.redis_url is not None:
        await _check_redis(settings.redis_url)
    return environment


async def _check_redis(url: str) -> None:
    redis = open_redis(url, timeout_s=5.0)
    try:
        await redis.ping()
    except (*LOST, RedisError) as error:
        raise SettingsError(f"REDIS_URL: can't connect: {error}") from error
    finally:
        await redis.aclose()


async def _prepare(settings: AdminSettings, database_url: str) -> Credentials:
    async with database.connected(database_url) as connection:
        await database.migrate(connection)
        return await establish(connection, settings)


def _process(home: Path, name: str, arguments: list[str], environment: dict[str, str], lock: int) -> Command:
    log = home / "logs" / f"{name}.log"
    if log.exists() and log.stat().st_size > _OLD_LOG_BYTES:
        log.rename(log.with_suffix(".log.1"))
    return Command(name, [sys.executable, "-m", *arguments], environment, log=log, pass_fds=[lock])


async def _wait_until_ready(settings: AdminSettings) -> None:
    """Edge and admin answer, and the edge knows all links, or will soon."""
    edge, admin = _local(settings.edge_host, settings.edge_port), _local(settings.host, settings.port)
    async with httpx2.AsyncClient(timeout=2.0, trust_env=False) as client:
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


def _url(host: str, port: int) -> str:
    """The same, as a person would write it."""
    return _local(host, port).replace("//127.0.0.1:", "//localhost:")


def _banner(settings: AdminSettings, credentials: Credentials, metrics_port: int) -> str:
    admin = _url(settings.host, settings.port)
    shown = credentials.are_new
    kept = credentials.path if credentials.path.exists() else "made earlier; `.venv/bin/linkwire key` makes another key"
    key = credentials.api_key if shown else "YOUR_API_KEY"
    private = (
        f"  API key       {credentials.api_key}\n  Owner         {credentials.email}   {credentials.password}\n"
        if shown
        else ""
    )
    return (
        f"\nLinkwire is ready.\n\n"
        f"  Short links   {settings.public_url}\n"
        f"  API           {admin}/v1   (docs: {admin}/docs)\n"
        f"{private}"
        f"  Credentials   {kept}\n"
        f"  Metrics       http://{settings.metrics_host}:{metrics_port}/metrics\n\n"
        f"Make a link:\n\n"
        f"  curl {admin}/v1/links -H 'Authorization: Bearer {key}' -d destination=https://example.com/\n\n"
        f"Ctrl-C stops everything.\n"
    )
