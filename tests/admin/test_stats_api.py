"""The counts of a link, as the API tells them."""

from admin.database import Connection
from shared.redis import Redis
from tests.admin.conftest import Api, made
from tests.admin.test_ingest import deliver, drain, record


async def test_a_link_that_nobody_clicked(api: Api) -> None:
    link = await made(api.one.api)
    stats = (await api.one.api.get(f"/v1/links/{link['id']}/stats")).json()
    assert stats["data"] == {"total": 0, "humans": 0, "bots": 0, "series": []}


async def test_humans_are_what_is_no_bot(api: Api, connection: Connection, redis: Redis) -> None:
    from shared.clicks import Batch

    link = await made(api.one.api)
    row = await connection.fetchrow("select id, organization_id from links where public_id = $1", link["id"])
    assert row is not None
    records = [record(n, link_id=row[0], organization_id=row[1], agent=agent) for n, agent in enumerate(AGENTS)]
    await deliver(redis, Batch("s", 0, records))
    await drain(connection, redis)
    stats = (await api.one.api.get(f"/v1/links/{link['id']}/stats")).json()["data"]
    assert stats == {
        "total": 3,
        "humans": 1,
        "bots": 2,
        "series": [{"date": "2025-06-15", "total": 3, "humans": 1, "bots": 2}],
    }


AGENTS = ["Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0", "curl/8", "bingbot/2.0"]
