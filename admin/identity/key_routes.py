"""The routes of API keys."""

from datetime import timedelta
from typing import Annotated

from fastapi import APIRouter, Depends
from starlette.requests import Request
from starlette.responses import Response

from admin import errors
from admin.database import transaction
from admin.http import ids
from admin.http.answers import (
    Instant,
    Resource,
    ResourceAnswer,
    ResourceListAnswer,
    Wire,
    documented,
    resource_answer,
    resource_list_answer,
)
from admin.http.bodies import body_of, documented_body
from admin.http.idempotency import Once
from admin.identity import audit, keys
from admin.identity.fields import KeyRotation, NewKey
from admin.identity.keys import ApiKey
from admin.identity.permissions import UNSCOPED
from admin.identity.principal import Administrator

router = APIRouter(tags=["API keys"], responses=documented(*errors.OF_EVERY_CALLER))


class KeyAttributes(Wire):
    """An API key as the API shows it: `key` is masked but in the answer that makes it."""

    name: str
    key: str
    environment: str
    permissions: list[str]
    status: str
    created_at: Instant
    created_by: str | None
    expires_at: Instant | None
    last_used_at: Instant | None
    revoked_at: Instant | None


def _resource(key: ApiKey, secret: str | None = None) -> Resource[KeyAttributes]:
    return Resource(
        id=ids.shown("key", key.public_id),
        type="api_key",
        attributes=KeyAttributes(
            name=key.name,
            key=secret or f"{keys.PREFIXES[key.environment]}…{key.ending}",
            environment=key.environment,
            permissions=key.permissions,
            status=key.status,
            created_at=key.created_at,
            created_by=ids.shown("user", key.created_by) if key.created_by else None,
            expires_at=key.expires_at,
            last_used_at=key.last_used_at,
            revoked_at=key.revoked_at,
        ),
    )


@router.get(
    "/api-keys",
    summary="List API keys",
    responses=documented(errors.Invalid),
    openapi_extra={"parameters": keys.LISTING.parameters},
)
async def list_keys(request: Request, caller: Administrator) -> ResourceListAnswer[KeyAttributes]:
    """Expired ones, too, and revoked ones when `status` asks for them."""
    asked = keys.LISTING.asked(request.query_params.multi_items())
    async with transaction(request.app.state.pool) as connection:
        found = await keys.page_of(connection, caller.organization_id, asked)
    return resource_list_answer(request, [_resource(ApiKey(**row)) for row in found.rows], found)


@router.post(
    "/api-keys",
    status_code=201,
    summary="Create an API key",
    responses=documented(*errors.OF_EVERY_POST),
    openapi_extra=documented_body(NewKey),
)
async def create_key(
    request: Request, caller: Administrator, once: Once, new: Annotated[NewKey, Depends(body_of(NewKey))]
) -> ResourceAnswer[KeyAttributes]:
    """The key is in this answer and nowhere else. Without `permissions` it may do everything but administer."""
    permissions = frozenset[str](new.permissions) if new.permissions else UNSCOPED
    secret = keys.new_key(new.environment)
    async with transaction(request.app.state.pool) as connection:
        key = await keys.add(
            connection,
            caller.organization_id,
            secret,
            name=new.name,
            permissions=permissions,
            created_by=caller.user_id,
            expires_at=new.expires_at,
        )
        made = resource_answer(request, _resource(key, secret))
        await audit.record(connection, caller, "api_key.created", made.data.id, permissions=key.permissions)
        await once.keep(connection, made)
    return made


@router.get("/api-keys/{key_id}", summary="Get an API key", responses=documented(errors.NotFound))
async def get_key(request: Request, caller: Administrator, key_id: str) -> ResourceAnswer[KeyAttributes]:
    """What is known of it; the key itself is kept nowhere."""
    async with transaction(request.app.state.pool) as connection:
        key = await keys.get(connection, caller.organization_id, ids.read("key", key_id))
    return resource_answer(request, _resource(key))


@router.delete(
    "/api-keys/{key_id}",
    status_code=204,
    summary="Revoke an API key",
    response_class=Response,
    responses=documented(errors.NotFound),
)
async def revoke_key(request: Request, caller: Administrator, key_id: str) -> None:
    """Within a second it is of no use anywhere. Only a list of what was revoked has it then."""
    async with transaction(request.app.state.pool) as connection:
        key = await keys.get(connection, caller.organization_id, ids.read("key", key_id), lock=True)
        await keys.revoke(connection, key)
        await audit.record(connection, caller, "api_key.revoked", ids.shown("key", key.public_id))


@router.post(
    "/api-keys/{key_id}/rotate",
    status_code=201,
    summary="Replace an API key",
    responses=documented(*errors.OF_EVERY_POST, errors.NotFound, errors.AlreadyExists),
    openapi_extra=documented_body(KeyRotation),
)
async def rotate_key(
    request: Request,
    caller: Administrator,
    key_id: str,
    once: Once,
    rotation: Annotated[KeyRotation, Depends(body_of(KeyRotation))],
) -> ResourceAnswer[KeyAttributes]:
    """A new key with the same name and permissions. The old one works for `overlapSeconds` more, a day unless given."""
    async with transaction(request.app.state.pool) as connection:
        old = await keys.get(connection, caller.organization_id, ids.read("key", key_id), lock=True)
        if old.status != "active":
            raise errors.NotFound("There is no such active API key.")
        if old.is_replaced:
            raise errors.AlreadyExists("This key was replaced already.")
        secret = keys.new_key(old.environment)
        key = await keys.add(
            connection,
            caller.organization_id,
            secret,
            name=old.name,
            permissions=frozenset(old.permissions),
            created_by=caller.user_id,
            expires_at=old.expires_at,
        )
        await keys.replace(connection, old, timedelta(seconds=rotation.overlap_seconds))
        made = resource_answer(request, _resource(key, secret))
        await audit.record(connection, caller, "api_key.rotated", key_id, replacement=made.data.id)
        await once.keep(connection, made)
    return made
