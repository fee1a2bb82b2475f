"""The principal: who acts, with what. Routes ask for a `Caller`."""

from typing import Annotated, NamedTuple

from fastapi import Depends
from fastapi.security import HTTPBearer
from starlette.requests import Request

from admin import database
from admin.errors import InvalidApiKey, NotAuthenticated
from admin.identity import keys


class Principal(NamedTuple):
    """The organization that a request acts for."""

    organization_id: int
    owner_id: str
    """What is written as the owner of things it makes: `o-` and the organization's public id."""


# Only for the OpenAPI document: it would answer 401 and 403 in words of its own.
_bearer = HTTPBearer(auto_error=False, description="An API key.")


async def _authenticate(request: Request, _: Annotated[object, Depends(_bearer)]) -> Principal:
    """Raises `NotAuthenticated`, `InvalidApiKey`."""
    scheme, _space, key = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not key.strip():
        raise NotAuthenticated
    key = key.strip()
    if not keys.is_well_formed(key):
        raise InvalidApiKey
    async with database.connection(request.app.state.pool, within_s=database.AUTHENTICATE_S) as connection:
        owner = await keys.owner(connection, key)
    if owner is None:
        raise InvalidApiKey
    organization_id, public_id = owner
    return Principal(organization_id, f"o-{public_id}")


Caller = Annotated[Principal, Depends(_authenticate)]
