"""How long until Redis has a million links again after it was wiped?

`make bench-rebuild`. Promise: 60 s. From the wipe until an edge is ready and redirects a link that it did not remember.
"""

import argparse
import asyncio
import json
import tempfile
import time
from pathlib import Path

import asyncpg

from shared.redis import open_redis
from tests.houses import House, wait_for

RESULTS = Path(__file__).parent / "results"
_FILL = """
insert into links (public_id, organization_id, owner_id, hostname, path, destination, version)
select lpad(number::text, 16, '0'), 1, 'o-bench', 'localhost', '/l' || number,
       'https://example.com/landing/page?number=' || number, nextval('versions')
  from generate_series(1, $1::int) as number"""


def main() -> None:
    """Measure and tell."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--links", type=int, default=1_000_000)
    links = arguments.parse_args().links
    with tempfile.TemporaryDirectory() as directory:
        house = House(Path(directory) / "home")
        house.start()
        try:
            house.wait_until_ready()
            house.link()  # so that the default domain is there
            asyncio.run(_fill(house.servers["DATABASE_URL"], links))
            begun = time.monotonic()
            asyncio.run(_wipe(house.servers["REDIS_URL"]))
            wait_for(lambda: house.visit(f"/l{links}").status_code == 302, 300)
            wait_for(lambda: house.visit("/readyz").status_code == 200, 300)
            took_s = time.monotonic() - begun
        finally:
            house.stop()
    print(f"{links} links were back within {took_s:.1f} s (promise: 60 s)")
    RESULTS.joinpath("rebuild.json").write_text(json.dumps({"links": links, "took_s": took_s}) + "\n")


async def _fill(url: str, links: int) -> None:
    connection = await asyncpg.connect(url)
    await connection.execute(_FILL, links)
    await connection.close()


async def _wipe(url: str) -> None:
    redis = open_redis(url, timeout_s=60)
    await redis.flushall()
    await redis.aclose()


if __name__ == "__main__":
    main()
