"""No link leads back to itself by way of others, whosesoever they are."""

from typing import Any

import pytest

from admin.database import Connection
from admin.links import domains, loops
from tests.admin.conftest import Api, Tenant, made
from tests.admin.people import error_of

OUT = "https://example.com/"
BACK = "leads back here"


async def refused(tenant: Tenant, **fields: Any) -> str:
    """What is said of a link that can't be made."""
    answer = await tenant.api.post("/v1/links", json={"destination": OUT, **fields})
    assert error_of(answer) == (400, "VALIDATION_ERROR"), answer.text
    return str(answer.json()["error"]["details"])


async def page_of(tenant: Tenant, hostname: str, **pages: Any) -> str:
    """Change what a host of the tenant has beside its links; what is said of it, if it is refused."""
    [domain] = (await tenant.api.get("/v1/domains", params={"hostname": hostname})).json()["data"]
    answer = await tenant.api.patch(f"/v1/domains/{domain['id']}", json=pages)
    return "" if answer.status_code == 200 else str(answer.json()["error"]["details"])


async def test_the_host_of_others_may_be_linked_to_but_not_back(api: Api) -> None:
    """Also where it has become a host of links only behind the link to it."""
    link = await made(api.one.api, hostname="one.example", path="/a", destination="https://two.example:8443/b/?c#d")
    assert BACK in await refused(api.other, hostname="two.example", path="/b", destination="https://one.example/a")
    assert BACK in await refused(api.other, hostname="two.example", path="/b", fallbackUrl="http://one.example/%61/")
    await made(api.other.api, hostname="two.example", path="/c", destination="https://one.example/a")
    await made(api.other.api, hostname="two.example", path="/b", destination="https://one.example/none")
    away = {"destination": "https://two.example/c"}
    answer = await api.one.api.patch(f"/v1/links/{link['id']}", json=away)
    assert error_of(answer) == (400, "VALIDATION_ERROR") and BACK in answer.text
    assert (await api.one.api.patch(f"/v1/links/{link['id']}", json=away | {"path": "/z"})).status_code == 200
    moved = await api.one.api.patch(f"/v1/links/{link['id']}", json={"path": "/a"})
    assert error_of(moved) == (400, "VALIDATION_ERROR") and BACK in moved.text


@pytest.mark.parametrize(
    "fields",
    [
        {"fallbackUrl": "https://one.example/a"},
        {"rules": [{"when": {"country": "DE"}, "destination": "https://one.example/a"}]},
        {"variants": [{"destination": OUT}, {"destination": "https://one.example/a"}]},
    ],
    ids=lambda fields: next(iter(fields)),
)
async def test_every_way_of_a_link_counts_also_while_it_is_deleted(api: Api, fields: dict[str, Any]) -> None:
    link = await made(api.other.api, hostname="two.example", path="/b", **fields)
    for step in ("delete", "purge"):
        assert BACK in await refused(api.one, hostname="one.example", path="/a", destination="https://two.example/b"), (
            step
        )
        await api.other.api.delete(f"/v1/links/{link['id']}?purge={'true' if step == 'purge' else 'false'}")
    await made(api.one.api, hostname="one.example", path="/a", destination="https://two.example/b")


async def test_hosts_of_the_organization_and_of_everybody_are_refused_whatever_is_there(
    api: Api, connection: Connection
) -> None:
    await domains.open_to_all(connection, "all.example")
    await made(api.one.api, hostname="one.example")
    for destination in (
        "https://one.example/none",
        "https://new.example:80/",
        "https://new.example/a",
        "http://all.example/",
    ):
        assert "serves your short links" in await refused(api.one, hostname="new.example", destination=destination)
    await made(api.other.api, destination="https://one.example/none")


async def test_pages_of_a_host_lead_on_as_its_links_do(api: Api) -> None:
    await made(api.one.api, hostname="one.example", path="/A", destination="https://two.example/none")
    await made(api.other.api, hostname="two.example")
    for name in ("rootUrl", "notFoundUrl", "expiredUrl", "faviconUrl"):
        assert BACK in await page_of(api.other, "two.example", **{name: "https://one.example/A"})
    assert await page_of(api.other, "two.example", notFoundUrl="https://one.example/a") == ""
    assert BACK in await refused(api.one, hostname="one.example", path="/a", destination="https://two.example/none")
    await made(api.one.api, hostname="one.example", path="/c", destination="https://two.example/none")
    assert "serves your" in await page_of(api.other, "two.example", rootUrl="https://two.example/")


async def test_paths_are_compared_as_their_host_compares_them(api: Api) -> None:
    await made(api.other.api, hostname="two.example", path="/b", destination="https://one.example/a")
    away = "https://two.example/B"
    link = await made(api.one.api, hostname="one.example", path="/a", destination=away)
    assert await page_of(api.other, "two.example", caseSensitive=False) == ""
    answer = await api.one.api.patch(f"/v1/links/{link['id']}", json={"destination": f"{away}?c"})
    assert error_of(answer) == (400, "VALIDATION_ERROR") and BACK in answer.text


async def test_ways_are_followed_so_far_and_no_farther(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    tenants = (api.one, api.other)
    for number in range(11):
        onwards = f"https://h{number - 1}.example/a" if number else OUT
        await made(tenants[number % 2].api, hostname=f"h{number}.example", path="/a", destination=onwards)
    assert BACK in await refused(api.other, hostname="h11.example", destination="https://h10.example/a")
    monkeypatch.setattr(loops, "_ADDRESSES", 12)
    rules = [{"when": {"country": "DE"}, "destination": f"https://h0.example/{number}"} for number in range(13)]
    await made(api.other.api, rules=rules[:12])
    assert BACK in await refused(api.other, rules=rules)


async def test_a_loop_of_others_that_there_is_nevertheless_ends_the_search(api: Api, connection: Connection) -> None:
    """Two changes at one moment don't see each other."""
    await made(api.other.api, hostname="two.example", path="/a")
    await connection.execute("update links set destination = 'https://two.example/a'")
    await made(api.one.api, hostname="one.example", destination="https://two.example/a")


async def test_several_links_at_once_each_have_their_own_ways(api: Api) -> None:
    await made(api.other.api, hostname="two.example", path="/b", destination="https://one.example/a")
    await made(api.other.api, hostname="two.example", path="/c", destination=OUT)
    links = [
        {"hostname": "one.example", "path": path, "destination": f"https://two.example{behind}"}
        for path, behind in (("/a", "/b"), ("/b", "/b"), ("/c", "/c"), ("/d", "/a"))
    ]
    links.append({"hostname": "one.example", "destination": "https://two.example/b"})
    results = (await api.one.api.post("/v1/links/bulk", json={"links": links})).json()["data"]
    assert [result["status"] for result in results] == [400, 201, 201, 201, 201]
