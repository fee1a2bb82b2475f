"""Orphans as their owner sees them: what visitors look for and don't find, and what they may have meant."""

from shared.links import orphans_key
from shared.redis import Redis
from tests.admin.conftest import Api, made
from tests.admin.people import error_of


async def test_paths_without_a_link_are_shown_with_those_that_may_be_meant(api: Api, redis: Redis) -> None:
    domain = (await api.one.api.post("/v1/domains", json={"hostname": "go.example.com"})).json()["data"]
    for path in ("/spring-sale", "/Spring", "/summer", "/spring-gone"):
        link = await made(api.one.api, hostname="go.example.com", path=path)
    await api.one.api.delete(f"/v1/links/{link['id']}")
    await made(api.one.api, path="/spring-elsewhere")
    await redis.zadd(orphans_key("go.example.com"), {"/sprin": 3, "/xyz": 7})
    answer = await api.one.api.get(f"/v1/domains/{domain['id']}/orphans")
    assert answer.status_code == 200, answer.text
    assert answer.json()["data"] == [
        {"path": "/xyz", "visits": 7, "nearest": []},
        {"path": "/sprin", "visits": 3, "nearest": ["/Spring", "/spring-sale"]},
    ]
    foreign = await api.other.api.get(f"/v1/domains/{domain['id']}/orphans")
    assert error_of(foreign) == (404, "RESOURCE_NOT_FOUND")
