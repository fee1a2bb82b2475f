"""Migrations, every statement of the code prepared against the migrated schema, and every list asked for everything."""

import ast
import importlib
import inspect
import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import asyncpg
import pytest

from admin import database
from admin.database import Connection, MigrationError
from admin.http.lists import Asked, Listing
from tests.conftest import Servers, at_database

ADMIN = Path(database.__file__).parent
MIGRATIONS = sorted(file.name for file in (ADMIN / "migrations").glob("*.sql"))


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
    assert sorted(applied) == [[], MIGRATIONS]
    for connection in two:
        await connection.close()
    await admin.execute("drop database empty_one")
    await admin.close()


def module_of(file: Path) -> ModuleType:
    return importlib.import_module(".".join(file.relative_to(ADMIN.parent).with_suffix("").parts))


class Statement(NamedTuple):
    """A statement in the code."""

    file: Path
    name: str
    """In the comment that it begins with."""
    parts: list[ast.expr]

    @property
    def text(self) -> str:
        """With the module's constants where it names them."""
        code = ast.fix_missing_locations(ast.Expression(ast.JoinedStr(self.parts)))
        return str(eval(compile(code, self.file, "eval"), vars(module_of(self.file))))


def statements() -> list[Statement]:
    found = []
    for file in sorted(ADMIN.rglob("*.py")):
        nodes = list(ast.walk(ast.parse(file.read_text())))
        texts = [node.values for node in nodes if isinstance(node, ast.JoinedStr)]
        parts = {part for values in texts for part in values}
        texts += [[node] for node in nodes if isinstance(node, ast.Constant) and node not in parts]
        for values in texts:
            begin = values[0].value if values and isinstance(values[0], ast.Constant) else None
            if isinstance(begin, str) and (named := re.match(r"\s*/\* (\w+\.\w+) \*/", begin)):
                found.append(Statement(file, named[1], values))
    return found


def test_there_are_statements_and_each_is_named_after_its_function() -> None:
    found = statements()
    assert len(found) > 15
    for statement in found:
        module, function = statement.name.split(".")
        assert f"{module}.py" == statement.file.name
        assert re.search(rf"def _?{function}\(", statement.file.read_text()), statement.name


def test_no_statement_is_without_a_name() -> None:
    for file in sorted(ADMIN.rglob("*.py")):
        for call in re.findall(
            r"\.(?:execute|fetch|fetchrow|fetchval)\(\s*(f?\"{1,3}\s*[^\s\"]*[^\"]{0,20})", file.read_text()
        ):
            assert "/* " in call, f"{file.name}: {call}"


@pytest.mark.parametrize("statement", statements(), ids=[statement.name for statement in statements()])
async def test_every_statement_can_be_prepared(connection: Connection, statement: Statement) -> None:
    if not statement.text.endswith("advisory_unlock($1)"):
        await connection.prepare(statement.text)


Page = Callable[..., Awaitable[Any]]


def lists() -> list[tuple[str, Listing, Page]]:
    """The name, the declaration and the function of each list."""
    found = []
    for file in sorted(ADMIN.rglob("*.py")):
        if not re.search(r"^\w+ = Listing\(", file.read_text(), re.MULTILINE):
            continue
        module = module_of(file)
        [listing] = [value for value in vars(module).values() if isinstance(value, Listing)]
        functions = [
            value
            for value in vars(module).values()
            if inspect.iscoroutinefunction(value) and "asked" in inspect.signature(value).parameters
        ]
        assert functions, f"{file.name} declares a list and has no function that takes what was asked of it."
        found += [(f"{file.stem}.{function.__name__}", listing, function) for function in functions]
    return found


def everything(listing: Listing) -> list[Asked]:
    """A page in each order and the begin and the middle of a walk, with all filters at once and without any."""
    filters = {name: one.values for name, one in listing.filters.items()}
    samples = {
        name: values.read((values.schema.get("examples") or values.schema.get("enum") or ["x"])[0])
        for name, values in filters.items()
    }
    return [
        Asked(page=page, after=after, size=20, sort=sort, order=order, filters=wanted)
        for page, after in ((2, None), (None, None), (None, "0123456789abcdef"))
        for sort in (listing.sorts if page else [listing.default_sort])
        for order in ("asc", "desc")
        for wanted in ({}, samples)
    ]


@pytest.mark.parametrize(("name", "listing", "page_of"), lists(), ids=[row[0] for row in lists()])
async def test_every_list_can_be_asked_for_everything(
    connection: Connection, name: str, listing: Listing, page_of: Page
) -> None:
    assert listing.default_sort in listing.sorts
    takes = list(inspect.signature(page_of).parameters.values())
    given = {"connection": connection, **{one.name: {int: 1, str: "x"}.get(one.annotation) for one in takes[1:]}}
    for asked in everything(listing):
        await page_of(**given | {"asked": asked})


async def test_ids_of_lists_are_compared_byte_by_byte(connection: Connection) -> None:
    """Or walks would be in another order than ids are made in."""
    rows = await connection.fetch(
        """
        select table_name, collation_name from information_schema.columns
         where table_schema = 'public' and column_name = 'public_id'"""
    )
    assert len(rows) > 5
    assert {row["table_name"]: row["collation_name"] for row in rows} == {row["table_name"]: "C" for row in rows}
