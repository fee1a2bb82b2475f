"""Tickets: that somebody has logged in on the consent page, told by the next form of that page.

A ticket is sealed, and good for ten minutes, for the question that it was made for, and until the password is changed.
There is no cookie that somebody else's page could make use of, and nothing to keep.
"""

import json
import time

from admin.database import Connection
from admin.errors import InvalidCredentials
from admin.identity import users
from admin.identity.keys import sha256
from admin.identity.users import User
from admin.sealing import CannotOpen, Sealer

_LASTS_S = 600


def make(sealer: Sealer, user: User, question: str) -> str:
    """For a user who has just shown who they are."""
    told = {
        "user": user.id,
        "password": sha256(user.password_hash).hex(),
        "question": sha256(question).hex(),
        "until": int(time.time()) + _LASTS_S,
    }
    return sealer.seal(json.dumps(told).encode()).decode()


async def holder(connection: Connection, sealer: Sealer, ticket: str, question: str) -> User:
    """Whoever has logged in for this question, locked. Raises `InvalidCredentials`."""
    try:
        told = json.loads(sealer.open(ticket.encode()))
    except CannotOpen as error:
        raise InvalidCredentials("Please log in.") from error
    if told["question"] != sha256(question).hex() or told["until"] < time.time():
        raise InvalidCredentials("Please log in again.")
    user = await users.get(connection, told["user"])
    if told["password"] != sha256(user.password_hash).hex():
        raise InvalidCredentials("The password was changed. Please log in again.")
    return await users.still(connection, user)
