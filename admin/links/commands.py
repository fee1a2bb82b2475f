"""The commands about links: `linkwire block`, `report`, `import` and `export`.

What they need is imported when they run: a command begins sooner without what others need.
"""

import asyncio
from collections.abc import Collection
from typing import TYPE_CHECKING, Any, BinaryIO

import click

from admin import command_line
from admin.database import Connection

if TYPE_CHECKING:
    from admin.links.safety import Pattern
    from shared.links import Address


@click.group()
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

    settings = command_line.settings().beside_a_running_home()
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

    count = command_line.with_database(settings, add)
    click.echo(f"{pattern} is blocked." + (f" {count} links that lead there are stopped." if disable else ""))


@block.command("remove")
@click.argument("pattern", callback=_pattern)
def block_remove(pattern: "Pattern") -> None:
    """Let links lead there again. Those that were stopped stay so: `linkwire report --withdraw`."""
    from admin.links import safety

    if not command_line.with_database(
        command_line.settings().beside_a_running_home(), lambda connection: safety.unblock(connection, pattern)
    ):
        command_line.give_up(f"{pattern} is not blocked; `linkwire block list` shows what is.")
    click.echo(f"{pattern} is not blocked any more.")


@block.command("list")
def block_list() -> None:
    """Show what is blocked, since when, and why."""
    from admin.links import safety

    for one in command_line.with_database(command_line.settings().beside_a_running_home(), safety.blocks):
        click.echo(f"{one.pattern}\t{one.created_at:%Y-%m-%d}\t{one.reason}".rstrip())


@click.command()
@click.argument("address", metavar="HOST/PATH")
@click.option("--reason", help="Why; it stands in the history of the link.")
@click.option("--withdraw", is_flag=True, help="Let it lead again.")
def report(address: str, reason: str | None, withdraw: bool) -> None:
    """Stop a link that does harm: it answers 410, and its owner can't change that."""
    from admin.links import reports
    from shared.links import BadAddress

    if withdraw == (reason is not None):
        raise click.UsageError("Say --reason why, or --withdraw.")
    settings = command_line.settings().beside_a_running_home()
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
        done = command_line.with_database(settings, act)
    except BadAddress as error:
        raise click.UsageError(str(error)) from error
    if not done:
        command_line.give_up(f"There is no link at {address} that {'was' if withdraw else 'was not'} reported.")
    click.echo(f"{address} leads again." if withdraw else f"{address} is stopped.")


@click.command("import")
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

    asyncio.run(file_commands.import_file(command_line.settings().beside_a_running_home(), file, organization, **plan))


@click.command("export")
@click.argument("file", type=click.File("wb"))
@click.option("--organization", required=True, help="Whose links: org_…")
@click.option("--format", "kind", type=click.Choice(["csv", "jsonl"]), default="csv")
def export_links(file: BinaryIO, organization: str, kind: str) -> None:
    """Write the links of an organization into a FILE, or to standard output (-)."""
    from admin.links import file_commands

    asyncio.run(file_commands.export_file(command_line.settings().beside_a_running_home(), file, organization, kind))


async def _publish(redis_url: str, connection: Connection, addresses: Collection["Address"]) -> None:
    """Ahead of what else the worker has to publish; it publishes what can't be published now."""
    from admin.links.publish import Publisher
    from shared.redis import open_redis

    redis = open_redis(redis_url, timeout_s=1.0)
    try:
        await Publisher(redis).now(connection, addresses)
    finally:
        await redis.aclose()
