"""Domains: whose a host is, and what is served there."""

import asyncio
import dataclasses
import re
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest

from admin.database import Connection
from admin.links import claims, domains
from shared.entries import HostEntry
from tests.admin.conftest import Api, Tenant, made
from tests.admin.hosts import Hosts, page, world_of
from tests.admin.people import error_of

HOST = "go.example.com"
SERVED = {
    "rootUrl": "https://example.com/",
    "notFoundUrl": "https://example.com/404",
    "expiredUrl": "https://example.com/410",
    "robotsTxt": "User-agent: *\nDisallow:\n",
    "faviconUrl": "https://example.com/favicon.ico",
    "appleAppSiteAssociation": {"applinks": {"details": [{"appIDs": ["ABCDE12345.com.example"], "n": 1.5}]}},
    "assetlinks": [{"relation": ["delegate_permission/common.handle_all_urls"], "target": {}}],
}


@pytest.fixture
async def there(api: Api) -> AsyncIterator[Hosts]:
    async with world_of(api.app, HOST) as found:
        yield found


async def added(tenant: Tenant, hostname: str = HOST) -> dict[str, Any]:
    answer = await tenant.api.post("/v1/domains", json={"hostname": hostname})
    assert answer.status_code == 201, answer.text
    return dict(answer.json()["data"])


async def named(tenant: Tenant, hostname: str = HOST) -> dict[str, Any]:
    """The tenant's domain of this name."""
    [domain] = (await tenant.api.get("/v1/domains", params={"hostname": hostname})).json()["data"]
    return dict(domain)


async def changed(tenant: Tenant, domain: dict[str, Any], **fields: Any) -> httpx2.Response:
    return await tenant.api.patch(f"/v1/domains/{domain['id']}", json=fields)


def show(there: Hosts, domain: dict[str, Any], method: str = "txt") -> None:
    """Do what the answer says is to be done."""
    told = domain["attributes"]["verification"]
    if method == "txt":
        there.names.has(told["txt"]["name"], "TXT", f'"{told["txt"]["value"]}"')
    else:
        there.pages.pages[httpx2.URL(told["file"]["url"]).path] = page(told["file"]["content"].encode())


async def verified(tenant: Tenant, domain: dict[str, Any]) -> httpx2.Response:
    return await tenant.api.post(f"/v1/domains/{domain['id']}/verify")


async def shown(there: Hosts, tenant: Tenant, hostname: str = HOST, method: str = "txt") -> dict[str, Any]:
    """A domain that was added and verified."""
    domain = await added(tenant, hostname)
    show(there, domain, method)
    answer = await verified(tenant, domain)
    assert answer.status_code == 200, answer.text
    return dict(answer.json()["data"])


async def asked(api: Api, hostname: str) -> int:
    answer = await api.nobody.get("/ask", params={"domain": hostname})
    assert answer.content == b""
    return answer.status_code


async def paths(connection: Connection, hostname: str = HOST) -> list[str]:
    rows = await connection.fetch("select path from links where hostname = $1 order by id", hostname)
    return [row["path"] for row in rows]


async def marks(connection: Connection, hostname: str = HOST) -> list[str]:
    """What is to be published of a host, in the order in which it will be."""
    rows = await connection.fetch("select path from unpublished where hostname = $1 order by version", hostname)
    return [row["path"] for row in rows]


async def test_a_domain_begins_pending_and_says_what_is_to_be_shown(api: Api, connection: Connection) -> None:
    domain = await added(api.one, "Go.Example.COM.")
    assert domain["id"].startswith("dom_") and domain["type"] == "domain"
    told = dict(domain["attributes"])
    assert told.pop("createdAt") and told.pop("updatedAt")
    proof = told["verification"]["file"]["content"]
    assert re.fullmatch("[0-9a-f]{32}", proof)
    assert told == {
        "hostname": HOST,
        "status": "pending",
        "isDefault": False,
        "verification": {
            "txt": {"name": f"_linkwire.{HOST}", "value": f"linkwire-verification={proof}"},
            "file": {"url": f"http://{HOST}/.well-known/linkwire-verification", "content": proof},
            "verifiedBy": None,
            "verifiedAt": None,
        },
        "caseSensitive": True,
        "ignoreTrailingSlash": True,
        **dict.fromkeys(SERVED),
    }
    assert (await api.one.api.get(f"/v1/domains/{domain['id']}")).json()["data"] == domain
    for query, found in (
        ("", [domain]),
        ("?status=pending", [domain]),
        ("?status=verified", []),
        ("?limit=1", [domain]),
    ):
        assert (await api.one.api.get(f"/v1/domains{query}")).json()["data"] == found, query
    assert (await made(api.one.api, hostname=HOST))["hostname"] == HOST
    assert (await domains.host_entries(connection, [HOST, "other.example.com"])) == {
        HOST: HostEntry(organization_id=api.one.organization_id, proof=proof)
    }


