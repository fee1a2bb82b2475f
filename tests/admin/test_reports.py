"""The operator stops links, by address or by where they lead, and nobody else lets them lead again."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from click.testing import CliRunner, Result

from admin.__main__ import linkwire
from admin.database import Connection
from admin.links import links, reports
from shared.links import Address, Published
from shared.redis import Redis
from tests.admin.conftest import Api, made
from tests.conftest import Servers

Command = Callable[..., Awaitable[Result]]


@pytest.fixture
def command(servers: Servers, database_url: str) -> Command:
    """Runs `linkwire` on the test's servers."""
    environment = {"DATABASE_URL": database_url, "REDIS_URL": servers.redis_url}

    async def run(*arguments: str) -> Result:
        return await asyncio.to_thread(CliRunner().invoke, linkwire, arguments, env=environment)

    return run


async def state(redis: Redis, hostname: str, path: str) -> str | None:
    """What edges are told of a link."""
    value = await redis.get(Address(hostname, path).key)
    assert isinstance(value, bytes)
    entry = Published.from_bytes(value).entry
    return entry.terms.state if entry else None


async def test_a_link_that_is_reported_stops_until_the_report_is_withdrawn(
    api: Api, redis: Redis, command: Command
) -> None:
    link = await made(api.one.api, hostname="go.example", path="/%C3%A4")
    url = f"/v1/links/{link['id']}"
    done = await command("report", "https://GO.example:443/ä/?qr=1", "--reason", "phishing")
    assert (done.exit_code, done.output) == (0, "https://GO.example:443/ä/?qr=1 is stopped.\n")
    assert await state(redis, "go.example", "/%C3%A4") == "reported"
    for change in ({"title": "a"}, {"destination": "https://fine.example/"}, {"disabled": False, "archived": False}):
        assert (await api.one.api.patch(url, json=change)).json()["data"]["reportedAt"]
    assert (await api.one.api.patch(url, json={"reportedAt": None})).status_code == 400
    assert await state(redis, "go.example", "/%C3%A4") == "reported"
    again = await command("report", "go.example/ä", "--reason", "phishing")
    assert again.exit_code == 1 and "There is no link at go.example/ä" in again.output
    done = await command("report", "--withdraw", "go.example/%c3%a4")
    assert (done.exit_code, done.output) == (0, "go.example/%c3%a4 leads again.\n")
    assert (await api.one.api.get(url)).json()["data"]["reportedAt"] is None
    assert await state(redis, "go.example", "/%C3%A4") == ""
    assert (await command("report", "--withdraw", "go.example/%c3%a4")).exit_code == 1
    told = (await api.one.api.get(f"{url}/history")).json()["data"]
    assert [entry["action"] for entry in told if "report" in entry["action"]] == [
        "link.report_withdrawn",
        "link.reported",
    ]
    assert told[-2]["details"] == {"hostname": "go.example", "path": "/%C3%A4", "reason": "phishing"}
    assert told[-2]["actorName"] == "command line"


async def test_the_address_of_a_reported_link_stays_its_own(
    api: Api, redis: Redis, command: Command, connection: Connection
) -> None:
    link = await made(api.one.api, path="/a")
    url = f"/v1/links/{link['id']}"
    assert (await command("report", "localhost/a", "--reason", "phishing")).exit_code == 0
    for change in ({"path": "/b"}, {"hostname": "go.example"}):
        moved = await api.one.api.patch(url, json=change)
        assert moved.status_code == 400 and "was reported" in moved.text
    for delete in ({"purge": "true"}, {}):
        assert (await api.one.api.delete(url, params=delete)).status_code == 200
        assert await state(redis, "localhost", "/a") is None
        await connection.execute(
            "update links set deleted_at = now() - interval '25 hours' where deleted_at is not null"
        )
        await links.clear(connection)
        taken = await api.one.api.post("/v1/links", json={"destination": "https://example.com/", "path": "/a"})
        assert taken.status_code == 409
        assert "keeps this address; it was reported, and can only be restored" in taken.text
        assert (await api.one.api.post(f"{url}/restore")).json()["data"]["reportedAt"]
        assert await state(redis, "localhost", "/a") == "reported"
    other = await made(api.one.api, path="/b")
    purged = {"ids": [link["id"], other["id"]], "purge": True}
    assert (await api.one.api.request("DELETE", "/v1/links/bulk", json=purged)).json()["success"]
    await made(api.one.api, path="/b")
    assert (await command("report", "--withdraw", "localhost/a")).exit_code == 0
    assert (await api.one.api.delete(f"{url}?purge=true")).status_code == 200
    await made(api.one.api, path="/a")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["report", "go.example/a"], "--reason"),
        (["report", "go.example/a", "--reason", "a", "--withdraw"], "--withdraw"),
        (["report", "go example/a", "--withdraw"], "not a valid domain name"),
        (["report", "go.example/a", "--withdraw"], "There is no link at go.example/a that was reported."),
        (["block", "add", "*"], "every destination"),
        (["block", "remove", "evil.example"], "evil.example is not blocked"),
    ],
)
async def test_what_the_commands_refuse(command: Command, arguments: list[str], told: str) -> None:
    done = await command(*arguments)
    assert done.exit_code in (1, 2) and told in done.output, done.output


async def test_what_is_blocked_can_be_stopped_listed_and_let_go(
    api: Api, redis: Redis, command: Command, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reports, "_BATCH", 2)
    evil = "https://evil.example/a"
    for tenant, path, fields in (
        (api.one, "/a", {"destination": evil}),
        (api.other, "/b", {"fallbackUrl": evil}),
        (api.one, "/c", {"rules": [{"when": {"country": "DE"}, "destination": evil}]}),
        (api.one, "/d", {"variants": [{"destination": evil}]}),
        (api.one, "/e", {"destination": "https://fine.example/?evil.example/a", "title": evil}),
        (api.one, "/f", {"destination": "https://evil.example/other"}),
    ):
        await made(tenant.api, path=path, **fields)
    gone = await made(api.one.api, path="/g", destination=evil)
    await api.one.api.delete(f"/v1/links/{gone['id']}")
    assert (await command("block", "add", "evil.example/A*", "--reason", "malware")).output == (
        "evil.example/A* is blocked.\n"
    )
    assert await state(redis, "localhost", "/a") == ""
    done = await command("block", "add", "evil.example/A*", "--reason", "phishing", "--disable")
    assert done.output == "evil.example/A* is blocked. 5 links that lead there are stopped.\n"
    assert [await state(redis, "localhost", f"/{path}") for path in "abcdefg"] == ["reported"] * 4 + ["", "", None]
    told = await connection.fetch("select organization_id, details from audit_log where action = 'link.reported'")
    assert sorted(row["organization_id"] for row in told) == [api.one.organization_id] * 4 + [api.other.organization_id]
    assert '"reason": "phishing"' in told[0]["details"] and '"pattern": "evil.example/A*"' in told[0]["details"]
    listed = (await command("block", "list")).output
    assert [listed.split("\t")[0], listed.split("\t")[2]] == ["evil.example/A*", "phishing\n"]
    assert "is not blocked any more" in (await command("block", "remove", "Evil.example/A*")).output
    assert (await command("block", "list")).output == ""
    assert (await api.one.api.post(f"/v1/links/{gone['id']}/restore")).json()["data"]["reportedAt"]
