"""The fields of identity as they are sent."""

from datetime import UTC, datetime
from typing import Annotated, Literal

from pydantic import AfterValidator, AwareDatetime, Field

from admin.http.fields import Change, Email, Fields, Https, Name, is_whole
from admin.identity.passwords import MAX_LENGTH, MIN_LENGTH
from admin.identity.permissions import PERMISSIONS, Permission, Role

Password = Annotated[str, Field(min_length=MIN_LENGTH, max_length=MAX_LENGTH, pattern="^[^\\x00]*$")]
OldPassword = Annotated[str, Field(max_length=MAX_LENGTH, pattern="^[^\\x00]*$")]
Token = Annotated[str, Field(max_length=200, pattern="^[0-9A-Za-z_.-]+$")]


def _in_future(at: datetime) -> datetime:
    if at <= datetime.now(UTC):
        raise ValueError("It must be in the future.")
    return at


class Registration(Fields):
    """What POST /auth/register takes."""

    email: Email
    password: Password
    name: Name
    organization_name: Name | None = None
    invitation_token: Token | None = None


class Login(Fields):
    """What POST /auth/login takes."""

    email: Email
    password: OldPassword
    remember_me: bool = False
    organization_id: Token | None = None
    invitation_token: Token | None = None


class Refresh(Fields):
    """What POST /auth/refresh takes."""

    refresh_token: Token


class Logout(Fields):
    """What POST /auth/logout takes."""

    refresh_token: Token | None = None
    all_devices: bool = False


class PasswordReset(Fields):
    """What POST /auth/password/reset takes."""

    email: Email


class PasswordConfirm(Fields):
    """What POST /auth/password/confirm takes."""

    token: Token
    password: Password


class EmailVerify(Fields):
    """What POST /auth/email/verify takes."""

    token: Token


class PasswordChange(Fields):
    """What POST /auth/change-password takes."""

    current_password: OldPassword
    new_password: Password


class ProfileChange(Change):
    """What PATCH /auth/me takes; `null` takes an avatar away."""

    name: Name = ""
    avatar: Https | None = None


class NewKey(Fields):
    """What POST /api-keys takes. Without permissions, a key may do everything but administer."""

    name: Name
    permissions: Annotated[list[Permission], Field(min_length=1, max_length=len(PERMISSIONS))] | None = None
    environment: Literal["live", "test"] = "live"
    expires_at: Annotated[AwareDatetime, Field(strict=False), AfterValidator(_in_future)] | None = None


class KeyRotation(Fields):
    """What POST /api-keys/{key_id}/rotate takes."""

    overlap_seconds: Annotated[int, Field(ge=0, le=30 * 86400), is_whole] = 86400


class NewInvitation(Fields):
    """What POST /invitations takes."""

    email: Email
    role: Role = "member"


class InvitationAcceptance(Fields):
    """What POST /auth/invitations/accept takes."""

    token: Token


class MemberChange(Fields):
    """What PATCH /members/{user_id} takes."""

    role: Role


class OrganizationChange(Fields):
    """What PATCH /organization takes."""

    name: Name
