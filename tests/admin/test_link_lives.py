"""What becomes of links: found again, put by an id of one's own, deleted, restored, purged, and its history."""

import asyncio
from typing import Any

import pytest

from admin.database import Connection
from admin.links import links
from shared.links import Address, Published
from shared.redis import Redis
from tests.admin.conftest import Api, made
from tests.admin.people import error_of


async def leads(redis: Redis, link: dict[str, Any]) -> bool:
    """Whether Redis says that its address leads anywhere."""
    value = await redis.get(Address(link["hostname"], link["path"]).key)
    assert value is None or isinstance(value, bytes)
    return value is not None and Published.from_bytes(value).entry is not None


async def found(api: Api, **parameters: str) -> list[str]:
    """The titles of the links that a list has, sorted."""
    answer = await api.one.api.get("/v1/links", params=parameters)
    assert answer.status_code == 200, answer.text
    return sorted(link["title"] for link in answer.json()["data"])


@pytest.mark.parametrize(
    ("parameters", "titles"),
    [
        ({"search": "spring"}, ["Spring", "summer"]),
        ({"search": "SHOP.example/"}, ["Spring"]),
        ({"search": "/sommer"}, ["summer"]),
        ({"search": "100%"}, ["summer"]),
        ({"search": "100_"}, []),
        ({"search": "o%o"}, []),
        ({"search": ""}, ["Spring", "summer"]),
        ({"tag": "b"}, ["Spring", "summer"]),
        ({"tag": "a"}, ["Spring"]),
        ({"tag": "B"}, []),
        ({"folder": "mail"}, ["summer"]),
        ({"archived": "true"}, ["summer"]),
        ({"archived": "false"}, ["Spring"]),
        ({"externalId": "x"}, ["Spring"]),
        ({"query[tag]": "a", "query.archived": "false"}, ["Spring"]),
        ({"destination": "HTTPS://shop.example"}, ["Spring"]),
        ({"destination": "https://shop.example/other"}, []),
    ],
)
async def test_links_are_found_by_what_they_are(api: Api, parameters: dict[str, str], titles: list[str]) -> None:
    await made(api.one.api, title="Spring", destination="https://shop.example/", tags=["a", "b"], externalId="x")
    await made(
        api.one.api, title="summer", path="/Sommer", tags=["b"], folder="mail", archived=True, notes="after SPRING 100%"
    )
    await made(api.other.api, title="Spring of others", tags=["a", "b"])
    assert await found(api, **parameters) == titles


async def test_a_path_is_found_as_its_host_compares_paths(api: Api, connection: Connection) -> None:
    for host in ("plain", "folds", "keeps", "both"):
        await made(api.one.api, hostname=f"{host}.example", path="/taken")
    await connection.execute("update domains set folds_case = true where hostname in ('folds.example', 'both.example')")
    await connection.execute(
        "update domains set keeps_slash = true where hostname in ('keeps.example', 'both.example')"
    )
    for host in ("plain", "folds", "keeps", "both"):
        for path in ("/%C3%84/", "/\u00e4"):
            sent = {"hostname": f"{host}.example", "path": path, "title": f"{host} {path}"}
            await api.one.api.post("/v1/links", json={"destination": "https://a.example.com/", **sent})
    assert await found(api, path="/\u00c4/") == ["both /%C3%84/", "folds /%C3%84/", "keeps /%C3%84/", "plain /%C3%84/"]
    assert await found(api, path="/\u00c4") == ["both /\u00e4", "folds /%C3%84/", "plain /%C3%84/"]
    assert await found(api, path="/\u00e4/", hostname="both.example") == ["both /%C3%84/"]
    assert await found(api, path="/\u00e4/", hostname="keeps.example") == []


async def test_a_text_is_found_in_any_case_as_postgres_sees_it(api: Api) -> None:
    for title in ("\u0130STANBUL \u00c4", "\u0391\u03a3 \u1e9e"):
        await made(api.one.api, title=title)
        assert await found(api, search=title) == [title]


