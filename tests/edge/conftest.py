"""What the edge's tests start from: a publisher, and a lookup that knows all links."""

from collections.abc import AsyncIterator

import pytest

from edge.lookup import Lookup
from shared.redis import Redis
from tests.conftest import Servers
from tests.edge.lookups import looking_up
from tests.edge.publishing import Publisher
from tests.shared.waiting import until


@pytest.fixture
def publisher(redis: Redis) -> Publisher:
    return Publisher(redis)


@pytest.fixture
async def lookup(servers: Servers, publisher: Publisher) -> AsyncIterator[Lookup]:
    """A Lookup that follows a complete set of links."""
    await publisher.complete()
    async with looking_up(servers.redis_url) as lookup:
        await until(lambda: lookup.is_complete)
        yield lookup
