"""Migrations, and every statement of the code prepared against the migrated schema."""

import re
from pathlib import Path

import asyncpg
import pytest

from admin import database
from admin.database import Connection, MigrationError
from admin.links import links
from tests.conftest import Servers, at_database

ADMIN = Path(database.__file__).parent


async def test_migrating_twice_changes_nothing(connection: Connection) -> None:
    assert await database.migrate(connection) == []


async def test_a_changed_migration_stops_the_start(connection: Connection) -> None:
    await connection.execute("update migrations set sha256 = 'other' where name = '0001_start.sql'")
    with pytest.raises(MigrationError, match=r"0001_start\.sql"):
        await database.migrate(connection)


async def test_two_processes_may_migrate_at_once(servers: Servers) -> None:
    import asyncio

    admin = await asyncpg.connect(servers.postgres_url)
    await admin.execute("create database empty_one")
    two = [await asyncpg.connect(at_database(servers.postgres_url, "empty_one")) for _ in range(2)]
    applied = await asyncio.gather(*[database.migrate(connection) for connection in two])
    assert sorted(applied) == [[], ["0001_start.sql", "0002_click_sources.sql"]]
    for connection in two:
        await connection.close()
    await admin.execute("drop database empty_one")
    await admin.close()


def statements() -> list[tuple[str, str, str]]:
    """File, the name in the comment, and the text of each statement in the code."""
    found = []
    for file in sorted(ADMIN.rglob("*.py")):
        source = file.read_text()
        for literal in re.findall(r'f?"""(.*?)"""|f?"((?:[^"\\]|\\.)*)"', source, re.DOTALL):
            text = (literal[0] or literal[1]).strip()
            if named := re.match(r"/\* (\w+\.\w+) \*/", text):
                found.append((file.name, named[1], text))
    return found


def test_there_are_statements_and_each_is_named_after_its_function() -> None:
    found = statements()
    assert len(found) > 15
    for file, name, _text in found:
        module, function = name.split(".")
        source = next(path for path in ADMIN.rglob(file) if path.name == file).read_text()
        assert f"{module}.py" == file
        assert re.search(rf"def _?{function}\(", source), name


def test_no_statement_is_without_a_name() -> None:
    for file in sorted(ADMIN.rglob("*.py")):
        for call in re.findall(
            r"\.(?:execute|fetch|fetchrow|fetchval)\(\s*(f?\"{1,3}\s*[^\s\"]*[^\"]{0,20})", file.read_text()
        ):
            assert "/* " in call, f"{file.name}: {call}"


@pytest.mark.parametrize(("file", "name", "text"), statements(), ids=[row[1] for row in statements()])
async def test_every_statement_can_be_prepared(connection: Connection, file: str, name: str, text: str) -> None:
    for variable, value in {"_COLUMNS": links._COLUMNS, "matching": MATCHING}.items():
        text = text.replace("{" + variable + "}", value)
    text = text.split(' "')[0].rstrip()
    if name == "links.page_of" and "order by" in text:
        text += " offset $6 limit $7"
    if not text.endswith("advisory_unlock($1)"):
        await connection.prepare(text)


MATCHING = (
    "where organization_id = $1 and $2::text is null and $3::text is null and $4::text is null and $5::text is null"
)