async def test_links_in_the_order_of_their_clicks(api: Api, connection: Connection) -> None:
    for title, clicks in (("some", 5), ("many", 70), ("none", 0)):
        link = await made(api.one.api, title=title)
        if clicks:
            await connection.execute(
                "insert into link_counts (link_id, total, uses) select id, $2, 1 from links where public_id = $1",
                link["id"],
                clicks,
            )
    await made(api.one.api, title="new")
    await made(api.other.api, title="of others")
    ordered = [("many", 70, 1), ("some", 5, 1), ("new", 0, 0), ("none", 0, 0)]
    answer = (await api.one.api.get("/v1/links?sortBy=clicks")).json()["data"]
    assert [(link["title"], link["clicks"], link["limitedClicks"]) for link in answer] == ordered
    titles = [title for title, _, _ in ordered]
    for size in (1, 2, 3):
        met: list[str] = []
        for page in range(1, 6):
            part = (await api.one.api.get(f"/v1/links?sortBy=clicks&perPage={size}&page={page}")).json()
            assert part["meta"]["pagination"]["totalCount"] == 4
            met += [link["title"] for link in part["data"]]
        assert met == titles
    assert [
        link["title"] for link in (await api.one.api.get("/v1/links?sortBy=clicks&sortOrder=asc")).json()["data"]
    ] == (titles[::-1][:1] + titles[2:3] + titles[1::-1])
    assert await found(api, sortBy="clicks", title="some") == ["some"]


async def test_sorted_pages_of_many_links_do_not_look_at_each(api: Api, connection: Connection) -> None:
    """By the plans of Postgres: no sort of all, and no scan of all."""
    await connection.execute(
        """
        insert into links (public_id, organization_id, owner_id, hostname, path, destination, version, created_at,
                           updated_at)
        select left(md5(n::text), 16), $1, 'o-x', 'localhost', '/' || n, 'https://a.example/', n,
               now() - n * interval '1 minute', now() - n * interval '1 second' from generate_series(1, 20000) n""",
        api.one.organization_id,
    )
    await connection.execute("insert into link_counts (link_id, total) select id, id % 100 from links where id % 2 = 0")
    await connection.execute(
        """
        insert into destination_checks (link_id, status)
        select id, case when id % 900 = 0 then 'dead' else 'ok' end from links"""
    )
    await connection.execute("vacuum analyze")
    for parameters in ({"sortBy": "updatedAt"}, {"sortBy": "clicks"}, {"destinationStatus": "dead"}):
        asked: list[Any] = []
        with connection.query_logger(asked.append):
            there = await links.page_of(connection, api.one.organization_id, links.LISTING.asked(parameters.items()))
        for one in asked:
            if "count(*)" not in one.query:
                plan = "\n".join(row[0] for row in await connection.fetch(f"explain {one.query}", *one.args))
                assert "Seq Scan on links" not in plan, plan
        assert there.rows


async def test_new_links_are_on_the_organizations_default_domain(api: Api, connection: Connection) -> None:
    await made(api.one.api, hostname="go.example.com")
    await connection.execute(
        "update domains set verified_at = now(), verified_by = 'txt', is_default = true where hostname like 'go.%'"
    )
    assert (await made(api.one.api))["hostname"] == "go.example.com"
    assert (await made(api.one.api, hostname="localhost"))["hostname"] == "localhost"
    many = await api.one.api.post("/v1/links/bulk", json={"links": [{"destination": "https://a.example.com/"}]})
    assert many.json()["data"][0]["data"]["hostname"] == "go.example.com"
    assert (await made(api.other.api))["hostname"] == "localhost"


# By an id of one's own.


