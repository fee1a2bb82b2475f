"""The `linkwire` command, also `python -m admin`."""

import asyncio
import logging
import signal
import sys
from collections.abc import Awaitable, Callable, Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar

import click

from admin import database
from admin.database import Connection, MigrationError
from admin.identity.organizations import TIERS
from admin.settings import AdminSettings
from shared import metrics
from shared.settings import SettingsError, load

if TYPE_CHECKING:
    from admin.links.safety import Pattern
    from shared.links import Address

T = TypeVar("T")


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def linkwire() -> None:
    """Short links that know who clicked, and the messages that carried them."""


@linkwire.command()
def up() -> None:
    """Start everything on this box and keep it running until Ctrl-C."""
    from admin import embedded
    from admin import up as house

    settings = _settings()
    try:
        asyncio.run(house.run(settings))
    except (house.CannotStart, embedded.EmbeddedError, MigrationError) as error:
        _give_up(str(error))


@linkwire.command()
def serve() -> None:
    """Serve the API."""
    import uvicorn

    from admin.app import build

    settings = _settings()
    settings.require_all()
    _log()
    config = uvicorn.Config(
        build(settings),
        host=settings.host,
        port=settings.port,
        loop="uvloop",
        http="httptools",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,  # the app decides whom it believes (LINKWIRE_TRUSTED_PROXIES)
        timeout_graceful_shutdown=5,
    )
    _serve_metrics(settings)
    uvicorn.Server(config).run()


@linkwire.command()
def work() -> None:
    """Do the background work: publish and import links, ingest clicks, send mail, check destinations, clear away."""
    from admin import worker

    settings = _settings()
    settings.require_all()
    _log()

    async def until_signal() -> None:
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        await worker.run(settings, stop)

    _serve_metrics(settings)
    asyncio.run(until_signal())


@linkwire.command()
def migrate() -> None:
    """Bring the database up to date, and make the default domain."""
    from admin.links import domains

    settings = _settings().beside_a_running_home()

    async def apply(connection: Connection) -> list[str]:
        applied = await database.migrate(connection)
        await domains.open_to_all(connection, settings.default_hostname)
        return applied

    try:
        applied = _with_database(settings, apply)
    except MigrationError as error:
        _give_up(str(error))
    click.echo(f"Applied {', '.join(applied)}." if applied else "The database is up to date.")


