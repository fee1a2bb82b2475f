"""The `linkwire` command, also `python -m admin`."""

import asyncio
import gc
import signal
import sys
from datetime import datetime
from pathlib import Path

import click

from admin import command_line, database
from admin.database import Connection, MigrationError
from admin.identity.organizations import TIERS
from admin.links import commands
from shared.settings import SettingsError


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def linkwire() -> None:
    """Short links that know who clicked, and the messages that carried them."""


@linkwire.command()
def up() -> None:
    """Start everything on this box and keep it running until Ctrl-C."""
    from admin import embedded
    from admin import up as house

    settings = command_line.settings()
    try:
        asyncio.run(house.run(settings))
    except (house.CannotStart, embedded.EmbeddedError, MigrationError) as error:
        command_line.give_up(str(error))


@linkwire.command()
def serve() -> None:
    """Serve the API."""
    import uvicorn

    from admin.app import build

    settings = command_line.settings()
    settings.require_all()
    command_line.log()
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
    command_line.serve_metrics(settings)
    uvicorn.Server(config).run()


@linkwire.command()
def work() -> None:
    """Do the background work: publish and import links, ingest clicks, send mail, check destinations, clear away."""
    import uvloop

    from admin import worker

    settings = command_line.settings()
    settings.require_all()
    command_line.log()

    async def until_signal() -> None:
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        await worker.run(settings, stop)

    command_line.serve_metrics(settings)
    # What is imported stays. And rows of clicks have no cycles: to look for some among 16,000 of them, again and again,
    # was a fifth of what ingest costs.
    gc.freeze()
    gc.set_threshold(200_000, 50, 1000)
    uvloop.run(until_signal())


@linkwire.command()
def migrate() -> None:
    """Bring the database up to date, and make the default domain."""
    from admin.links import domains

    settings = command_line.settings().beside_a_running_home()

    async def apply(connection: Connection) -> list[str]:
        applied = await database.migrate(connection)
        await domains.open_to_all(connection, settings.default_hostname)
        return applied

    try:
        applied = command_line.with_database(settings, apply)
    except MigrationError as error:
        command_line.give_up(str(error))
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

    made, password = command_line.with_database(command_line.settings().beside_a_running_home(), make)
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

    if not command_line.with_database(command_line.settings().beside_a_running_home(), change):
        command_line.give_up(f"There is no organization {organization}.")
    click.echo(f"{organization} is of the {tier} tier now.")


@linkwire.command()
def republish() -> None:
    """Bring every link to Redis again, and take away what is none."""
    from admin.links import publish
    from shared.redis import LOST, RedisError, open_redis

    settings = command_line.settings().beside_a_running_home()
    redis_url = settings.redis()

    async def rebuild(connection: Connection) -> bool:
        redis = open_redis(redis_url, timeout_s=5.0)
        try:
            return await publish.rebuild(connection, redis, even_if_complete=True)
        except (*LOST, RedisError) as error:
            raise SettingsError(f"REDIS_URL: {error}") from error
        finally:
            await redis.aclose()

    if not command_line.with_database(settings, rebuild):
        command_line.give_up("Redis lost its data meanwhile; try again.")
    click.echo("Every link is in Redis.")


@linkwire.command("reclassify")
@click.option("--since", type=click.DateTime(["%Y-%m-%d"]), required=True, help="The first day (UTC).")
def reclassify_clicks(since: datetime) -> None:
    """Have the worker judge clicks again by the rules of this version, and count them as what they are now."""
    from admin.stats.reclassify import follow

    done = command_line.with_database(
        command_line.settings().beside_a_running_home(), lambda connection: follow(connection, since.date())
    )
    click.echo(f"Looked at {done.rows} clicks; {done.changed} are counted as something else now.")


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
        counted = asyncio.run(replay.run(command_line.settings(), log_file))
    except replay.CannotReplay as error:
        command_line.give_up(str(error))
    sys.exit(0 if counted else 1)


for _command in (commands.block, commands.report, commands.import_links, commands.export_links):
    linkwire.add_command(_command)


def main() -> None:
    """The entry point: a bad setting is one sentence, not a traceback."""
    try:
        linkwire(prog_name="linkwire")
    except SettingsError as error:
        command_line.give_up(str(error))
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
