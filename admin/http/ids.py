"""Ids: 16 characters of base62, in the order of their making.

Seven are the time in milliseconds since 2020, nine are random. So a list can be walked by id, and a cursor is an id. On
the wire most nouns have a prefix (`key_…`); it is not stored.
"""

import re
import secrets
import string
import time

from admin.errors import NotFound

BASE62 = string.digits + string.ascii_uppercase + string.ascii_lowercase
"""In the order of ASCII."""

_SHAPE = re.compile("[0-9A-Za-z]{16}")
_TIME = 7
_RANDOM = 9
_BEGIN_MS = 1_577_836_800_000  # 2020-01-01


def new_id() -> str:
    """An id that nobody has, later than those made before this millisecond (by this machine's clock)."""
    return base62(time.time_ns() // 1_000_000 - _BEGIN_MS, _TIME) + random_base62(_RANDOM)


def base62(number: int, length: int) -> str:
    """A number that is not negative, in this many digits; its highest ones are lost if they don't fit."""
    digits = ""
    for _ in range(length):
        number, digit = divmod(number, len(BASE62))
        digits = BASE62[digit] + digits
    return digits


def random_base62(length: int) -> str:
    """Unguessable characters."""
    return base62(secrets.randbelow(len(BASE62) ** length), length)


def shown(prefix: str, public_id: str) -> str:
    """An id as it is on the wire: `key_` and the id."""
    return f"{prefix}_{public_id}"


def read(prefix: str, text: str) -> str:
    """The id in what a client sent. Raises `NotFound`: what has not the shape of an id names nothing."""
    public_id = text.removeprefix(f"{prefix}_") if prefix else text
    if not _SHAPE.fullmatch(public_id) or (prefix and public_id == text):
        raise NotFound
    return public_id
