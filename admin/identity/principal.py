"""The principal: who acts, with what, for which organization. Routes ask for one with the permission they need.

Who calls is remembered for less than a second, so that a revoked key or an ended session is of no use after that. Every
request that is let in counts against the limits of its organization.
"""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable
from typing import Annotated, NamedTuple, TypeVar

from fastapi import Depends, Security
from fastapi.security import HTTPBearer, SecurityScopes
from starlette.requests import Request

from admin import database
from admin.database import Connection, Pool
from admin.errors import (
    Detail,
    InsufficientPermissions,
    Invalid,
    InvalidApiKey,
    InvalidToken,
    NotAuthenticated,
    NotFound,
    RateLimited,
)
from admin.http import ids
from admin.http.limits import Limit, Limits
from admin.http.request_ids import client, request_id
from admin.identity import access_tokens, keys
from admin.identity.access_tokens import AccessTokens, Claims
from admin.identity.organizations import limits_of
from admin.identity.permissions import ROLES, lacking, within

T = TypeVar("T")

_REMEMBERED_S = 0.8
_MAX_REMEMBERED = 10_000
_GUESSES = (Limit(60, 60),)
_CREDENTIALS = ("access_token", "accessToken", "api_key", "apiKey", "apikey", "authorization", "bearer", "key", "token")


class Principal(NamedTuple):
    """Who acts, and in which request."""

    organization_id: int
    organization: str
    """Its public id."""
    tier: str
    kind: str
    """api_key, user, client for an app that acts for itself, or system for the command line."""
    public_id: str
    name: str
    permissions: frozenset[str]
    user_id: int | None = None
    session: str | None = None
    """The public id of a user's session."""
    grant: str = ""
    """The public id of what was granted to the OAuth client that acts."""
    address: str = ""
    request_id: str = ""

    @property
    def owner_id(self) -> str:
        """What is written as the owner of things it makes."""
        return f"u-{self.public_id}" if self.kind == "user" else f"o-{self.organization}"

    @property
    def shown_id(self) -> str:
        """Its id on the wire."""
        return ids.shown({"api_key": "key"}.get(self.kind, self.kind), self.public_id)


def system(organization_id: int) -> Principal:
    """The command line, which may do everything."""
    return Principal(organization_id, "", "enterprise", "system", "cli", "command line", frozenset({"admin"}))


