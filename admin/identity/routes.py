"""The routes of an organization: itself, its members and invitations, and its audit log."""

import json
from typing import Annotated, Any

from fastapi import APIRouter, Depends
from starlette.requests import Request
from starlette.responses import Response

from admin import errors
from admin.database import Connection, transaction
from admin.errors import Detail, EmailNotVerified, InsufficientPermissions, MailNotConfigured
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
from admin.http.limits import Limit
from admin.identity import audit, invitations, letters, members, organizations, sessions
from admin.identity.fields import MemberChange, NewInvitation, OrganizationChange
from admin.identity.invitations import Invitation
from admin.identity.members import Member
from admin.identity.oauth import grants
from admin.identity.organizations import Organization
from admin.identity.people import MAILS, gate_of
from admin.identity.principal import Administrator, Caller, Principal

_INVITATIONS = (Limit(100, 86400),)

router = APIRouter(tags=["Organization"], responses=documented(*errors.OF_EVERY_CALLER))


class OrganizationAttributes(Wire):
    """An organization as the API shows it."""

    name: str
    tier: str
    plan: str
    created_at: Instant


class MemberAttributes(Wire):
    """A member as the API shows it."""

    email: str
    name: str
    role: str
    created_at: Instant


class InvitationAttributes(Wire):
    """An invitation as the API shows it; its token is in the mail only."""

    email: str
    role: str
    status: str
    invited_by: str
    created_at: Instant
    expires_at: Instant


class AuditAttributes(Wire):
    """What was done, by whom, from where."""

    action: str
    actor_type: str
    actor_id: str | None
    actor_name: str
    object_type: str
    object_id: str | None
    address: str
    request_id: str
    details: dict[str, Any]
    created_at: Instant


def _organization(found: Organization) -> Resource[OrganizationAttributes]:
    return Resource(
        id=ids.shown("org", found.public_id),
        type="organization",
        attributes=OrganizationAttributes(
            name=found.name, tier=found.tier, plan=found.plan, created_at=found.created_at
        ),
    )


def _member(found: Member) -> Resource[MemberAttributes]:
    return Resource(
        id=ids.shown("user", found.public_id),
        type="member",
        attributes=MemberAttributes(email=found.email, name=found.name, role=found.role, created_at=found.created_at),
    )


def _invitation(found: Invitation) -> Resource[InvitationAttributes]:
    return Resource(
        id=ids.shown("inv", found.public_id),
        type="invitation",
        attributes=InvitationAttributes(
            email=found.email,
            role=found.role,
            status=found.status,
            invited_by=found.invited_by,
            created_at=found.created_at,
            expires_at=found.expires_at,
        ),
    )


def _entry(found: audit.Entry) -> Resource[AuditAttributes]:
    facts = found._asdict()
    public_id, at, details = facts.pop("public_id"), facts.pop("at"), json.loads(facts.pop("details"))
    return Resource(
        id=ids.shown("log", public_id),
        type="audit_entry",
        attributes=AuditAttributes(**facts, details=details, created_at=at),
    )


@router.get("/organization", summary="See the organization")
async def show_organization(request: Request, caller: Caller) -> ResourceAnswer[OrganizationAttributes]:
    """The one that the caller acts for."""
    async with transaction(request.app.state.pool) as connection:
        found = await organizations.get(connection, caller.organization_id)
    return resource_answer(request, _organization(found))


@router.patch(
    "/organization",
    summary="Rename the organization",
    responses=documented(errors.Invalid, errors.PayloadTooLarge),
    openapi_extra=documented_body(OrganizationChange),
)
async def change_organization(
    request: Request, caller: Administrator, change: Annotated[OrganizationChange, Depends(body_of(OrganizationChange))]
) -> ResourceAnswer[OrganizationAttributes]:
    """Tier and plan are the operator's to change."""
    async with transaction(request.app.state.pool) as connection:
        changed = await organizations.rename(connection, caller.organization_id, change.name)
        await audit.record(connection, caller, "organization.changed", ids.shown("org", changed.public_id))
    return resource_answer(request, _organization(changed))


@router.get(
    "/members",
    summary="List members",
    responses=documented(errors.Invalid),
    openapi_extra={"parameters": members.LISTING.parameters},
)
async def list_members(request: Request, caller: Administrator) -> ResourceListAnswer[MemberAttributes]:
    """People who may act for the organization."""
    asked = members.LISTING.asked(request.query_params.multi_items())
    async with transaction(request.app.state.pool) as connection:
        found = await members.page_of(connection, caller.organization_id, asked)
    return resource_list_answer(request, [_member(Member(**row)) for row in found.rows], found)


@router.patch(
    "/members/{user_id}",
    summary="Change a member's role",
    responses=documented(errors.Invalid, errors.NotFound, errors.AlreadyExists, errors.PayloadTooLarge),
    openapi_extra=documented_body(MemberChange),
)
async def change_member(
    request: Request,
    caller: Administrator,
    user_id: str,
    change: Annotated[MemberChange, Depends(body_of(MemberChange))],
) -> ResourceAnswer[MemberAttributes]:
    """Only owners make and unmake owners; the last one stays."""
    async with transaction(request.app.state.pool) as connection:
        member = await members.get(connection, caller.organization_id, ids.read("user", user_id))
        await _check_may_touch(connection, caller, member.role, change.role)
        member = await members.set_role(connection, caller.organization_id, member, change.role)
        await audit.record(connection, caller, "member.changed", user_id, role=change.role)
    return resource_answer(request, _member(member))