async def test_hosts_that_nobody_can_add(api: Api) -> None:
    await added(api.one)
    for hostname in (HOST, "localhost"):
        answer = await api.one.api.post("/v1/domains", json={"hostname": hostname})
        assert error_of(answer) == (409, "RESOURCE_ALREADY_EXISTS")
    api.app.state.settings = dataclasses.replace(api.app.state.settings, configured_api_url="https://api.example.com")
    answer = await api.one.api.post("/v1/domains", json={"hostname": "api.example.com"})
    assert error_of(answer) == (409, "RESOURCE_ALREADY_EXISTS")
    for hostname in ("127.0.0.1", "1.2", "[::1]", "a b", "https://go.example.com", "", "a..b"):
        answer = await api.one.api.post("/v1/domains", json={"hostname": hostname})
        assert error_of(answer) == (400, "VALIDATION_ERROR"), hostname


async def test_the_first_link_makes_a_host_a_domain(api: Api, connection: Connection) -> None:
    await made(api.one.api, hostname=HOST)
    domain = await named(api.one)
    assert domain["attributes"]["status"] == "pending"
    assert "" in await marks(connection)
    answer = await api.other.api.post("/v1/links", json={"destination": "https://example.com/", "hostname": HOST})
    assert error_of(answer) == (400, "VALIDATION_ERROR")


@pytest.mark.parametrize("method", ["txt", "file"])
async def test_whoever_shows_the_proof_is_verified(api: Api, there: Hosts, connection: Connection, method: str) -> None:
    domain = await added(api.one)
    missing = await verified(api.one, domain)
    assert error_of(missing) == (422, "DOMAIN_NOT_VERIFIED")
    assert [detail["field"] for detail in missing.json()["error"]["details"]] == ["txt", "file"]
    assert await asked(api, HOST) == 404
    show(there, domain, method)
    verification = (await verified(api.one, domain)).json()["data"]["attributes"]["verification"]
    assert verification["verifiedBy"] == method and verification["verifiedAt"]
    assert (await named(api.one))["attributes"]["status"] == "verified"
    assert await asked(api, HOST) == 200
    assert (await domains.host_entries(connection, [HOST]))[HOST].proof == ""
    [told] = (await api.one.api.get("/v1/audit-log?action=domain.verified")).json()["data"]
    assert told["attributes"]["details"] == {"hostname": HOST, "method": method}
    assert (await verified(api.one, domain)).status_code == 200
    assert len((await api.one.api.get("/v1/audit-log?action=domain.verified")).json()["data"]) == 1


async def test_whoever_shows_that_a_host_is_theirs_gets_it_without_the_links_of_others(
    api: Api, there: Hosts, connection: Connection
) -> None:
    lost = [await made(api.other.api, hostname=HOST, path=path) for path in ("/a", "/b")]
    await api.other.api.delete(f"/v1/links/{lost[1]['id']}")
    theirs = await named(api.other)
    await changed(api.other, theirs, caseSensitive=False, **SERVED)
    domain = await added(api.one)
    assert (await named(api.other)) and (await named(api.one)) == domain
    assert error_of(await changed(api.one, domain, rootUrl=None)) == (422, "DOMAIN_NOT_VERIFIED")
    refused = await api.one.api.post("/v1/links", json={"destination": "https://example.com/", "hostname": HOST})
    assert refused.status_code == 400
    assert error_of(await verified(api.one, domain)) == (422, "DOMAIN_NOT_VERIFIED")
    assert await paths(connection) == ["/a", "/b"]
    show(there, domain)
    await connection.execute("delete from unpublished")
    answer = (await verified(api.one, domain)).json()["data"]
    assert answer["id"] == domain["id"] and answer["attributes"]["status"] == "verified"
    assert answer["attributes"]["verification"]["txt"] == domain["attributes"]["verification"]["txt"]
    assert answer["attributes"]["caseSensitive"] and answer["attributes"]["rootUrl"] is None
    assert sorted(set(await marks(connection)) - {""}) == ["/a", "/b"]
    assert (await domains.host_entries(connection, [HOST]))[HOST] == HostEntry(api.one.organization_id)
    assert (await api.other.api.get("/v1/domains")).json()["data"] == []
    assert (await api.other.api.get(f"/v1/domains/{theirs['id']}")).status_code == 404
    assert (await api.other.api.get(f"/v1/links/{lost[0]['id']}")).status_code == 404
    entries = (await api.other.api.get("/v1/audit-log?actorId=system_domains")).json()["data"]
    told = {(one["attributes"]["action"], one["attributes"]["objectId"]) for one in entries}
    assert told == {("domain.lost", theirs["id"]), *(("link.purged", link["id"]) for link in lost)}
    assert api.one.organization.public_id not in str(entries)
    await made(api.one.api, hostname=HOST, path="/a")