class Gate:
    """Lets callers in, or says why not."""

    def __init__(self, pool: Pool, limits: Limits, tokens: AccessTokens, enterprise_per_minute: int) -> None:
        self._pool = pool
        self._limits = limits
        self._tokens = tokens
        self._enterprise_per_minute = enterprise_per_minute
        self._asked: dict[bytes, tuple[float, asyncio.Task[Principal | None]]] = {}
        self._was_right: dict[bytes, None] = {}

    async def admit(self, request: Request, wanted: list[str]) -> Principal:
        """Raises `NotAuthenticated`, `InvalidApiKey`, `InvalidToken`, `RateLimited`, `InsufficientPermissions`."""
        known = await self._known(_bearer_of(request), client(request)[1])
        limits = limits_of(known.tier, self._enterprise_per_minute)
        request.state.standing = await self._limits.charge(f"organization:{known.organization_id}", limits)
        if not request.state.standing.is_allowed:
            raise RateLimited(request.state.standing.retry_after_s)
        if missing := lacking(known.permissions, wanted):
            raise InsufficientPermissions(details=[Detail("permissions", f"{name} is needed.") for name in missing])
        return known._replace(address=client(request)[0], request_id=request_id(request))

    async def _known(self, bearer: str, network: str) -> Principal:
        """Tokens need no limit for those who guess: their signature is looked at first."""
        name = hashlib.sha256(bearer.encode()).digest()
        if not keys.is_well_formed(bearer):
            if not access_tokens.has_shape(bearer):
                raise InvalidApiKey
            if (known := await self._who(bearer, name)) is None:
                raise InvalidToken
            return known
        if (known := await self.opened(name, f"guesses:{network}", _GUESSES, lambda: self._who(bearer, name))) is None:
            raise InvalidApiKey
        return known

    async def opened(
        self, name: bytes, guesser: str, limits: tuple[Limit, ...], ask: Callable[[], Awaitable[T | None]]
    ) -> T | None:
        """What a secret opens; None for one that opens nothing. `name` is its hash.

        Guesses are counted by where they come from; beyond the limit they are not asked about. A secret that was right
        before is not stopped by others who guess at the same place. Raises `RateLimited`.
        """
        if name not in self._was_right and not (standing := await self._limits.is_open(guesser, limits)).is_allowed:
            raise RateLimited(standing.retry_after_s)
        found = await ask()
        if found is None:
            self._was_right.pop(name, None)
            await self.charge(guesser, limits)
        else:
            _remember(self._was_right, name, None)
        return found

    async def charge(self, who: str, limits: tuple[Limit, ...]) -> None:
        """For what nobody has to log in for. Raises `RateLimited`."""
        standing = await self._limits.charge(who, limits)
        if not standing.is_allowed:
            raise RateLimited(standing.retry_after_s)

    async def _who(self, bearer: str, name: bytes) -> Principal | None:
        """Asked once for all requests that come within a moment."""
        now = asyncio.get_running_loop().time()
        until, asking = self._asked.get(name, (0.0, None))
        if asking is None or now > until or (asking.done() and (asking.cancelled() or asking.exception())):
            asking = asyncio.create_task(self._ask(bearer))
            _remember(self._asked, name, (now + _REMEMBERED_S, asking))
        # Shielded: others may wait for the same answer when the client of this request goes away.
        return await asyncio.shield(asking)

    async def _ask(self, bearer: str) -> Principal | None:
        try:
            claims = None if keys.is_well_formed(bearer) else await self._tokens.read(bearer)
        except InvalidToken:
            return None
        async with database.connection(self._pool, within_s=database.AUTHENTICATE_S) as connection:
            if claims is None:
                return await _by_key(connection, bearer)
            return await (_by_grant if claims.grant else _by_session)(connection, claims)


def _remember(memory: dict[bytes, T], name: bytes, what: T) -> None:
    """In place of what was remembered longest ago, when there is much."""
    memory.pop(name, None)
    memory[name] = what
    if len(memory) > _MAX_REMEMBERED:
        del memory[next(iter(memory))]


async def _by_key(connection: Connection, key: str) -> Principal | None:
    row = await connection.fetchrow(
        """
        /* principal.by_key */
        select k.id, k.public_id, k.name, k.permissions, o.id as organization_id, o.public_id as organization,
               o.tier, k.last_used_at is null or k.last_used_at < now() - interval '1 minute' as is_first_for_long
          from api_keys k join organizations o on o.id = k.organization_id
         where k.sha256 = $1 and k.revoked_at is null and (k.expires_at is null or k.expires_at > now())""",
        keys.sha256(key),
    )
    # Found by its hash, of which a guess can steer nothing: there is nothing left to compare, and so nothing to time.
    if row is None:
        return None
    if row["is_first_for_long"]:
        await keys.touch(connection, row["id"])
    return Principal(
        organization_id=row["organization_id"],
        organization=row["organization"],
        tier=row["tier"],
        kind="api_key",
        public_id=row["public_id"],
        name=row["name"],
        permissions=frozenset(row["permissions"]),
    )