def _email(_context: click.Context, _parameter: click.Parameter, value: str) -> str:
    from admin.http.fields import email_of

    try:
        return email_of(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


@linkwire.command()
@click.argument("name", default="command line")
@click.option(
    "--email",
    default="owner@localhost",
    callback=_email,
    help="The owner's e-mail, if there is no organization yet.",
)
def key(name: str, email: str) -> None:
    """Make an API key for the first organization, which is made too if there is none."""
    import secrets

    from admin.identity import founding, keys, organizations

    async def make(connection: Connection) -> tuple[str, str | None]:
        async with connection.transaction():
            organization_id = await organizations.first(connection)
            password = None
            if organization_id is None:
                password = secrets.token_urlsafe(12)
                made_now = await founding.found(
                    connection, name="Home", tier="enterprise", email=email, password=password
                )
                organization_id = made_now.id
            made = keys.new_key()
            await founding.add_key(connection, organization_id, made, name=name)
        return made, password

    made, password = _with_database(_settings().beside_a_running_home(), make)
    if password:
        click.echo(f"Made an organization; its owner is {email} with the password {password}", err=True)
    click.echo(made)


@linkwire.command()
@click.argument("organization")
@click.argument("tier", type=click.Choice([*TIERS, "enterprise"]))
def tier(organization: str, tier: str) -> None:
    """Set the tier of an organization, which says how much it may ask of the API."""
    from admin.errors import NotFound
    from admin.http import ids
    from admin.identity import founding

    async def change(connection: Connection) -> bool:
        try:
            public_id = ids.read("", organization.removeprefix("org_"))
        except NotFound:
            return False
        async with connection.transaction():
            return await founding.set_tier(connection, public_id, tier)

    if not _with_database(_settings().beside_a_running_home(), change):
        _give_up(f"There is no organization {organization}.")
    click.echo(f"{organization} is of the {tier} tier now.")


@linkwire.command()
def republish() -> None:
    """Bring every link to Redis again, and take away what is none."""
    from admin.links import publish
    from shared.redis import LOST, RedisError, open_redis

    settings = _settings().beside_a_running_home()
    redis_url = settings.redis()

    async def rebuild(connection: Connection) -> bool:
        redis = open_redis(redis_url, timeout_s=5.0)
        try:
            return await publish.rebuild(connection, redis, even_if_complete=True)
        except (*LOST, RedisError) as error:
            raise SettingsError(f"REDIS_URL: {error}") from error
        finally:
            await redis.aclose()

    if not _with_database(settings, rebuild):
        _give_up("Redis lost its data meanwhile; try again.")
    click.echo("Every link is in Redis.")


@linkwire.group()
def block() -> None:
    """Say where no link may lead. A PATTERN is a host with all below it, or example.com/login*, or */login.php."""


def _pattern(_context: click.Context, _parameter: click.Parameter, value: str) -> "Pattern":
    from admin.links.safety import BadPattern, Pattern

    try:
        return Pattern.of(value)
    except BadPattern as error:
        raise click.BadParameter(str(error)) from error


@block.command("add")
@click.argument("pattern", callback=_pattern)
@click.option("--reason", default="", help="For those who read the list, and the history of links that are disabled.")
@click.option("--disable", is_flag=True, help="Stop the links that lead there already, too.")
def block_add(pattern: "Pattern", reason: str, disable: bool) -> None:
    """Let no link lead to what a PATTERN means."""
    from admin.links import reports, safety

    settings = _settings().beside_a_running_home()
    redis_url = settings.redis()

    async def add(connection: Connection) -> int:
        async with connection.transaction():
            await safety.block(connection, pattern, reason)
        count, after = 0, 0 if disable else None
        while after is not None:
            async with connection.transaction():
                addresses, after = await reports.report_some(connection, pattern, reason, after=after)
            await _publish(redis_url, connection, addresses)
            count += len(addresses)
        return count

    count = _with_database(settings, add)
    click.echo(f"{pattern} is blocked." + (f" {count} links that lead there are stopped." if disable else ""))


@block.command("remove")
@click.argument("pattern", callback=_pattern)
def block_remove(pattern: "Pattern") -> None:
    """Let links lead there again. Those that were stopped stay so: `linkwire report --withdraw`."""
    from admin.links import safety

    if not _with_database(_settings().beside_a_running_home(), lambda connection: safety.unblock(connection, pattern)):
        _give_up(f"{pattern} is not blocked; `linkwire block list` shows what is.")
    click.echo(f"{pattern} is not blocked any more.")


@block.command("list")
def block_list() -> None:
    """Show what is blocked, since when, and why."""
    from admin.links import safety

    for one in _with_database(_settings().beside_a_running_home(), safety.blocks):
        click.echo(f"{one.pattern}\t{one.created_at:%Y-%m-%d}\t{one.reason}".rstrip())


@linkwire.command()
@click.argument("address", metavar="HOST/PATH")
@click.option("--reason", help="Why; it stands in the history of the link.")
@click.option("--withdraw", is_flag=True, help="Let it lead again.")
def report(address: str, reason: str | None, withdraw: bool) -> None:
    """Stop a link that does harm: it answers 410, and its owner can't change that."""
    from admin.links import reports
    from shared.links import BadAddress

    if withdraw == (reason is not None):
        raise click.UsageError("Say --reason why, or --withdraw.")
    settings = _settings().beside_a_running_home()
    redis_url = settings.redis()

    async def act(connection: Connection) -> bool:
        async with connection.transaction():
            link = await reports.address_of(connection, address)
            if withdraw:
                done = await reports.withdraw(connection, link)
            else:
                done = await reports.report(connection, link, reason or "")
        await _publish(redis_url, connection, [link])
        return done

    try:
        done = _with_database(settings, act)
    except BadAddress as error:
        raise click.UsageError(str(error)) from error
    if not done:
        _give_up(f"There is no link at {address} that {'was' if withdraw else 'was not'} reported.")
    click.echo(f"{address} leads again." if withdraw else f"{address} is stopped.")


@linkwire.command("import")
@click.argument("file", type=click.File("rb"))
@click.option("--organization", required=True, help="Whose links they become: org_…")
@click.option("--source", default="", help="Who wrote the file: bitly, dub, … By default whoever its columns name.")
@click.option("--hostname", help="For links of hosts that the organization does not have. By default its default.")
@click.option(
    "--on-conflict", type=click.Choice(["skip", "update"]), default="skip", help="If a link is there already."
)
@click.option("--dry-run", "is_dry_run", is_flag=True, help="Check and report everything, and do nothing.")
def import_links(file: BinaryIO, organization: str, **plan: Any) -> None:
    """Make links of a FILE of another shortener, or of our own. To do it again does no harm."""
    from admin.links import file_commands

    asyncio.run(file_commands.import_file(_settings().beside_a_running_home(), file, organization, **plan))


@linkwire.command("export")
@click.argument("file", type=click.File("wb"))
@click.option("--organization", required=True, help="Whose links: org_…")
@click.option("--format", "kind", type=click.Choice(["csv", "jsonl"]), default="csv")
def export_links(file: BinaryIO, organization: str, kind: str) -> None:
    """Write the links of an organization into a FILE, or to standard output (-)."""
    from admin.links import file_commands

    asyncio.run(file_commands.export_file(_settings().beside_a_running_home(), file, organization, kind))


async def _publish(redis_url: str, connection: Connection, addresses: Collection["Address"]) -> None:
    """Ahead of what else the worker has to publish; it publishes what can't be published now."""
    from admin.links.publish import Publisher
    from shared.redis import open_redis

    redis = open_redis(redis_url, timeout_s=1.0)
    try:
        await Publisher(redis).now(connection, addresses)
    finally:
        await redis.aclose()


@linkwire.command()
@click.option(
    "--log",
    "log_file",
    required=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A web server log in combined format, plain or gzip.",
)
def demo(log_file: Path) -> None:
    """Replay a web server log through a running Linkwire, and show what it counted."""
    from admin import demo as replay

    try:
        counted = asyncio.run(replay.run(_settings(), log_file))
    except replay.CannotReplay as error:
        _give_up(str(error))
    sys.exit(0 if counted else 1)


def _settings() -> AdminSettings:
    return load(AdminSettings)


def _log() -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")


def _serve_metrics(settings: AdminSettings) -> None:
    if settings.metrics_port is None:
        return
    try:
        metrics.serve(settings.metrics_host, settings.metrics_port)
    except OSError as error:
        raise SettingsError(f"LINKWIRE_METRICS_PORT: can't listen on {settings.metrics_port}: {error}") from error


def _with_database(settings: AdminSettings, work: Callable[[Connection], Awaitable[T]]) -> T:
    url = settings.database()

    async def run() -> T:
        async with database.connected(url) as connection:
            return await work(connection)

    return asyncio.run(run())


def _give_up(sentence: str) -> None:
    click.echo(f"linkwire: {sentence}", err=True)
    sys.exit(1)


def main() -> None:
    """The entry point: a bad setting is one sentence, not a traceback."""
    try:
        linkwire(prog_name="linkwire")
    except SettingsError as error:
        _give_up(str(error))
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
