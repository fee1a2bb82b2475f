"""Imports: what becomes of each line of a file."""

import io
import json
import tracemalloc
from typing import Any

import pytest

from admin.database import Connection
from admin.links.transfer.reading import read
from shared.links import Address, Published, uses_key
from shared.redis import Redis, run_id
from tests.admin.conftest import Api, made
from tests.admin.files_of_links import imported, links_of, send

DUB = """\
Short link,Destination URL,Clicks,Leads,Created at,Tags,Archived
https://one.example/spring,https://example.org/sale,42,3,2026-02-03T09:10:11.000Z,"news, spring",No
https://bit.ly/a%C3%A9,https://example.org/b,0,0,2026-01-01T00:00:00.000Z,,true
"""


async def leads_to(redis: Redis, link: dict[str, Any]) -> str | None:
    value = await redis.get(Address(link["hostname"], link["path"]).key)
    entry = Published.from_bytes(value).entry if isinstance(value, bytes) else None
    return entry.destination if entry else None


async def test_lines_become_links_that_can_be_followed(api: Api, redis: Redis) -> None:
    await made(api.one.api, hostname="one.example")
    done = await imported(api, api.one, DUB)
    assert (done["format"], done["source"], done["failure"]) == ("Dub, CSV of links", None, None)
    assert done["columns"] == {
        "used": {
            "Short link": "hostname, path",
            "Destination URL": "destination",
            "Clicks": "historicClicks",
            "Tags": "tags",
            "Archived": "archived",
        },
        "ignored": ["Created at", "Leads"],
    }
    assert done["progress"] == {"linesDone": 3, "bytesDone": len(DUB.encode()), "bytesTotal": len(DUB.encode())}
    assert (done["counts"], done["told"]) == ({"created": 2, "moved": 1}, [])
    assert done["createdAt"] <= done["startedAt"] <= done["finishedAt"]
    links = await links_of(api.one)
    spring, moved = links["one.example/spring"], links["localhost/a%C3%A9"]
    assert (spring["tags"], spring["archived"]) == (["news", "spring"], False)
    assert (spring["historicClicks"], spring["clicks"]) == (42, 0)
    assert moved["archived"] is True
    assert spring["ownerId"] == moved["ownerId"] == f"o-{api.one.organization.public_id}"
    for link in (spring, moved):
        assert await leads_to(redis, link) == link["destination"]
    assert (await api.one.api.get(f"/v1/links/{spring['id']}/stats")).json()["data"]["total"] == 0


async def test_an_import_is_told_as_a_whole(api: Api) -> None:
    done = await imported(api, api.one, DUB + "https://one.example/,nowhere,,,,,\n")
    told = (await api.one.api.get("/v1/audit-log")).json()["data"]
    entries = [entry["attributes"] for entry in told if entry["attributes"]["objectId"] == done["id"]]
    assert [entry["action"] for entry in entries] == ["import.finished", "import.created"]
    assert {entry["actorName"] for entry in entries} == {"test"}
    assert {entry["actorId"] for entry in entries} == {told[0]["attributes"]["actorId"]}
    assert entries[0]["details"]["counts"] == {
        **dict.fromkeys(("updated", "unchanged", "skipped", "disabled"), 0),
        **{"created": 2, "refused": 1, "moved": 2},
    }
    assert len(told) == 2


OURS = "hostname,path,destination,title,externalId,historicClicks\n"


