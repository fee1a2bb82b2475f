"""Idempotency-Key: a POST that is sent again with the same key has its effect once, and its answer as often as asked.

Rules of this file:

1. A request claims its key before it does anything, with a lease: when its process dies, the key is free again.
2. The answer is stored in the transaction of the effect. Whoever has lost the lease can't store it, so its effect is
   undone with its transaction.
3. Where a body is too large for memory, it is received first, and then the key is claimed with its digest (`Later`).
4. Answers are kept for a day, sealed, because some hold a secret. What ended in an error had no effect, and its key is
   free.

After the IETF's draft `idempotency-key-header`: 409 while the first request is in flight, 422 for another body.
"""

import contextlib
import hashlib
import re
import secrets
from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import Depends, Header
from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response

from admin import database
from admin.database import Connection
from admin.errors import IdempotencyKeyInUse, IdempotencyKeyReused, Invalid
from admin.http.bodies import body_bytes
from admin.sealing import CannotOpen, Sealer

HEADER = "Idempotency-Key"
REPLAYED = "Idempotent-Replayed"
_KEPT_FOR = "24 hours"
_LEASE = "15 seconds"  # a request has two seconds and a bit; then its connection is cut
_SHAPE = re.compile('"?([\x21\x23-\x7e]{1,255})"?')


class Replayed(Exception):
    """Not an error: the request was answered before, and here is that answer."""

    def __init__(self, status: int, body: bytes) -> None:
        self.status = status
        self.body = body


class Effect:
    """What a POST does, once for its key. Without a key it is done as often as it is asked for."""

    def __init__(self, sealer: Sealer, scope: bytes | None) -> None:
        self._sealer = sealer
        self._scope = scope
        self._owner = secrets.token_hex(8)

    async def keep(self, connection: Connection, answer: BaseModel, status: int = 201) -> None:
        """Store the answer, in the transaction of the effect. Raises `IdempotencyKeyInUse` if the lease is lost."""
        if self._scope is None:
            return
        kept = await connection.fetchval(
            """
            /* idempotency.keep */
            update idempotency_keys set status = $3, answer = $4 where scope = $1 and owner = $2 returning true""",
            self._scope,
            self._owner,
            status,
            self._sealer.seal(answer.model_dump_json(by_alias=True).encode()),
        )
        if not kept:
            raise IdempotencyKeyInUse

    async def claim(self, connection: Connection, organization_id: int, fingerprint: bytes) -> None:
        """Be the one that answers this key. Raises `Replayed`, `IdempotencyKeyReused`, `IdempotencyKeyInUse`."""
        claimed = await connection.fetchval(
            f"""
            /* idempotency.claim */
            insert into idempotency_keys as held (scope, organization_id, fingerprint, owner, leased_until)
            values ($1, $2, $3, $4, now() + interval '{_LEASE}')
            on conflict (scope) do update
               set fingerprint = excluded.fingerprint, owner = excluded.owner, leased_until = excluded.leased_until,
                   status = null, answer = null, created_at = now()
             where held.status is null and held.leased_until < now()
                or held.created_at < now() - interval '{_KEPT_FOR}'
            returning true""",  # noqa: S608
            self._scope,
            organization_id,
            fingerprint,
            self._owner,
        )
        if claimed:
            return
        row = await connection.fetchrow(
            "/* idempotency.claim */ select fingerprint, status, answer from idempotency_keys where scope = $1",
            self._scope,
        )
        if row is None:  # it has just been released
            raise IdempotencyKeyInUse
        if row["fingerprint"] != fingerprint:
            raise IdempotencyKeyReused
        if row["status"] is None:
            raise IdempotencyKeyInUse
        try:
            answer = self._sealer.open(row["answer"])
        except CannotOpen as error:
            raise IdempotencyKeyReused("The answer to this Idempotency-Key can't be opened any more.") from error
        raise Replayed(row["status"], answer)

    async def release(self, connection: Connection) -> None:
        """Let go of a key that has no answer."""
        await connection.execute(
            "/* idempotency.release */ delete from idempotency_keys where scope = $1 and owner = $2 and status is null",
            self._scope,
            self._owner,
        )


async def clear(connection: Connection) -> None:
    """Forget what nobody may ask for again."""
    await connection.execute(
        f"/* idempotency.clear */ delete from idempotency_keys where created_at < now() - interval '{_KEPT_FOR}'"  # noqa: S608
    )


_HEADER = Header(
    alias=HEADER,
    description="A POST that is repeated with the same key within a day has its effect once.",
    json_schema_extra={"pattern": "^[!#-~]{1,255}$"},
)


async def _effect(request: Request, sent: Annotated[str | None, _HEADER] = None) -> AsyncIterator[Effect]:
    later = _later(request, sent)
    async with later.once(b"" if later.key is None else await body_bytes(request)) as effect:
        yield effect


class Later:
    """The key of a request whose body is not held in memory: it is claimed when all of the body was read."""

    def __init__(self, request: Request, key: str | None) -> None:
        self._request = request
        self.key = key

    @contextlib.asynccontextmanager
    async def once(self, body: bytes) -> AsyncIterator[Effect]:
        """What the request does. `body` is all of it, or a digest with whatever else must be the same in a repeat.

        Raises as `Effect.claim` does.
        """
        sealer: Sealer = self._request.app.state.sealer
        if self.key is None:
            yield Effect(sealer, None)
            return
        organization_id, actor = self._request.state.acts_for
        route = f"{self._request.method} {self._request.scope['route'].path.removeprefix('/api')}"
        effect = Effect(sealer, _digest(str(organization_id), actor, route, self.key))
        pool = self._request.app.state.pool
        async with database.connection(pool) as connection:
            await effect.claim(
                connection, organization_id, _digest(self._request.url.path.removeprefix("/api"), body.hex())
            )
        try:
            yield effect
        except Exception:  # when the client has gone away, the lease ends by itself
            async with database.connection(pool) as connection:
                await effect.release(connection)
            raise


def _later(request: Request, sent: Annotated[str | None, _HEADER] = None) -> Later:
    if sent is None:
        return Later(request, None)
    if not (shape := _SHAPE.fullmatch(sent)):
        raise Invalid.of(HEADER, "It must be 1 to 255 visible ASCII characters, bare or quoted.")
    assert hasattr(request.state, "acts_for"), "a route that asks for Once asks for its caller first"
    return Later(request, shape[1])


def _digest(*parts: str) -> bytes:
    return hashlib.sha256("\0".join(parts).encode()).digest()


Once = Annotated[Effect, Depends(_effect)]
"""What a POST route asks for behind its caller, and before its body: a repeat is a repeat whatever the clock says."""

OnceRead = Annotated[Later, Depends(_later)]
"""The same for a route that reads its body by itself, and whose reading has no effect before it claims."""


async def replayed(_: Request, replay: Exception) -> Response:
    """The answer as it was, and a header that says so."""
    assert isinstance(replay, Replayed)
    return Response(replay.body, replay.status, {REPLAYED: "true"}, "application/json")
