"""What the commands share: their settings, the database, and how they give up."""

import asyncio
import logging
import sys
from collections.abc import Awaitable, Callable
from typing import TypeVar

import click

from admin import database
from admin.database import Connection
from admin.settings import AdminSettings
from shared import metrics
from shared.settings import SettingsError, load

T = TypeVar("T")


def settings() -> AdminSettings:
    """Those of the environment. Raises `SettingsError`."""
    return load(AdminSettings)


def log() -> None:
    """Have processes say what they do."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")


def serve_metrics(settings: AdminSettings) -> None:
    """Show the metrics of this process, if there is a port for them. Raises `SettingsError`."""
    if settings.metrics_port is None:
        return
    try:
        metrics.serve(settings.metrics_host, settings.metrics_port)
    except OSError as error:
        raise SettingsError(f"LINKWIRE_METRICS_PORT: can't listen on {settings.metrics_port}: {error}") from error


def with_database(settings: AdminSettings, work: Callable[[Connection], Awaitable[T]]) -> T:
    """What the work comes to, done with a connection of its own. Raises `SettingsError`."""
    url = settings.database()

    async def run() -> T:
        async with database.connected(url) as connection:
            return await work(connection)

    return asyncio.run(run())


def give_up(sentence: str) -> None:
    """Say why, and end with a failure."""
    click.echo(f"linkwire: {sentence}", err=True)
    sys.exit(1)