@pytest.mark.parametrize("kind", ["skip", "update"])
async def test_the_same_file_again_changes_nothing_and_others_what_they_may(api: Api, kind: str, redis: Redis) -> None:
    file = OURS + "localhost,/a,https://a.example/,A,,5\n,/b,https://b.example/,B,crm-1,\n,/c,https://c.example/,,,\n"
    assert (await imported(api, api.one, file, onConflict=kind))["counts"] == {"created": 3}
    first = await links_of(api.one)
    for parameters in ({}, {"onConflict": "update"}, {"on_conflict": "skip"}):
        assert (await imported(api, api.one, file, **parameters))["counts"] == {"unchanged": 3}
    assert await links_of(api.one) == first
    other = (
        "path,destination,externalId,historicClicks\n"
        "/A/../a,HTTPS://new.example,,5\n"  # by its address
        "/moved,https://b.example/,crm-1,\n"  # by its external id
        "/c,https://c.example/,,7\n"  # counted on where it came from
        "/new,https://n.example/,,\n"
    )
    done = await imported(api, api.one, other, onConflict=kind)
    assert done["counts"] == {"created": 1, {"skip": "skipped", "update": "updated"}[kind]: 3}
    links = await links_of(api.one)
    if kind == "skip":
        assert {name: links[name] for name in first} == first
        return
    a = links["localhost/a"]
    assert (a["destination"], a["title"], a["id"]) == ("https://new.example/", "A", first["localhost/a"]["id"])
    assert links["localhost/moved"]["id"] == first["localhost/b"]["id"] and "localhost/b" not in links
    assert links["localhost/moved"]["title"] == "B"
    assert links["localhost/c"]["historicClicks"] == 7
    assert [await leads_to(redis, link) for link in (a, links["localhost/moved"])] == [
        a["destination"],
        "https://b.example/",
    ]
    assert await leads_to(redis, first["localhost/b"]) is None
    assert (await imported(api, api.one, other, onConflict=kind))["counts"] == {"unchanged": 4}
    assert len((await api.one.api.get("/v1/audit-log?objectType=link")).json()["data"]) == 0


async def test_two_lines_for_one_link_are_seen_to_in_their_order(api: Api) -> None:
    file = (
        "path,destination,externalId\n/a,https://a.example/,x\n/a,https://a.example/,\n/a,https://b.example/,\n"
        "/b,https://a.example/,x\n/a,https://c.example/,\n"
    )
    assert (await imported(api, api.one, file))["counts"] == {"created": 1, "skipped": 4}
    done = await imported(api, api.other, file.replace("/a,", "/c,").replace("/b,", "/d,"), onConflict="update")
    assert done["counts"] == {"created": 2, "updated": 3}
    links = await links_of(api.other)
    assert (links["localhost/c"]["destination"], links["localhost/d"]["externalId"]) == ("https://c.example/", "x")


