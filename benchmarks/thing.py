"""One thing behind two routes: `python -m benchmarks.thing bare|shared PORT LOG`. One has what every route shares."""

import sys
from pathlib import Path

import uvicorn
from fastapi import FastAPI
from starlette.requests import Request

from admin.app import build
from admin.http.answers import Meta, Resource, ResourceAnswer, Wire, resource_answer
from admin.identity.principal import LinkReader
from admin.settings import AdminSettings
from shared.settings import load


class Thing(Wire):
    """As large as most attributes are."""

    name: str = "thing"
    created_at: str = "2026-01-31T09:30:00.000Z"


def thing() -> Resource[Thing]:
    """The one there is."""
    return Resource(id="thing_1", type="thing", attributes=Thing())


def bare() -> FastAPI:
    """What one would write first."""
    app = FastAPI()

    @app.get("/v1/thing")
    async def show() -> ResourceAnswer[Thing]:
        return ResourceAnswer(data=thing(), meta=Meta(request_id="1"))

    return app


def shared() -> FastAPI:
    """The same in the house: who calls and what they may, the limit, the id, the envelope, a line in the log."""
    app = build(load(AdminSettings))

    @app.get("/v1/thing")
    async def show(request: Request, caller: LinkReader) -> ResourceAnswer[Thing]:
        return resource_answer(request, thing())

    return app


if __name__ == "__main__":
    import logging

    logging.basicConfig(level=logging.INFO, filename=Path(sys.argv[3]) if len(sys.argv) > 3 else None)
    app = bare() if sys.argv[1] == "bare" else shared()
    uvicorn.run(app, port=int(sys.argv[2]), loop="uvloop", http="httptools", access_log=False, log_config=None)
