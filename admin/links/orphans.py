"""Orphans: what visitors of a host ask for and no link has (edge/orphans.py counts it), and links that may be meant."""

from fastapi import APIRouter
from starlette.requests import Request

from admin import errors
from admin.database import Connection, transaction
from admin.errors import Unavailable
from admin.http import ids
from admin.http.answers import PlainAnswer, Wire, documented, plain_answer
from admin.identity.principal import LinkReader
from admin.links import domains
from shared.links import orphans_key
from shared.redis import LOST, RedisError

_SHOWN = 50
_NEAREST = 3

router = APIRouter(tags=["Domains"], responses=documented(*errors.OF_EVERY_CALLER))


class OrphanResource(Wire):
    """A path that no link has."""

    path: str
    visits: int
    """About how many; in the last 30 days in which somebody asked for anything that is not there."""
    nearest: list[str]
    """The paths of links on the host that are most like it."""


@router.get(
    "/domains/{domain_id}/orphans",
    summary="See what visitors look for and don't find",
    responses=documented(errors.NotFound),
)
async def list_orphans(request: Request, caller: LinkReader, domain_id: str) -> PlainAnswer[list[OrphanResource]]:
    """The 50 paths that are asked for most, and did you mean: up to three links of the host for each."""
    async with transaction(request.app.state.pool) as connection:
        domain = await domains.get(connection, caller.organization_id, ids.read("dom", domain_id))
        try:
            seen = await request.app.state.redis.zrevrange(orphans_key(domain.hostname), 0, _SHOWN - 1, withscores=True)
        except (*LOST, RedisError) as error:
            raise Unavailable from error
        nearest = await _nearest(connection, domain.hostname, [path.decode() for path, _ in seen])
    return plain_answer(
        request,
        [
            OrphanResource(path=path.decode(), visits=int(visits), nearest=nearest[path.decode()])
            for path, visits in seen
        ],
    )


async def _nearest(connection: Connection, hostname: str, paths: list[str]) -> dict[str, list[str]]:
    rows = await connection.fetch(
        """
        /* orphans.nearest */
        select asked.path, found.paths
          from unnest($2::text[]) as asked (path),
               lateral (
                   select array(
                       select links.path from links
                        where links.hostname = $1 and deleted_at is null and lower(asked.path) <% search
                        order by similarity(links.path, asked.path) desc, links.path limit $3) as paths) as found""",
        hostname,
        paths,
        _NEAREST,
    )
    return {row["path"]: list(row["paths"]) for row in rows}
