"""Access tokens: JWTs (RFC 9068) that are good for an hour, signed with Ed25519 and nothing else.

Signing keys live in Postgres, their private halves sealed. The newest one signs; a new one is made when it is thirty
days old; older ones verify until no token of theirs can be good any more.
"""

import asyncio
import json
import time
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from joserfc import jws, jwt
from joserfc.errors import ExpiredTokenError, JoseError
from joserfc.jwk import OKPKey

from admin import database
from admin.database import Connection, Pool
from admin.errors import InvalidToken
from admin.http.ids import new_id
from admin.sealing import Sealer

LASTS_S = 3600
AUDIENCE = "linkwire"
_ALGORITHM = "Ed25519"
_LEEWAY_S = 10  # between the clocks of two machines
_TYPE = "at+jwt"
_NAMES = ("sub", "sid", "gid", "client_id", "scope")
_ROTATE_AFTER = "30 days"
_VERIFY_FOR = "32 days"
_ASK_EVERY_S = 60.0  # so that a key that was deleted is of no use after that
_ASK_AGAIN_AFTER_S = 1.0  # for a key that is not known
_MAX_LENGTH = 4096
_LOCK = 0x6A776B73


class Claims(NamedTuple):
    """Whom a token speaks for, by public ids: a user in a session, or an OAuth client with a grant."""

    subject: str
    session: str = ""
    grant: str = ""
    client: str = ""
    """The client's id as it is shown; empty for a session."""
    scope: str = ""
    """What a client may do with it at most."""


Issue = Callable[[Claims], str]
"""Makes a token for the next hour."""


class Signed(NamedTuple):
    """What a token of ours says, be it over or not."""

    claims: Claims
    expires_at: int
    """Seconds since 1970."""
    is_over: bool


