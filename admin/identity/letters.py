"""What Linkwire writes to people. Everything is sent by the worker (`admin/mail.py`)."""

import re

from admin.database import Connection
from admin.identity import mailed_tokens, users
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


async def ask_for_reset(connection: Connection, email: str) -> None:
    """Have `step` find out whether there is such an account: no answer should tell, not even by the time it takes."""
    await connection.execute("/* letters.ask_for_reset */ insert into password_resets (email) values ($1)", email)


async def step(connection: Connection, sealer: Sealer) -> int:
    """Write the mails that were asked for with `ask_for_reset`; the number of those that were asked for."""
    async with connection.transaction():
        rows = await connection.fetch(
            """
            /* letters.step */
            delete from password_resets
             where id in (select id from password_resets order by id limit 20 for update skip locked)
            returning email"""
        )
        for email in sorted({row["email"] for row in rows}):
            user = await users.by_email(connection, email)
            if user is not None:
                token = await mailed_tokens.make(connection, user.id, "reset")
                await password_reset(connection, sealer, user.email, token)
    return len(rows)


async def invitation(connection: Connection, sealer: Sealer, email: str, token: str, organization: str) -> None:
    """To somebody who is to become a member."""
    await _write(
        connection,
        sealer,
        email,
        "You are invited to Linkwire",
        f"You are invited to join {_harmless(organization)} on Linkwire.\n\n"
        f"To accept, register with this address, or log in, and use this token within seven days:\n\n    {token}\n\n"
        "If you don't want to, do nothing.",
    )


def _harmless(name: str) -> str:
    """What anybody may call themselves, unless a reader of mail would make a link of it."""
    return "an organization" if re.search("[./:@]", name) else name


async def _write(connection: Connection, sealer: Sealer, email: str, subject: str, text: str) -> None:
    await post(connection, sealer, Mail(email, subject, text))
