"""Policies of hosts: the paths of links follow them, and no two links become one."""

import asyncpg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from admin.database import Connection
from admin.links import domains, policies
from admin.links.policies import Policy
from shared.links import normal_path
from tests.admin.conftest import Api
from tests.admin.people import error_of
from tests.admin.test_domains import HOST, changed, marks, named, paths

_PATHS = st.binary(max_size=20).map(lambda raw: normal_path(b"/" + raw))
_POLICIES = st.builds(Policy, st.booleans(), st.booleans())


@given(_PATHS, st.booleans(), _POLICIES)
def test_a_path_that_follows_a_policy_follows_it(path: str, has_slash: bool, policy: Policy) -> None:
    path += "/" if has_slash and not path.endswith("/") else ""
    normal = policy.normal(path)
    assert policy.normal(normal) == normal
    assert policy.keeps_slash or policy.normal(path.removesuffix("/") or "/") == normal or path.endswith("//")
    assert not policy.folds_case or normal == normal.lower() or "%" in normal


async def made_at(connection: Connection, api: Api, *at: str) -> None:
    """Links at exactly these paths, whatever the policy."""
    await domains.claim(connection, api.one.organization_id, HOST)
    for path in at:
        await connection.execute(
            """
            insert into links (public_id, organization_id, owner_id, hostname, path, destination, version)
            values (md5($1), $2, 'o-x', $3, $1, 'https://example.com/', nextval('versions'))""",
            path,
            api.one.organization_id,
            HOST,
        )
    await connection.execute("delete from unpublished")


async def versions(connection: Connection) -> dict[str, int]:
    return {row["path"]: row["version"] for row in await connection.fetch("select path, version from links")}


async def test_links_follow_the_policy(api: Api, connection: Connection) -> None:
    await made_at(connection, api, "/Spring", "/same", "/%C3%84%2F", "/slash/", "//")
    await connection.execute("update domains set keeps_slash = true where hostname = $1", HOST)
    before = await versions(connection)
    await connection.execute("update links set deleted_at = now() where path = '/%C3%84%2F'")
    domain = await named(api.one)
    answer = await changed(api.one, domain, caseSensitive=False, ignoreTrailingSlash=True)
    assert answer.status_code == 200, answer.text
    assert await paths(connection) == ["/spring", "/same", "/%C3%A4%2F", "/slash", "//"]
    order = await marks(connection)
    assert sorted(order[:3]) == ["/%C3%A4%2F", "/slash", "/spring"]
    assert order[3] == ""
    assert sorted(order[4:]) == ["/%C3%84%2F", "/Spring", "/slash/"]
    now = await versions(connection)
    assert now["/same"] == before["/same"] and now["/spring"] > max(before.values())
    await connection.execute("delete from unpublished")
    assert (await changed(api.one, domain, caseSensitive=True, ignoreTrailingSlash=False)).status_code == 200
    assert await paths(connection) == ["/spring", "/same", "/%C3%A4%2F", "/slash", "//"]
    assert await marks(connection) == [""]


async def test_no_policy_makes_two_links_one(api: Api, connection: Connection) -> None:
    await made_at(connection, api, "/a", "/A", "/B/", "/B", "/Robots.txt", "/c", *(f"/C{'c' * n}" for n in range(30)))
    domain = await named(api.one)
    before = await connection.fetch("select * from links order by id")
    refused = await changed(api.one, domain, caseSensitive=False, rootUrl="https://example.com/")
    assert error_of(refused) == (409, "RESOURCE_ALREADY_EXISTS")
    told = [detail["message"] for detail in refused.json()["error"]["details"]]
    assert told == [
        "/B/ and /B would be one link.",
        "/Robots.txt would be /robots.txt, which is reserved.",
        "/a and /A would be one link.",
        "/c and /C would be one link.",
    ]
    assert await connection.fetch("select * from links order by id") == before
    assert await marks(connection) == [] and (await named(api.one)) == domain
    await made_at(connection, api, *(f"/c{'c' * n}" for n in range(1, 30)))
    refused = await changed(api.one, domain, caseSensitive=False)
    assert len(refused.json()["error"]["details"]) == 20
    assert refused.json()["error"]["message"].startswith("33 links")


async def test_no_more_links_move_than_can_be_remembered(
    api: Api, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(policies, "_MOVABLE", 2)
    await made_at(connection, api, "/A", "/B", "/c", "/d")
    assert (await changed(api.one, await named(api.one), caseSensitive=False)).status_code == 200
    await made_at(connection, api, "/E", "/F", "/G")
    await connection.execute("update domains set folds_case = false")
    refused = await changed(api.one, await named(api.one), caseSensitive=False)
    assert error_of(refused) == (409, "RESOURCE_ALREADY_EXISTS")
    assert await paths(connection) == ["/a", "/b", "/c", "/d", "/E", "/F", "/G"]


async def test_a_change_of_a_host_does_not_wait_for_long_and_new_links_wait_for_it(
    api: Api, connection: Connection, database_url: str
) -> None:
    await made_at(connection, api, "/A")
    domain = await named(api.one)
    other = await asyncpg.connect(database_url)
    try:
        async with other.transaction():
            await other.execute("select from links for update")
            busy = await changed(api.one, domain, caseSensitive=False)
            assert error_of(busy) == (503, "SERVICE_UNAVAILABLE")
            assert (await changed(api.one, domain, rootUrl="https://example.com/")).status_code == 200
        async with other.transaction():
            assert await domains.claim(other, api.one.organization_id, HOST)
            assert error_of(await changed(api.one, domain, caseSensitive=False)) == (503, "SERVICE_UNAVAILABLE")
        assert (await changed(api.one, domain, caseSensitive=False)).status_code == 200
    finally:
        await other.close()
