"""Exports: what is in them, that import takes them for the same links, and `linkwire import` and `linkwire export`."""

import asyncio
import csv
import io
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from click.testing import CliRunner, Result

from admin.__main__ import linkwire
from admin.database import Connection
from admin.links import export_routes, exports
from admin.links.transfer.own import COLUMNS
from shared.links import Address
from shared.redis import Redis
from tests.admin.conftest import Api, Tenant, made
from tests.admin.files_of_links import imported, links_of
from tests.admin.people import error_of
from tests.conftest import Servers

EVERYTHING: dict[str, Any] = {
    "hostname": "one.example",
    "path": "/Grüße/a,b;c",
    "destination": 'https://example.com/?a=1,2&b="x"#ü',
    "title": '=1+1 "quoted", 🦔 \u202eRTL',
    "tags": ["a, b", "=c", "'d", "[e]"],
    "folder": "-campaigns",
    "notes": "first\r\nsecond\n\t@third \x01",
    "externalId": "'crm-17",
    "archived": True,
    "disabled": True,
    "startsAt": "2026-01-31T09:30:00.123Z",
    "expiresAt": "2999-01-31T09:30:00+01:00",
    "clickLimit": 7,
    "fallbackUrl": "https://example.com/over",
    "redirectStatus": 308,
    "cacheSeconds": 60,
    "queryPolicy": "override",
    "clickIdParameter": "click_id",
    "rules": [{"when": {"country": ["BR", "PT"], "device": "mobile"}, "destination": "https://m.example.com/"}],
    "variants": [{"destination": "https://v.example.com/", "weight": 0}, {"destination": "https://w.example.com/"}],
    "preview": {"title": "'+", "image": "https://example.com/i.png"},
    "utm": {"source": "a", "term": "b c"},
    "robots": "noindex, nofollow",
    "isPublicStats": True,
    "metadata": {"a": [1, 2.5, None, {"b": "'="}], "": "ü"},
}
TITLES = ["", "'", "''=", "\ufeff", " a ", "+", "1e5", "null", "a\u0300", "true", "[]", '"', "\U0001f994", "x" * 500]


async def filled(tenant: Tenant) -> None:
    """Links of every kind."""
    await made(tenant.api, **EVERYTHING)
    await made(tenant.api, hostname="one.example", path="/plain")
    await made(tenant.api, hostname="one.example", path="/secret", password="a secret")
    many = [
        {"destination": "https://example.com/", "hostname": "one.example", "path": f"/{number}", "title": title}
        for number, title in enumerate(TITLES)
    ]
    for first in range(0, 600, 300):
        more = [
            {"destination": f"https://example.com/{number}", "hostname": "one.example", "tags": [str(number)]}
            for number in range(first, first + 300)
        ]
        answer = await tenant.api.post("/v1/links/bulk", json={"links": [*many, *more]})
        assert answer.json()["success"], answer.text
        many = []


async def exported(tenant: Tenant, kind: str, **parameters: str) -> str:
    answer = await tenant.api.get("/v1/links/export", params={"format": kind, **parameters})
    assert answer.status_code == 200, answer.text
    return answer.text


async def everything(tenant: Tenant) -> list[dict[str, Any]]:
    """All links in the order of their making, by the list of links."""
    found, parameters = [], {"cursor": "", "limit": "100", "sortOrder": "asc"}
    while True:
        answer = (await tenant.api.get("/v1/links", params=parameters)).json()
        found += answer["data"]
        if not answer["meta"]["cursor"]["hasMore"]:
            return found
        parameters["cursor"] = answer["meta"]["cursor"]["next"]


async def test_an_export_has_every_link_as_the_api_shows_it(api: Api) -> None:
    await filled(api.one)
    await made(api.other.api)
    gone = await made(api.one.api)
    await api.one.api.delete(f"/v1/links/{gone['id']}")
    links = {link["id"]: {name: link[name] for name in COLUMNS} for link in await everything(api.one)}
    lines = [json.loads(line) for line in (await exported(api.one, "json")).splitlines()]
    assert {line["id"]: line for line in lines} == links and len(lines) == len(links) == 603 + len(TITLES)
    assert [line["createdAt"] for line in lines] == sorted(line["createdAt"] for line in lines)
    rows = list(csv.DictReader(io.StringIO((await exported(api.one, "csv")).removeprefix("\ufeff"))))
    assert [row["id"] for row in rows] == [line["id"] for line in lines]
    assert list(rows[0]) == list(COLUMNS)
    assert (await exported(api.other, "csv")).count("\n") == 2
    await api.other.api.request(
        "DELETE", "/v1/links/bulk", json={"ids": [one["id"] for one in await everything(api.other)]}
    )
    assert (await exported(api.other, "csv")).count("\n") == 1 and await exported(api.other, "json") == ""