async def test_a_txt_record_counts_more_than_a_file_and_a_file_more_than_nothing(
    api: Api, there: Hosts, connection: Connection
) -> None:
    await made(api.other.api, hostname=HOST)
    mine = await added(api.one)
    show(there, mine, "file")
    assert (await verified(api.one, mine)).status_code == 200
    theirs = await added(api.other)
    show(there, theirs, "file")
    assert error_of(await verified(api.other, theirs)) == (409, "RESOURCE_ALREADY_EXISTS")
    assert (await named(api.one))["attributes"]["status"] == "verified"
    show(there, theirs)
    assert (await verified(api.other, theirs)).status_code == 200
    assert (await api.one.api.get("/v1/domains")).json()["data"] == []
    again = await api.one.api.post("/v1/domains", json={"hostname": HOST})
    assert error_of(again) == (409, "RESOURCE_ALREADY_EXISTS")


async def test_what_was_shown_by_a_file_may_be_shown_by_a_record_later_but_not_the_other_way(
    api: Api, there: Hosts
) -> None:
    domain = await shown(there, api.one, method="file")
    there.pages.pages.clear()
    assert (await verified(api.one, domain)).json()["data"]["attributes"]["verification"]["verifiedBy"] == "file"
    show(there, domain)
    better = (await verified(api.one, domain)).json()["data"]
    assert better["attributes"]["verification"]["verifiedBy"] == "txt"
    there.names.asked.clear()
    assert (await verified(api.one, domain)).json()["data"] == better
    assert there.names.asked == []


async def test_two_who_wait_for_a_host_at_once(api: Api, there: Hosts, connection: Connection) -> None:
    """One of them holds it, and what they show decides."""
    mine, theirs = await asyncio.gather(added(api.one), added(api.other))
    for domain in (mine, theirs):
        show(there, domain, "file")
    show(there, theirs)
    answers = await asyncio.gather(verified(api.one, mine), verified(api.other, theirs))
    assert answers[1].status_code == 200
    assert await connection.fetchval("select organization_id from domains where hostname = $1", HOST) == (
        api.other.organization_id
    )
    assert await connection.fetchval("select count(*) from domain_claims") <= 1


async def test_a_domain_with_links_stays(api: Api, there: Hosts, connection: Connection) -> None:
    links = [await made(api.one.api, hostname=HOST, path=path) for path in ("/a", "/b")]
    domain = await named(api.one)
    await api.one.api.delete(f"/v1/links/{links[0]['id']}")
    refused = await api.one.api.delete(f"/v1/domains/{domain['id']}")
    assert error_of(refused) == (409, "RESOURCE_ALREADY_EXISTS")
    assert "2 links are on this domain; 1 of them" in refused.json()["error"]["message"]
    await api.one.api.delete(f"/v1/links/{links[1]['id']}")
    assert (await api.one.api.delete(f"/v1/domains/{domain['id']}")).status_code == 409
    for link in links:
        await api.one.api.delete(f"/v1/links/{link['id']}?purge=true")
    assert (await api.one.api.delete(f"/v1/domains/{domain['id']}")).status_code == 204
    assert (await api.one.api.get("/v1/domains")).json()["data"] == []
    assert await domains.host_entries(connection, [HOST]) == {}
    await added(api.other)


async def test_whoever_waits_longest_has_a_host_that_is_left(api: Api, there: Hosts, connection: Connection) -> None:
    held = await shown(there, api.one, method="file")
    await changed(api.one, held, rootUrl="https://example.com/")
    waiting = await added(api.other)
    assert (await api.one.api.delete(f"/v1/domains/{held['id']}")).status_code == 204
    assert (await named(api.other))["attributes"]["verification"] == waiting["attributes"]["verification"]
    assert (await domains.host_entries(connection, [HOST]))[HOST] == HostEntry(
        organization_id=api.other.organization_id,
        proof=waiting["attributes"]["verification"]["file"]["content"],
    )
    await made(api.other.api, hostname=HOST)
    waiting = await added(api.one)
    assert (await api.one.api.delete(f"/v1/domains/{waiting['id']}")).status_code == 204
    assert len(await paths(connection)) == 1