@router.delete(
    "/members/{user_id}",
    status_code=204,
    summary="Remove a member",
    response_class=Response,
    responses=documented(errors.NotFound, errors.AlreadyExists),
)
async def remove_member(request: Request, caller: Administrator, user_id: str) -> None:
    """Their sessions, and what they granted to apps, are of no use within a second; the last owner stays."""
    async with transaction(request.app.state.pool) as connection:
        member = await members.get(connection, caller.organization_id, ids.read("user", user_id))
        await _check_may_touch(connection, caller, member.role)
        await members.remove(connection, caller.organization_id, member)
        await sessions.end_membership(connection, member.user_id, caller.organization_id)
        await grants.end_membership(connection, member.user_id, caller.organization_id, caller)
        await audit.record(connection, caller, "member.removed", user_id)


async def _check_may_touch(connection: Connection, caller: Principal, *roles: str) -> None:
    """Only owners deal with owners, and in person: any administrator can make a key.

    Raises `InsufficientPermissions`.
    """
    if "owner" not in roles:
        return
    user_id = caller.user_id
    if user_id is None or await members.role_of(connection, caller.organization_id, user_id) != "owner":
        raise InsufficientPermissions(details=[Detail("role", "Only owners make and unmake owners.")])


@router.get(
    "/invitations",
    summary="List invitations",
    responses=documented(errors.Invalid),
    openapi_extra={"parameters": invitations.LISTING.parameters},
)
async def list_invitations(request: Request, caller: Administrator) -> ResourceListAnswer[InvitationAttributes]:
    """Also those that were accepted, revoked, or have expired."""
    asked = invitations.LISTING.asked(request.query_params.multi_items())
    async with transaction(request.app.state.pool) as connection:
        found = await invitations.page_of(connection, caller.organization_id, asked)
    return resource_list_answer(request, [_invitation(Invitation(**row)) for row in found.rows], found)


@router.post(
    "/invitations",
    status_code=201,
    summary="Invite somebody",
    responses=documented(*errors.OF_EVERY_POST, errors.MailNotConfigured, errors.EmailNotVerified),
    openapi_extra=documented_body(NewInvitation),
)
async def create_invitation(
    request: Request, caller: Administrator, once: Once, new: Annotated[NewInvitation, Depends(body_of(NewInvitation))]
) -> ResourceAnswer[InvitationAttributes]:
    """A mail with a token goes to the address; an earlier invitation to it ends."""
    if not request.app.state.settings.sends_mail:
        raise MailNotConfigured
    await _slow_down(request, caller, new.email)
    async with transaction(request.app.state.pool) as connection:
        if not await members.has_verified_owner(connection, caller.organization_id):
            raise EmailNotVerified
        pending = await invitations.pending_role(connection, caller.organization_id, new.email)
        await _check_may_touch(connection, caller, new.role, pending or "")
        made, token = await invitations.create(
            connection, caller.organization_id, email=new.email, role=new.role, invited_by=caller.name
        )
        organization = await organizations.get(connection, caller.organization_id)
        await letters.invitation(connection, request.app.state.sealer, new.email, token, organization.name)
        shown = _invitation(made)
        await audit.record(connection, caller, "invitation.created", shown.id, role=new.role)
        answer = resource_answer(request, shown)
        await once.keep(connection, answer)
    return answer


async def _slow_down(request: Request, caller: Principal, email: str) -> None:
    """Nobody is flooded with mail, and no organization sends much of it. Raises `RateLimited`."""
    await gate_of(request).charge(f"invited:{email}", MAILS)
    await gate_of(request).charge(f"inviting:{caller.organization_id}", _INVITATIONS)


@router.delete(
    "/invitations/{invitation_id}",
    status_code=204,
    summary="Take an invitation back",
    response_class=Response,
    responses=documented(errors.NotFound),
)
async def revoke_invitation(request: Request, caller: Administrator, invitation_id: str) -> None:
    """Its token is of no use any more. One that was accepted stays accepted."""
    async with transaction(request.app.state.pool) as connection:
        invitation = await invitations.get(connection, caller.organization_id, ids.read("inv", invitation_id))
        if invitation.status == "pending":
            await _check_may_touch(connection, caller, invitation.role)
            await invitations.revoke(connection, caller.organization_id, invitation.public_id)
            await audit.record(connection, caller, "invitation.revoked", invitation_id)


@router.get(
    "/audit-log",
    summary="See who did what",
    responses=documented(errors.Invalid),
    openapi_extra={"parameters": audit.LISTING.parameters},
)
async def list_audit_log(request: Request, caller: Administrator) -> ResourceListAnswer[AuditAttributes]:
    """Every change of every object of the organization, newest first. Nothing is ever taken out of it."""
    asked = audit.LISTING.asked(request.query_params.multi_items())
    async with transaction(request.app.state.pool) as connection:
        found = await audit.page_of(connection, caller.organization_id, asked)
    return resource_list_answer(request, [_entry(audit.Entry(**row)) for row in found.rows], found)
