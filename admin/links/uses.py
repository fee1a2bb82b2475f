"""Uses: where the count of a link with a click limit begins. The edge counts on (edge/uses.py), and if Redis loses the
count, it is made again of what is stored (admin/stats/recount.py)."""

from collections.abc import Collection

from shared.links import uses_key
from shared.redis import Redis, run_id


async def begin(redis: Redis, link_ids: Collection[int]) -> None:
    """Let the counts of links that never had a limit before begin at 0: nobody can have used them."""
    if not link_ids:
        return
    run = run_id(await redis.info("server"))
    writing = redis.pipeline(transaction=False)
    for link_id in link_ids:
        writing.set(uses_key(run, link_id), 0, nx=True)
    await writing.execute()


async def forget_others(redis: Redis) -> None:
    """Remove the counts of runs of the server that are over; it may have come back with them."""
    ours = f"uses:{run_id(await redis.info('server'))}:".encode()
    async for key in redis.scan_iter(match=uses_key("*", 0).removesuffix("0") + "*", count=1000):
        if not key.startswith(ours):
            await redis.unlink(key)