async def _by_session(connection: Connection, claims: Claims) -> Principal | None:
    """The member whose session it is: as long as the session lasts and the membership, too."""
    try:
        user_id = ids.read("user", claims.subject)
    except NotFound:
        return None
    row = await connection.fetchrow(
        """
        /* principal.by_session */
        select u.id as user_id, u.public_id, u.name, u.email, m.role, o.id as organization_id,
               o.public_id as organization, o.tier
          from sessions s
          join users u on u.id = s.user_id
          join organizations o on o.id = s.organization_id
          join memberships m on m.organization_id = s.organization_id and m.user_id = s.user_id
         where s.public_id = $1 and u.public_id = $2 and s.revoked_at is null and s.expires_at > now()""",
        claims.session,
        user_id,
    )
    if row is None:
        return None
    return Principal(
        organization_id=row["organization_id"],
        organization=row["organization"],
        tier=row["tier"],
        kind="user",
        public_id=row["public_id"],
        name=row["name"] or row["email"],
        permissions=ROLES[row["role"]],
        user_id=row["user_id"],
        session=claims.session,
    )


async def _by_grant(connection: Connection, claims: Claims) -> Principal | None:
    """The client that something was granted to: within that, and within what whoever granted it may do now.

    Its token may be for less than was granted (RFC 6749 §6).
    """
    row = await connection.fetchrow(
        """
        /* principal.by_grant */
        select c.public_id as client, c.name as client_name, g.permissions, m.role,
               u.public_id, coalesce(nullif(u.name, ''), u.email) as name,
               o.id as organization_id, o.public_id as organization, o.tier
          from oauth_grants g
          join oauth_clients c on c.id = g.client_id
          join organizations o on o.id = g.organization_id
          left join users u on u.id = g.user_id
          left join memberships m on m.organization_id = g.organization_id and m.user_id = g.user_id
         where g.public_id = $1 and g.revoked_at is null and g.expires_at > now() and c.revoked_at is null
           and (g.user_id is null or m.role is not null)""",
        claims.grant,
    )
    if row is None:
        return None
    permissions = within(frozenset(claims.scope.split()), by=frozenset(row["permissions"]))
    return Principal(
        organization_id=row["organization_id"],
        organization=row["organization"],
        tier=row["tier"],
        kind="user" if row["role"] else "client",
        public_id=row["public_id"] or row["client"],
        name=f"{row['name']} through {row['client_name']}" if row["role"] else row["client_name"],
        permissions=within(permissions, by=ROLES[row["role"]]) if row["role"] else permissions,
        grant=claims.grant,
    )


def _bearer_of(request: Request) -> str:
    """Raises `NotAuthenticated`, and `Invalid` for credentials in the address, which others log."""
    if named := [name for name in _CREDENTIALS if name in request.query_params]:
        raise Invalid(details=[Detail(name, "Credentials belong into the Authorization header.") for name in named])
    scheme, _space, bearer = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not bearer.strip():
        raise NotAuthenticated
    return bearer.strip()


# Only for the OpenAPI document: it would answer 401 and 403 in words of its own.
_bearer = HTTPBearer(auto_error=False, description="An API key, or the access token of a session.")


async def _admitted(request: Request, scopes: SecurityScopes, _: Annotated[object, Depends(_bearer)]) -> Principal:
    gate: Gate = request.app.state.gate
    principal = await gate.admit(request, scopes.scopes)
    request.state.acts_for = principal.organization_id, f"{principal.kind} {principal.public_id} {principal.grant}"
    return principal


Caller = Annotated[Principal, Security(_admitted)]
"""Anybody who is known."""
LinkReader = Annotated[Principal, Security(_admitted, scopes=["links:read"])]
LinkWriter = Annotated[Principal, Security(_admitted, scopes=["links:write"])]
StatsReader = Annotated[Principal, Security(_admitted, scopes=["stats:read"])]
Administrator = Annotated[Principal, Security(_admitted, scopes=["admin"])]


def user_of(caller: Principal) -> tuple[int, str]:
    """The user and the session of a caller who has logged in. Raises `InvalidToken` for an API key."""
    if caller.user_id is None or caller.session is None:
        raise InvalidToken("This needs the access token of a person who has logged in.")
    return caller.user_id, caller.session