async def test_what_is_refused_is_told_by_line_and_column(api: Api, connection: Connection) -> None:
    await made(api.other.api, path="/taken")
    await made(api.other.api, hostname="theirs.example", path="/x")
    await made(api.one.api, hostname="one.example", path="/there")
    gone = await made(api.one.api, path="/gone")
    await api.one.api.delete(f"/v1/links/{gone['id']}")
    await connection.execute("insert into blocked_destinations values ('evil.example', 'evil.example', '')")
    lines = [
        "Hostname;path;destination;Starts At;expires_at;tags;redirect-status;rules",
        "localhost;/good;https://example.com/;;;;301;",
        "localhost;/taken;https://example.com/;;;;302;",
        "localhost;/gone;https://example.com/;;;;302;",
        "localhost;/;https://example.com/;;;;302;",
        "localhost;/bad;ftp://example.com/;;;;299;",
        "localhost;/when;https://example.com/;2030-01-01;2029-01-01;;302;",
        "localhost;/when;https://example.com/;tomorrow;soon;;302;",
        "localhost;/evil;https://evil.example/;;;;302;",
        "localhost;/loop;https://one.example/there;;;;302;",
        "localhost;/healthz;https://example.com/;;;;302;",
        f"localhost;/tags;https://example.com/;;;{'x' * 51};302;",
        """localhost;/rules;https://example.com/;;;;302;"[{""when"": {""os"": ""ios""}, ""destination"": ""x""}]\"""",
        "theirs.example;/y;https://example.com/;;;;302;",
        "localhost;/short;https://example.com/",
    ]
    done = await imported(api, api.one, "\r\n".join(lines))
    assert done["counts"] == {"created": 2, "refused": 12, "moved": 1}
    root = "It is the root of a host, where no link can be. `rootUrl` of the domain says what is there."
    assert [note[:3] for note in done["told"]] == [
        (3, "", "There is a link at this hostname and path already."),
        (4, "", "A deleted link has this address or externalId: restore it, or delete it with purge=true."),
        (5, "path", root),
        (6, "destination", "A destination must begin with http:// or https://."),
        (6, "redirect-status", "It must be one of: 301, 302, 307, 308."),
        (7, "expires_at", "It must be later than startsAt."),
        (8, "Starts At", "It must be a date such as 2026-01-31T09:30:00Z, or seconds since 1970."),
        (8, "expires_at", "It must be a date such as 2026-01-31T09:30:00Z, or seconds since 1970."),
        (9, "destination", "This destination is blocked."),
        (10, "destination", "A destination can't be on a host that serves your short links."),
        (11, "path", "This path is reserved on every host."),
        (12, "tags", "Value should have at most 50 items after validation, not 51."),
        (13, "rules", "A destination must be an absolute URL, such as https://example.com/page."),
        (15, "", "It has 3 cells, and the header has 8: a cell with semicolons in it needs quotes around it."),
    ]
    assert all(is_refusal for *_, is_refusal in done["told"])
    assert set(await links_of(api.one)) == {"one.example/there", "localhost/good", "localhost/y"}


async def test_no_more_than_a_thousand_lines_are_told_of_and_all_are_counted(api: Api) -> None:
    done = await imported(api, api.one, "destination\n" + "nowhere\n" * 1_200)
    assert done["counts"] == {"refused": 1_200}
    assert [line for line, *_ in done["told"]] == list(range(2, 1_002))


DUB_JSON = {"shortLink": "https://localhost/p", "key": "p", "url": "https://example.org/", "clicks": 3}


async def test_a_password_never_comes_along_and_never_opens_a_link(api: Api, redis: Redis) -> None:
    file = json.dumps([DUB_JSON | {"password": "a secret"}])
    done = await imported(api, api.one, file)
    assert done["counts"] == {"created": 1, "disabled": 1}
    [(line, column, message, is_refusal)] = done["told"]
    assert (line, column, is_refusal) == (1, "", False) and "password" in message
    [link] = (await links_of(api.one)).values()
    assert (link["disabled"], link["hasPassword"]) == (True, False)
    value = await redis.get(Address("localhost", "/p").key)
    assert isinstance(value, bytes) and b"disabled" in value
    for kind in ("skip", "update"):
        done = await imported(api, api.one, file, onConflict=kind)
        assert (done["counts"], done["told"]) == ({"unchanged": 1}, [])
    await api.one.api.patch(f"/v1/links/{link['id']}", json={"password": "another", "disabled": False})
    assert (await imported(api, api.one, file, onConflict="update"))["counts"] == {"unchanged": 1}
    await api.one.api.patch(f"/v1/links/{link['id']}", json={"password": None})
    done = await imported(api, api.one, file, onConflict="update")
    assert done["counts"] == {"updated": 1, "disabled": 1} and len(done["told"]) == 1


async def test_a_limit_of_clicks_counts_on_from_elsewhere(api: Api, redis: Redis) -> None:
    file = "path,originalURL,shortURL,clicks,clicksLimit\na,https://a.example/,https://localhost/a,30,50\n"
    await imported(api, api.one, file)
    [link] = (await links_of(api.one)).values()
    assert (link["clickLimit"], link["historicClicks"], link["limitedClicks"]) == (20, 30, 0)
    keys = [key async for key in redis.scan_iter("uses:*")]
    row_id = int(keys[0].rpartition(b":")[2])
    assert keys == [uses_key(run_id(await redis.info("server")), row_id).encode()] and await redis.get(keys[0]) == b"0"