async def test_a_link_is_put_by_its_external_id(api: Api, redis: Redis) -> None:
    sent = {"externalId": "crm/17", "destination": "https://a.example/", "title": "A"}
    first = await api.one.api.put("/v1/links", json=sent)
    assert first.status_code == 201
    again = await api.one.api.put("/v1/links", json={"externalId": "crm/17", "destination": "https://b.example/"})
    assert again.status_code == 200
    assert again.json()["data"]["id"] == first.json()["data"]["id"]
    assert again.json()["data"]["path"] == first.json()["data"]["path"]
    assert (again.json()["data"]["destination"], again.json()["data"]["title"]) == ("https://b.example/", "A")
    others = await api.other.api.put("/v1/links", json=sent)
    assert others.status_code == 201


async def test_a_put_again_keeps_the_address_and_the_ids_of_rules(api: Api) -> None:
    sent = {"externalId": "x", "destination": "https://a.example.com/", "path": None, "hostname": None}
    rules = [{"when": {"os": "ios"}, "destination": "https://b.example.com/"}]
    first = (await api.one.api.put("/v1/links", json=sent | {"rules": rules})).json()["data"]
    again = await api.one.api.put("/v1/links", json=sent | {"rules": first["rules"]})
    assert again.status_code == 200, again.text
    assert {name: again.json()["data"][name] for name in ("hostname", "path", "rules")} == {
        name: first[name] for name in ("hostname", "path", "rules")
    }


async def test_an_external_id_names_one_link(api: Api) -> None:
    link = await made(api.one.api, externalId="x")
    taken = await api.one.api.post("/v1/links", json={"destination": "https://a.example/", "externalId": "x"})
    assert (taken.status_code, taken.json()["error"]["message"]) == (
        409,
        "There is a link with this externalId already.",
    )
    other = await made(api.one.api)
    taken = await api.one.api.put(f"/v1/links/{other['id']}", json={"externalId": "x"})
    assert taken.status_code == 409
    missing = await api.one.api.put("/v1/links", json={"destination": "https://a.example/"})
    assert error_of(missing) == (400, "VALIDATION_ERROR")
    await api.one.api.delete(f"/v1/links/{link['id']}")
    deleted = await api.one.api.put("/v1/links", json={"destination": "https://a.example/", "externalId": "x"})
    assert (deleted.status_code, "purge" in deleted.json()["error"]["message"]) == (409, True)


async def test_parallel_puts_of_one_external_id_make_one_link(api: Api) -> None:
    sent = {"externalId": "x", "destination": "https://a.example/"}
    answers = await asyncio.gather(*[api.one.api.put("/v1/links", json=sent) for _ in range(8)])
    assert sorted(answer.status_code for answer in answers) == [200] * 7 + [201]
    assert len({answer.json()["data"]["id"] for answer in answers}) == 1


# Deleted, restored, purged.


async def test_a_deleted_link_keeps_its_address_and_can_be_restored(api: Api, redis: Redis) -> None:
    link = await made(api.one.api, path="/sale", title="Sale")
    url = f"/v1/links/{link['id']}"
    assert (await api.one.api.delete(url)).json()["data"] == {"id": link["id"], "deleted": True}
    assert not await leads(redis, link)
    for gone in (api.one.api.get(url), api.one.api.put(url, json={}), api.one.api.delete(url)):
        assert (await gone).status_code == 404
    assert await found(api) == []
    again = await api.one.api.post("/v1/links", json={"destination": "https://a.example/", "path": "/sale"})
    assert (again.status_code, "restore it" in again.json()["error"]["message"]) == (409, True)
    others = await api.other.api.post("/v1/links", json={"destination": "https://a.example/", "path": "/sale"})
    assert (others.status_code, "restore it" in others.json()["error"]["message"]) == (409, False)
    assert (await api.other.api.post(f"{url}/restore")).status_code == 404
    assert (await api.one.api.post(f"{url}/restore")).json()["data"] == link
    assert await leads(redis, link)
    assert (await api.one.api.post(f"{url}/restore")).status_code == 404


