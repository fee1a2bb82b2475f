"""The route one would write first, as a yardstick: `python -m benchmarks.plain_starlette dict|redis PORT`."""

import json
import os
import sys
from pathlib import Path

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from shared.links import Address, Published
from shared.redis import open_redis

HOST = "bench.example"


def with_dict() -> Starlette:
    """All links in memory; nothing is recorded."""
    links: dict[str, str] = json.loads(Path(os.environ["LINKS"]).read_text())

    async def redirect(request: Request) -> Response:
        destination = links.get(request.url.path)
        return (
            Response(status_code=302, headers={"location": destination}) if destination else Response(status_code=404)
        )

    return Starlette(routes=[Route("/{path:path}", redirect)])


def with_redis() -> Starlette:
    """One GET for the link and one XADD for the click."""
    redis = open_redis(os.environ["REDIS_URL"], timeout_s=5, connections=64)

    async def redirect(request: Request) -> Response:
        value = await redis.get(Address(HOST, request.url.path).key)
        entry = Published.from_bytes(value).entry if isinstance(value, bytes) else None
        if entry is None:
            return Response(status_code=404)
        agent = request.headers.get("user-agent", "")
        await redis.xadd("bench:clicks", {"link": entry.link_id, "agent": agent}, maxlen=10_000)
        return Response(status_code=302, headers={"location": entry.destination})

    return Starlette(routes=[Route("/{path:path}", redirect)])


if __name__ == "__main__":
    app = with_dict() if sys.argv[1] == "dict" else with_redis()
    uvicorn.run(app, port=int(sys.argv[2]), loop="uvloop", http="httptools", access_log=False, log_level="warning")