async def test_what_a_domain_serves_can_be_changed_and_taken_away(api: Api, connection: Connection) -> None:
    domain = await added(api.one)
    answer = await changed(api.one, domain, caseSensitive=False, ignoreTrailingSlash=False, **SERVED)
    told = answer.json()["data"]["attributes"]
    assert {name: told[name] for name in SERVED} == SERVED
    assert not told["caseSensitive"] and not told["ignoreTrailingSlash"]
    assert told["updatedAt"] > domain["attributes"]["updatedAt"]
    entry = (await domains.host_entries(connection, [HOST]))[HOST]
    assert HostEntry.from_bytes(entry.to_bytes()) == entry
    assert entry._replace(proof="") == HostEntry(
        organization_id=api.one.organization_id,
        folds_case=True,
        keeps_slash=True,
        root="https://example.com/",
        not_found="https://example.com/404",
        expired="https://example.com/410",
        robots_txt="User-agent: *\nDisallow:\n",
        favicon="https://example.com/favicon.ico",
        apple_app_site_association='{"applinks":{"details":[{"n":1.5,"appIDs":["ABCDE12345.com.example"]}]}}',
        assetlinks='[{"target":{},"relation":["delegate_permission/common.handle_all_urls"]}]',
    )
    assert (await changed(api.one, domain, robotsTxt=None)).json()["data"]["attributes"]["robotsTxt"] is None
    told = (await changed(api.one, domain, **dict.fromkeys(SERVED))).json()["data"]["attributes"]
    assert {name: told[name] for name in SERVED} == dict.fromkeys(SERVED)
    entries = (await api.one.api.get("/v1/audit-log?action=domain.changed")).json()["data"]
    assert entries[1]["attributes"]["details"] == {"hostname": HOST, "fields": ["robots_txt"]}


async def test_what_can_not_be_served(api: Api) -> None:
    domain = await added(api.one)
    await made(api.one.api, hostname="own.example.com")
    wrongs: list[dict[str, Any]] = [
        {"rootUrl": f"https://{HOST}/a"},
        {"notFoundUrl": "http://localhost/a"},
        {"expiredUrl": "https://own.example.com/"},
        {"faviconUrl": "javascript:alert(1)"},
        {"robotsTxt": ""},
        {"robotsTxt": "a\x01"},
        {"robotsTxt": "a" * 10_001},
        {"appleAppSiteAssociation": []},
        {"appleAppSiteAssociation": {"a": "a" * 32 * 1024}},
        {"assetlinks": {}},
        {"assetlinks": [1]},
        {"assetlinks": [{"a": "a" * 32 * 1024}]},
        {"caseSensitive": None},
        {"isDefault": "yes"},
        {"hostname": "other.example.com"},
    ]
    for wrong in wrongs:
        answer = await changed(api.one, domain, **wrong)
        assert error_of(answer) == (400, "VALIDATION_ERROR"), wrong
        [field] = wrong
        assert answer.json()["error"]["details"][0]["field"].startswith(field)


async def test_every_change_of_a_host_is_published(api: Api, connection: Connection) -> None:
    """Also when the process dies before it has done so itself: the mark is in the transaction of the change."""
    one, other = api.one.organization_id, api.other.organization_id

    async def marked() -> bool:
        return bool(await connection.fetchval("delete from unpublished where hostname = $1 returning path = ''", HOST))

    assert await domains.claim(connection, one, HOST) and await marked()
    assert await domains.claim(connection, one, HOST) and not await marked()
    waiting = (await claims.add(connection, other, HOST)).public_id
    assert not await marked()
    held = await connection.fetchval("select public_id from domains where hostname = $1", HOST)
    for organization_id, public_id, method in ((one, held, "file"), (other, waiting, "txt")):
        async with connection.transaction(), domains.held(connection, organization_id, public_id) as domain:
            await claims.verify(connection, domain, method)
        assert await marked()
    async with connection.transaction(), domains.held(connection, other, waiting) as domain:
        await domains.change(connection, domain, domain._replace(root_url="https://example.com/"))
        assert await marked()
        await claims.release(connection, domain)
        assert await marked()


async def test_one_verified_domain_is_the_default(api: Api, there: Hosts, connection: Connection) -> None:
    pending = await added(api.one, "pending.example.com")
    assert error_of(await changed(api.one, pending, isDefault=True)) == (422, "DOMAIN_NOT_VERIFIED")
    two = [await shown(there, api.one, name) for name in ("a.example.com", "b.example.com")]
    assert await domains.default_of(connection, api.one.organization_id) is None
    for domain in two:
        assert (await changed(api.one, domain, isDefault=True)).json()["data"]["attributes"]["isDefault"]
        assert await domains.default_of(connection, api.one.organization_id) == domain["attributes"]["hostname"]
    answers = await asyncio.gather(*(changed(api.one, domain, isDefault=True) for domain in two))
    assert {answer.status_code for answer in answers} <= {200, 503}
    assert await connection.fetchval("select count(*) from domains where is_default") == 1
    for domain in two:
        await changed(api.one, domain, isDefault=False)
    assert await domains.default_of(connection, api.one.organization_id) is None