@pytest.mark.parametrize("is_deleted", [True, False])
async def test_a_purged_link_frees_its_address_at_once(api: Api, redis: Redis, is_deleted: bool) -> None:
    link = await made(api.one.api, path="/sale")
    if is_deleted:
        await api.one.api.delete(f"/v1/links/{link['id']}")
    assert (await api.one.api.delete(f"/v1/links/{link['id']}?purge=true")).status_code == 200
    assert not await leads(redis, link)
    assert (await api.one.api.post(f"/v1/links/{link['id']}/restore")).status_code == 404
    assert (await api.one.api.delete(f"/v1/links/{link['id']}?purge=yes")).status_code == 400
    new = await made(api.one.api, path="/sale")
    assert new["id"] != link["id"]
    assert await leads(redis, new)


async def deleted_since(api: Api, connection: Connection, link: dict[str, Any], *, hours: int) -> None:
    """Delete a link as if it had been so long ago."""
    await api.one.api.delete(f"/v1/links/{link['id']}")
    await connection.execute(
        "update links set deleted_at = now() - make_interval(hours => $2) where public_id = $1", link["id"], hours
    )


@pytest.mark.parametrize("is_cleared", [True, False])
async def test_after_a_day_the_address_is_free(api: Api, connection: Connection, is_cleared: bool) -> None:
    """Whether it has been cleared yet, or not."""
    kept, gone = await made(api.one.api, path="/kept"), await made(api.one.api, path="/gone", externalId="x")
    await deleted_since(api, connection, kept, hours=23)
    await deleted_since(api, connection, gone, hours=25)
    if is_cleared:
        await links.clear(connection)
    url = f"/v1/links/{gone['id']}"
    for method, asked in (("POST", f"{url}/restore"), ("GET", f"{url}/history"), ("DELETE", f"{url}?purge=true")):
        assert (await api.one.api.request(method, asked)).status_code == 404
    doomed = await api.one.api.request("DELETE", "/v1/links/bulk", json={"ids": [gone["id"]], "purge": True})
    assert doomed.json()["data"][0]["status"] == 404
    assert (await api.one.api.post(f"/v1/links/{kept['id']}/restore")).status_code == 200
    await made(api.other.api, path="/gone")
    put = await api.one.api.put("/v1/links", json={"externalId": "x", "destination": "https://a.example/"})
    assert put.status_code == 201, put.text


async def test_after_a_day_a_link_may_move_to_the_address(api: Api, connection: Connection) -> None:
    gone, link = await made(api.one.api, path="/gone", externalId="x"), await made(api.one.api)
    await deleted_since(api, connection, gone, hours=25)
    moved = await api.one.api.patch(f"/v1/links/{link['id']}", json={"path": "/gone", "externalId": "x"})
    assert moved.status_code == 200, moved.text


# History.


async def test_the_history_of_a_link_says_what_changed(api: Api) -> None:
    link = await made(api.one.api, path="/sale", title="Sale")
    url = f"/v1/links/{link['id']}"
    await api.one.api.put(
        url, json={"title": None, "tags": ["a"], "expiresAt": "2026-03-01T08:00:00Z", "password": "p"}
    )
    await api.one.api.delete(url)
    answer = await api.one.api.get(f"{url}/history")
    assert answer.json()["success"] is True
    deleted, changed, created = answer.json()["data"]
    assert [one["action"] for one in (deleted, changed, created)] == ["link.deleted", "link.changed", "link.created"]
    assert changed["details"]["changes"] == {
        "title": ["Sale", None],
        "tags": [[], ["a"]],
        "expiresAt": [None, "2026-03-01T08:00:00.000Z"],
        "hasPassword": [False, True],
    }
    assert created["actorName"] == "test"
    assert (await api.other.api.get(f"{url}/history")).status_code == 404
    await api.one.api.delete(f"{url}?purge=true")
    assert (await api.one.api.get(f"{url}/history")).status_code == 404