class AccessTokens:
    """Makes and reads them, both outside of transactions: for a key that is not remembered they take a connection."""

    def __init__(self, pool: Pool, sealer: Sealer, issuer: str) -> None:
        self._pool = pool
        self._sealer = sealer
        self._issuer = issuer
        self._verifying: dict[str, OKPKey] = {}
        self._signing: OKPKey | None = None
        self._sign_until = self._asked_at = -float("inf")
        self._asking = asyncio.Lock()

    async def ready(self) -> Issue:
        """What issues tokens at once, and can't fail any more behind something that must not be lost.

        Raises `Unavailable`.
        """
        return partial(self._issued, await self._signing_key())

    def _issued(self, key: OKPKey, claims: Claims) -> str:
        now = int(time.time())
        told = {
            "iss": self._issuer,
            "aud": AUDIENCE,
            "jti": new_id(),
            "iat": now,
            "exp": now + LASTS_S,
            **{name: value for name, value in zip(_NAMES, claims, strict=True) if value},
        }
        return jwt.encode({"alg": _ALGORITHM, "typ": _TYPE, "kid": key.kid}, told, key, [_ALGORITHM])

    async def read(self, token: str) -> Claims:
        """Raises `InvalidToken`, and `Unavailable` when its key must be asked for and Postgres is away."""
        signed = await self.signed(token)
        if signed.is_over:
            raise InvalidToken
        return signed.claims

    async def signed(self, token: str) -> Signed:
        """A token that was good once and may be over. Raises what `read` raises."""
        key = await self._verifying_key(_kid(token))
        try:
            read = jwt.decode(token, key, [_ALGORITHM])
            is_over = self._is_over(read.claims)
        except (JoseError, ValueError) as error:
            raise InvalidToken from error
        claims = Claims(*[read.claims.get(name, "") for name in _NAMES])
        if read.header.get("typ") != _TYPE or not all(isinstance(claim, str) for claim in claims):
            raise InvalidToken
        if bool(claims.session) == bool(claims.grant):
            raise InvalidToken
        return Signed(claims, int(read.claims["exp"]), is_over)

    async def public_keys(self) -> list[dict[str, Any]]:
        """The keys to verify tokens with, as JWKs (RFC 7517). Raises `Unavailable`."""
        await self._signing_key()
        return [{**key.as_dict(private=False), "alg": _ALGORITHM, "use": "sig"} for key in self._verifying.values()]

    def _is_over(self, claims: dict[str, Any]) -> bool:
        """Raises `JoseError` when more is wrong with them than their age."""
        essential: Any = {"essential": True}
        registry = jwt.JWTClaimsRegistry(
            leeway=_LEEWAY_S,
            iss={"essential": True, "value": self._issuer},
            aud={"essential": True, "value": AUDIENCE},
            sub=essential,
            exp=essential,
        )
        try:
            registry.validate(claims)
        except ExpiredTokenError:
            registry.validate({**claims, "exp": registry.now})
            return True
        return False

    async def _verifying_key(self, kid: str) -> OKPKey:
        age_s = time.monotonic() - self._asked_at
        if kid not in self._verifying or age_s > _ASK_EVERY_S:
            async with self._asking:
                # Who waited may find that it was asked for meanwhile, or in vain.
                age_s = time.monotonic() - self._asked_at
                if age_s > (_ASK_EVERY_S if kid in self._verifying else _ASK_AGAIN_AFTER_S):
                    self._asked_at = time.monotonic()
                    async with database.connection(self._pool, within_s=database.AUTHENTICATE_S) as connection:
                        await self._ask(connection)
        if kid not in self._verifying:
            raise InvalidToken
        return self._verifying[kid]

    async def _signing_key(self) -> OKPKey:
        if self._signing is None or time.monotonic() > self._sign_until:
            # In a transaction of its own: a key is used when it is known to be stored. One process makes it; the others
            # wait for the lock, and find it.
            async with database.transaction(self._pool) as connection:
                await connection.execute("/* access_tokens.signing_key */ select pg_advisory_xact_lock($1)", _LOCK)
                if not await self._ask(connection):
                    await self._make(connection)
            async with database.connection(self._pool) as connection:
                await self._ask(connection)
        assert self._signing is not None
        return self._signing

    async def _ask(self, connection: Connection) -> bool:
        """Learn the keys; whether the newest one may sign."""
        rows = await connection.fetch(
            f"""
            /* access_tokens.ask */
            select kid, public_jwk, sealed, created_at > now() - interval '{_ROTATE_AFTER}' as may_sign
              from signing_keys
             where created_at > now() - interval '{_VERIFY_FOR}'
             order by created_at desc, kid""",  # noqa: S608
        )
        self._asked_at = time.monotonic()
        self._verifying = {row["kid"]: OKPKey.import_key(json.loads(row["public_jwk"])) for row in rows}
        may_sign = bool(rows) and bool(rows[0]["may_sign"])
        if may_sign:
            self._signing = OKPKey.import_key(json.loads(self._sealer.open(rows[0]["sealed"])))
            self._sign_until = time.monotonic() + _ASK_EVERY_S
        return may_sign

    async def _make(self, connection: Connection) -> None:
        kid = new_id()
        key = OKPKey.generate_key("Ed25519", {"kid": kid}, private=True)
        await connection.execute(
            "/* access_tokens.make */ insert into signing_keys (kid, public_jwk, sealed) values ($1, $2, $3)",
            kid,
            json.dumps(key.as_dict(private=False)),
            self._sealer.seal(json.dumps(key.as_dict(private=True)).encode()),
        )


def has_shape(bearer: str) -> bool:
    """Whether it could be an access token: three parts in base64url (RFC 7519 §3)."""
    parts = bearer.split(".")
    return len(parts) == 3 and all(part.replace("-", "").replace("_", "").isalnum() for part in parts[:2])


def _kid(token: str) -> str:
    """What the token says it was signed with. Raises `InvalidToken`."""
    if len(token) > _MAX_LENGTH:
        raise InvalidToken
    try:
        kid = jws.extract_compact(token.encode("ascii")).headers().get("kid")
    except (JoseError, ValueError, AttributeError) as error:  # a header that is no object has no `get`
        raise InvalidToken from error
    if not isinstance(kid, str):
        raise InvalidToken
    return kid
