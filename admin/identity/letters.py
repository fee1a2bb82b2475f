"""What Linkwire writes to people. Everything is sent by the worker (`admin/mail.py`)."""

from admin.database import Connection
from admin.mail import Mail, post
from admin.sealing import Sealer


async def verification(connection: Connection, sealer: Sealer, email: str, token: str) -> None:
    """To somebody who has registered."""
    await _write(
        connection,
        sealer,
        email,
        "Please confirm your e-mail address",
        "Somebody, probably you, has registered at Linkwire with this address.\n\n"
        f"To confirm that it is yours, use this token within two days:\n\n    {token}\n\n"
        "If it was not you, do nothing.",
    )


async def password_reset(connection: Connection, sealer: Sealer, email: str, token: str) -> None:
    """To somebody who has forgotten their password."""
    await _write(
        connection,
        sealer,
        email,
        "Choose a new password",
        "Somebody, probably you, wants to choose a new password for Linkwire.\n\n"
        f"To do so, use this token within an hour:\n\n    {token}\n\n"
        "If it was not you, do nothing; your password stays as it is.",
    )


async def invitation(connection: Connection, sealer: Sealer, email: str, token: str, organization: str) -> None:
    """To somebody who is to become a member."""
    await _write(
        connection,
        sealer,
        email,
        f"You are invited to {organization}",
        f"You are invited to join {organization} on Linkwire.\n\n"
        f"To accept, register with this address, or log in, and use this token within seven days:\n\n    {token}\n\n"
        "If you don't want to, do nothing.",
    )


async def _write(connection: Connection, sealer: Sealer, email: str, subject: str, text: str) -> None:
    await post(connection, sealer, Mail(email, subject, text))