def portable(file: str, kind: str) -> list[dict[str, Any]]:
    """The links of an export without what is of this place and of this time."""
    if kind == "csv":
        links: list[dict[str, Any]] = list(csv.DictReader(io.StringIO(file.removeprefix("\ufeff"))))
        for link in links:
            for name in ("rules", "variants"):
                link[name] = json.loads(link[name])
    else:
        links = [json.loads(line) for line in file.splitlines()]
    for link in links:
        for part in (*link["rules"], *link["variants"]):
            del part["id"]
    kept = [name for name in COLUMNS if name not in ("id", "hostname", "createdAt")]
    return sorted(({name: link[name] for name in kept} for link in links), key=lambda link: str(link["path"]))


@pytest.mark.parametrize("kind", ["csv", "json"])
async def test_what_was_exported_is_imported_as_the_same_links(api: Api, kind: str) -> None:
    await filled(api.one)
    file, before = await exported(api.one, kind), await everything(api.one)
    for parameters in ({}, {"onConflict": "update"}):
        done = await imported(api, api.one, file, **parameters)
        assert (done["counts"], done["told"]) == ({"unchanged": 603 + len(TITLES)}, [])
    assert await everything(api.one) == before and await exported(api.one, kind) == file
    done = await imported(api, api.other, file, hostname="two.example")
    total = 603 + len(TITLES)
    assert done["counts"] == {"created": total, "moved": total, "disabled": 1}
    wanted = portable(file, kind)
    [secret] = [link for link in wanted if link["hasPassword"] in (True, "true")]
    secret |= (
        {"hasPassword": False, "disabled": True} if kind == "json" else {"hasPassword": "false", "disabled": "true"}
    )
    assert portable(await exported(api.other, kind), kind) == wanted
    assert all(link["hostname"] == "two.example" for link in await everything(api.other))


async def test_an_export_is_of_one_moment(api: Api, connection: Connection, database_url: str) -> None:
    await filled(api.one)
    other = await asyncpg.connect(database_url)
    async with other.transaction():
        pieces = exports.pieces(other, api.one.organization_id, exports.FORMATS["json"], {})
        begin = await anext(pieces)
        last = (await everything(api.one))[-1]
        await api.one.api.patch(f"/v1/links/{last['id']}", json={"title": "changed meanwhile"})
        await made(api.one.api, title="made meanwhile")
        rest = [piece async for piece in pieces]
    await other.close()
    assert len(rest) > 1 and max(len(piece) for piece in (begin, *rest)) < 200_000
    assert b"meanwhile" not in b"".join(rest) and last["id"].encode() in b"".join(rest)


async def test_an_export_has_the_filters_of_the_list(api: Api) -> None:
    await made(api.one.api, path="/a", tags=["x"])
    await made(api.one.api, path="/b", archived=True)
    for parameters, paths in (
        ({}, ["/a", "/b"]),
        ({"tag": "x"}, ["/a"]),
        ({"query[archived]": "true"}, ["/b"]),
        ({"query": '{"path": "b"}'}, ["/b"]),
        ({"external_id": "none"}, []),
        ({"startDate": "2020-01-01", "endDate": "2020-01-02"}, []),
    ):
        lines = (await exported(api.one, "json", **parameters)).splitlines()
        assert [json.loads(line)["path"] for line in lines] == paths, parameters
    answer = await api.one.api.get("/v1/links/export")
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    assert answer.headers["content-disposition"] == 'attachment; filename="links.csv"'
    assert answer.headers["cache-control"] == "no-store"
    wrong = {"format": "xml", "page": "1", "limit": "5", "sort_by": "title", "hostname": "a b", "colour": "red"}
    answer = await api.one.api.get("/v1/links/export", params=wrong)
    assert error_of(answer) == (400, "VALIDATION_ERROR")
    assert {detail["field"] for detail in answer.json()["error"]["details"]} == set(wrong)
    answer = await api.one.api.get("/v1/links/export?format=csv&format=json")
    assert answer.json()["error"]["details"] == [{"field": "format", "message": "It is given twice."}]