async def test_hosts_that_the_organization_has_not_are_not_taken(api: Api, connection: Connection) -> None:
    await made(api.one.api, hostname="one.example")
    await made(api.other.api, hostname="theirs.example")
    file = OURS + "".join(
        f"{host},/{path},https://example.com/,,,\n"
        for host, path in (
            ("one.example", "a"),
            ("ONE.example:8080", "b"),
            ("bit.ly", "c"),
            ("theirs.example", "d"),
            ("", "e"),
            ("localhost", "f"),
        )
    )
    done = await imported(api, api.one, file, hostname="Two.example")
    assert done["counts"] == {"created": 6, "moved": 2} and done["hostname"] == "two.example"
    assert {name for name in await links_of(api.one) if len(name) < 18 and name[-2] == "/"} == {
        "one.example/a",
        "one.example/b",
        "two.example/c",
        "two.example/d",
        "two.example/e",
        "localhost/f",
    }
    assert await connection.fetchval("select true from domains where hostname = 'bit.ly'") is None
    await connection.execute(
        "update domains set verified_at = now(), verified_by = 'txt', is_default = true where hostname = 'one.example'"
    )
    done = await imported(api, api.one, "path,destination\n/default,https://example.com/\n")
    assert "one.example/default" in await links_of(api.one)
    refused = await send(api.one, file, hostname="theirs.example")
    assert refused.json()["error"]["details"] == [
        {"field": "hostname", "message": "This hostname belongs to another organization."}
    ]


PARTS = {
    "path": "/parts",
    "destination": "https://example.com/",
    "rules": [{"when": {"os": "ios"}, "destination": "https://i.example/"}],
    "variants": [
        {"destination": "https://v.example/", "weight": 1},
        {"destination": "https://w.example/", "weight": 2},
    ],
}


async def test_rules_and_variants_keep_their_ids_in_the_link_that_was_exported_and_nowhere_else(api: Api) -> None:
    link = await made(api.one.api, **PARTS)
    url = f"/v1/links/{link['id']}"
    turned = [link["variants"][1], link["variants"][0]]
    link = (await api.one.api.patch(url, json={"variants": turned})).json()["data"]
    export = (await api.one.api.get("/v1/links/export?format=json")).text
    assert (await imported(api, api.one, export, onConflict="update"))["counts"] == {"unchanged": 1}
    again = json.loads(export) | {"variants": [*turned, {"destination": "https://x.example/", "weight": 1, "id": 99}]}
    done = await imported(api, api.one, json.dumps(again), onConflict="update")
    assert done["counts"] == {"updated": 1}, done["told"]
    parts = (await api.one.api.get(url)).json()["data"]["variants"]
    assert [part["id"] for part in parts] == [3, 2, 4]
    foreign = again | {"id": "0123456789abcdef"}
    assert (await imported(api, api.one, json.dumps(foreign), onConflict="update"))["counts"] == {"unchanged": 1}
    foreign["variants"] = [*turned[::-1]]
    await imported(api, api.one, json.dumps(foreign), onConflict="update")
    parts = (await api.one.api.get(url)).json()["data"]["variants"]
    assert [(part["id"], part["weight"]) for part in parts] == [(5, 1), (6, 2)]
    elsewhere = foreign | {"path": "/elsewhere"}
    await imported(api, api.one, json.dumps(elsewhere))
    new = (await links_of(api.one))["localhost/elsewhere"]
    assert [part["id"] for part in (*new["rules"], *new["variants"])] == [1, 2, 3]


MESSY = (
    OURS
    + "localhost,/new,https://example.com/,,,\nlocalhost,/new,https://example.com/,again,,\n"
    + "localhost,/there,https://example.com/,,,\nlocalhost,/there,https://other.example/,,,\n"
    + "localhost,/taken,https://example.com/,,,\nbit.ly,/moved,https://example.com/,,,\n,/bad,nowhere,,,\n"
)


