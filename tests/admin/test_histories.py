"""Any history: an edge's spools and shipper beside ingest and sources, while Redis and Postgres lose their data."""

import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from admin.database import Connection
from edge.segments import COUNTS_SUFFIX, link_bytes, peer_bytes
from edge.shipper import Shipper
from edge.spool import Spool
from shared import clicks
from shared.redis import Redis
from tests.admin.shipping import SILENCE_S, Backup, books, pass_time, step
from tests.admin.test_ingest import drain
from tests.admin.test_refused import REFUSED, refuse

HEAD = b"GET /x HTTP/1.1\r\nHost: localhost\r\n\r\n"
EVENTS = [
    "click",
    "clicks",
    "bad click",
    "ship",
    "ship",
    "report",
    "ingest",
    "look",
    "look",
    "restart the edge",
    "restart the shipper",
    "delete the stream",
    "back up Postgres",
    "be away",
    "empty Redis",
    "restore Postgres",
    "long silence",
]


class House:
    """An edge with a worker, its shipper, and who ingests."""

    def __init__(self, directory: Path, connection: Connection, redis: Redis) -> None:
        self._directory, self._connection, self._redis = directory, connection, redis
        self._shipper = Shipper(directory, redis)
        self._spools = [self._new_spool()]
        self._backup: Backup | None = None
        self.clicks = 0

    async def happen(self, event: str) -> None:
        match event:
            case "click" | "bad click":
                self._click(REFUSED if event == "bad click" else 1)
            case "clicks":
                for _ in range(5):
                    self._click(1)
            case "ship":
                await self._shipper.step()
            case "report":
                await self._shipper.report()
            case "ingest":
                await drain(self._connection, self._redis)
            case "look":
                await step(self._connection, self._redis)
            case "restart the edge":
                self.end_spool()
                self._spools.append(self._new_spool())
            case "restart the shipper":
                self._shipper = Shipper(self._directory, self._redis)
            case "delete the stream":
                await self._redis.delete(clicks.STREAM)
            case "empty Redis":
                await self._redis.flushall()
            case "back up Postgres":
                self._backup = await Backup.taken(self._connection)
            case "restore Postgres":
                if self._backup is not None:
                    await self._backup.restore(self._connection)
            case "long silence":
                await pass_time(self._connection, SILENCE_S + 1)
            case "be away":
                await pass_time(self._connection, SILENCE_S + 1, listening=False)

    async def come_to_rest(self) -> None:
        """Go on without further events until no spool is left."""
        self.end_spool()
        for _ in range(40):
            for event in ("ship", "report", "ingest", "look"):
                await self.happen(event)
            if not self._left():
                return await self.happen("look")
            await pass_time(self._connection, 61)
        raise AssertionError(f"{self._left()} stay for ever")

    def end_spool(self) -> None:
        self._spools[-1].close()

    def _new_spool(self) -> Spool:
        return Spool(self._directory, max_bytes=2**30, segment_bytes=512)

    def _click(self, link_id: int) -> None:
        # Each click is of an organization of its own, to be recognised by.
        self._spools[-1].append(link_bytes(link_id, self.clicks), peer_bytes("192.0.2.1"), HEAD)
        self.clicks += 1

    def _left(self) -> list[str]:
        return [path.stem for path in self._directory.glob("*" + COUNTS_SUFFIX)]


@pytest.fixture
async def before(connection: Connection) -> Backup:
    """The database before anything happened."""
    await refuse(connection)
    return await Backup.taken(connection)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(events=st.lists(st.sampled_from(EVENTS), max_size=30))
@example(["clicks", "back up Postgres", "clicks", "ship", "ingest", "look", "ship", "restore Postgres", "look"])
@example(["clicks", "ship", "report", "look", "delete the stream", "restart the edge"])
@example(["clicks", "report", "look", "be away", "look", "ship", "ingest"])
async def test_after_any_history_every_click_is_accounted_for_once(
    connection: Connection, redis: Redis, before: Backup, tmp_path: Path, events: list[str]
) -> None:
    """It is stored, or set aside if Postgres refuses it; if Postgres was restored or the edge away, it may be lost."""
    await before.restore(connection)
    await redis.flushall()
    directory = tmp_path / "spools"
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir()
    house = House(directory, connection, redis)
    for event in events:
        await house.happen(event)
        await books(connection, redis)
    await house.come_to_rest()
    total = (await books(connection, redis)).total
    rows = await connection.fetch("select organization_id as number from clicks")
    numbers = [row["number"] for row in rows]
    assert len(numbers) == len(set(numbers))
    assert total.in_spool == 0
    assert total.served <= house.clicks
    if not {"restore Postgres", "empty Redis"} <= set(events):  # after both, nobody knows of a spool that is removed
        assert total.served == house.clicks
    if not {"restore Postgres", "long silence"} & set(events):
        assert (total.lost, total.dropped) == (0, 0)
        assert total.set_aside == events.count("bad click")