async def test_what_goes_wrong_before_an_export_begins_is_an_error(
    api: Api, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export_routes._turns, "_wait_s", 0.01)
    async with export_routes._turns, export_routes._turns:
        assert error_of(await api.one.api.get("/v1/links/export")) == (503, "SERVICE_UNAVAILABLE")
    assert (await api.one.api.get("/v1/links/export")).status_code == 200
    await connection.execute("alter table links rename to links_away")
    assert error_of(await api.one.api.get("/v1/links/export")) == (500, "INTERNAL_ERROR")


Command = Callable[..., Awaitable[Result]]


@pytest.fixture
def command(servers: Servers, database_url: str, redis: Redis) -> Command:
    """Runs `linkwire` on the test's servers."""
    environment = {
        "DATABASE_URL": database_url,
        "REDIS_URL": servers.redis_url,
        "LINKWIRE_PUBLIC_URL": "http://localhost:8000",
    }

    async def run(*arguments: str) -> Result:
        return await asyncio.to_thread(CliRunner().invoke, linkwire, arguments, env=environment)

    return run


async def test_the_commands_do_what_the_api_does(
    api: Api, command: Command, connection: Connection, redis: Redis, tmp_path: Path
) -> None:
    one, other = (f"org_{tenant.organization.public_id}" for tenant in (api.one, api.other))
    await filled(api.one)
    file = tmp_path / "links"
    for kind, name in (("csv", "csv"), ("jsonl", "json")):
        done = await command("export", str(file), "--organization", one, "--format", kind)
        assert done.exit_code == 0, done.output
        assert file.read_bytes().decode() == await exported(api.one, name)
    assert (await command("export", "-", "--organization", one, "--format", "jsonl")).stdout == file.read_text()
    total = 603 + len(TITLES)
    file.write_text(file.read_text() + '{"destination": "nowhere", "\\u001b[31mred": 1}\n')
    options = ("--organization", other, "--hostname", "Two.example", "--source", "linkwire")
    done = await command("import", str(file), *options, "--dry-run")
    assert done.exit_code == 0 and await everything(api.other) == []
    for outcome in ("created", "unchanged"):
        done = await command("import", str(file), *options, "--on-conflict", "update")
        assert done.exit_code == 0, done.output
        assert f"line {total + 1}, destination: A destination must be an absolute URL, such as" in done.output
        assert "Not used: id, createdAt,  [31mred\n" in done.output
        assert f" {total} " in done.output and outcome in done.output
    links = await everything(api.other)
    assert len(links) == total and all(link["ownerId"] == f"o-{other.removeprefix('org_')}" for link in links)
    assert await redis.exists(*(Address(link["hostname"], link["path"]).key for link in links)) == total
    told = await connection.fetch("select * from audit_log where object_type = 'import' order by public_id")
    assert [row["action"] for row in told] == ["import.created", "import.finished"] * 3
    assert {row["actor_name"] for row in told} == {"command line"}
    counts = [json.loads(row["details"]).get("counts", {}) for row in told[1::2]]
    assert [(each["created"], each["unchanged"], each["refused"]) for each in counts] == [
        (total, 0, 1),
        (total, 0, 1),
        (0, total, 1),
    ]


async def test_commands_say_what_is_wrong_in_a_sentence(api: Api, command: Command, tmp_path: Path) -> None:
    await made(api.other.api, hostname="theirs.example")
    one = f"org_{api.one.organization.public_id}"
    good, bad = tmp_path / "good.csv", tmp_path / "bad.csv"
    good.write_text("destination\nhttps://example.com/\n")
    bad.write_text("a,b\n")
    for arguments, sentence in (
        ((str(good), "--organization", "org_0123456789abcdef"), "There is no organization org_0123456789abcdef."),
        ((str(good), "--organization", one, "--source", "excel"), "--source must be one of: shlink, dub,"),
        ((str(good), "--organization", one, "--hostname", "a b"), "--hostname a b: The hostname is not a valid"),
        ((str(good), "--organization", one, "--hostname", "theirs.example"), "This hostname belongs to another"),
        ((str(bad), "--organization", one), f"{bad}: These columns are not known to be of"),
        ((str(tmp_path / "none.csv"), "--organization", one), "No such file"),
    ):
        done = await command("import", *arguments)
        assert done.exit_code != 0 and sentence in done.output.replace("\n", " "), done.output
        assert "Traceback" not in done.output
    done = await command("export", str(tmp_path), "--organization", one)
    assert done.exit_code != 0 and "Traceback" not in done.output
    assert await links_of(api.one) == {}
