"""The recount: how often links with a click limit were used, when Redis does not know (any more).

Rules of this file:

1. While Redis has no count of a link, no edge grants a use of it (edge/uses.py). So the uses there are, are in the
   records of edges: stored already, or still on their disks.
2. What was granted is recorded within `_SETTLE_S`. A recount therefore waits so long, then for a newer report of each
   spool, and until Postgres has as many records of it as that report tells. Then what is stored is all there is.
3. A spool of which nobody says anything holds a recount up until it is taken for lost (`LINKWIRE_SPOOL_SILENCE_S`):
   the link would rather lead nowhere than too often.
4. Several workers may be at it. What a round has found holds only until somebody completes one, because uses are
   granted from then on, and until Redis loses its data. Both take away the token that the rounds have in common, and
   without it none completes. It belongs to a run of the server, like the counts: those of another run nobody asks for.
"""

import logging
import secrets
import time

from admin.database import Connection
from admin.stats.sources import reported
from shared.links import UNCOUNTED_KEY, uses_key
from shared.redis import Redis, run_id

log = logging.getLogger(__name__)

_SETTLE_S = 1.0
"""An edge gives up a grant after a fifth of it."""

_AT_ONCE = 100_000
"""Links whose counts Redis writes before it answers somebody else."""

# KEYS: the token, the links without a count, then the counts. ARGV: the token, then a link and its uses for each count.
_COMPLETE = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
for i = 3, #KEYS do
  local link, uses = ARGV[2 * i - 4], ARGV[2 * i - 3]
  redis.call('SET', KEYS[i], uses, 'NX')
  redis.call('SREM', KEYS[2], link)
end
redis.call('DEL', KEYS[1])
return 1
"""


class Recount:
    """One round after another; each is for the links that were asked for before it began."""

    def __init__(self) -> None:
        self._begun_at = 0.0
        self._run = ""
        self._token = b""
        self._links: frozenset[int] = frozenset()
        self._before: dict[str, int] | None = None
        """When each spool had last been reported, once the round has settled; by the clock of its machine."""
        self._wanted: dict[str, int] = {}
        """How many records each spool had, by the first report after that."""

    async def step(self, connection: Connection, redis: Redis) -> int:
        """Go on with the round; how many links have their count again. Raises when Redis or Postgres is away."""
        if not self._links:
            await self._begin(redis)
            return 0
        reports = await reported(redis)
        if self._before is None:
            if time.monotonic() - self._begun_at >= _SETTLE_S:
                self._before = {spool: report.at_ms for spool, report in reports.items()}
            return 0
        rows = await connection.fetch(
            """
            /* recount.step */
            select spool_id, position, closed_at is null as is_open from click_sources
             where closed_at is null or spool_id = any($1::text[])""",
            list(reports),
        )
        positions = {row["spool_id"]: row["position"] for row in rows}
        waited_for = {row["spool_id"] for row in rows if row["is_open"]}
        closed = positions.keys() - waited_for
        for spool in (waited_for | reports.keys()) - closed:
            if spool not in self._wanted:
                report = reports.get(spool)
                if report is None or report.at_ms == self._before.get(spool):
                    return 0
                self._wanted[spool] = report.recorded
            if positions.get(spool, 0) < self._wanted[spool]:
                return 0
        return await self._finish(connection, redis)

    async def _begin(self, redis: Redis) -> None:
        uncounted: list[bytes] = await redis.srandmember(UNCOUNTED_KEY, _AT_ONCE)  # type: ignore[assignment]
        if not uncounted:
            return
        self._run = run_id(await redis.info("server"))
        # Whoever comes second takes the token that is there.
        token = secrets.token_bytes(8)
        is_first = await redis.set(_token_key(self._run), token, nx=True)
        held = None if is_first else await redis.get(_token_key(self._run))
        self._token = held if isinstance(held, bytes) else token  # of a round that has just ended: then this one fails
        self._links = frozenset(int(link_id) for link_id in uncounted)
        self._begun_at, self._before, self._wanted = time.monotonic(), None, {}

    async def _finish(self, connection: Connection, redis: Redis) -> int:
        rows = await connection.fetch(
            """
            /* recount.finish */
            select id, coalesce(uses, 0) as uses from unnest($1::bigint[]) as id
              left join link_counts on link_id = id""",
            list(self._links),
        )
        complete = redis.register_script(_COMPLETE)
        is_done = await complete(
            keys=[_token_key(self._run), UNCOUNTED_KEY, *(uses_key(self._run, row["id"]) for row in rows)],
            args=[self._token, *(value for row in rows for value in (row["id"], row["uses"]))],
        )
        self._links = frozenset()
        if not is_done:
            return 0
        log.info("counted the uses of %d links again", len(rows))
        return len(rows)


def _token_key(run: str) -> str:
    return f"uses:{run}:round"