@pytest.mark.parametrize("kind", ["skip", "update"])
async def test_a_dry_run_tells_the_same_and_does_nothing(
    api: Api, connection: Connection, redis: Redis, kind: str
) -> None:
    await made(api.other.api, path="/taken")
    there = await made(api.one.api, path="/there")
    before = await connection.fetch("select * from links order by id"), await redis.keys("link:*")
    tried = await imported(api, api.one, MESSY, dryRun="true", onConflict=kind, hostname="new.example")
    assert (await connection.fetch("select * from links order by id"), await redis.keys("link:*")) == before
    assert await connection.fetchval("select count(*) from unpublished") == 0
    assert await connection.fetchval("select true from domains where hostname = 'new.example'") is None
    done = await imported(api, api.one, MESSY, onConflict=kind, hostname="new.example")
    same = ("counts", "told", "columns", "progress", "format")
    assert {name: tried[name] for name in same} == {name: done[name] for name in same}
    assert (tried["dryRun"], done["dryRun"]) == (True, False)
    changed = {"skip": {"skipped": 2}, "update": {"updated": 2}}[kind]
    assert done["counts"] == {"created": 2, "unchanged": 1, "refused": 2, "moved": 1, **changed}
    links = await links_of(api.one)
    assert links["localhost/there"]["id"] == there["id"]
    assert (
        links["localhost/there"]["destination"]
        == {"skip": "https://example.com/", "update": "https://other.example/"}[kind]
    )


@pytest.mark.timeout(20)
async def test_names_of_columns_may_be_many_and_long(api: Api) -> None:
    many = "destination," + ",".join(map(str, range(100_000)))
    done = await imported(api, api.one, f"{many}\nhttps://example.com/{',' * 100_000}\n")
    assert done["counts"] == {"created": 1}
    assert done["columns"]["ignored"] == [str(number) for number in range(100)]


def test_long_names_are_not_remembered() -> None:
    lines = [json.dumps({"destination": "https://a.example/", str(number) + "x" * 500_000: 1}) for number in range(40)]
    reading = read(io.BytesIO("\n".join(lines).encode()))
    tracemalloc.start()
    try:
        assert sum(1 for _ in reading.rows()) == 40
        assert tracemalloc.get_traced_memory()[0] < 1_000_000
    finally:
        tracemalloc.stop()
    assert len(reading.ignored) == 40 and all(len(name) == 100 for name in reading.ignored)


async def test_what_nobody_could_store_is_refused_and_stops_nothing(api: Api) -> None:
    lines = [
        '"path": "/none", "title": null, "tags": null, "folder": null, "clickLimit": null',
        '"path": "/infinite", "metadata": {"a": 1e999}',
        '"path": "/long", "metadata": {"a": "' + "x" * 20_000 + '"}',
        '"path": "/text", "tags": 7, "metadata": [], "rules": {}, "preview": {"title": 1}, "utm": {"source": 1}',
        '"path": "/half", "title": "\\udc00"',
        '"path": "/nul", "title": "a\\u0000"',
        '"path": "/int", "metadata": {"a": 1180591620717411303424}',
    ]
    lines = ['{"destination": "https://example.com/", ' + line + "}" for line in lines]
    done = await imported(api, api.one, "\n".join(lines))
    assert done["counts"] == {"created": 2, "refused": 5}
    assert [line for line, *_ in done["told"]] == [2, 3, 4, 5, 6]
    assert set(await links_of(api.one)) == {"localhost/none", "localhost/int"}
    done = await imported(api, api.one, f"[{','.join(lines)}]")
    assert done["counts"] == {"unchanged": 1, "refused": 1}
    [(line, _, message, _)] = done["told"]
    assert line == 2 and message.endswith("The rest of the file is not read.")
