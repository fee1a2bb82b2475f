"""Ids of clicks, which their destinations are told: where a click is recorded, sealed.

Rules of this file:

1. An id is one block of AES-128, made of the id of a spool and the number of a record in it. So it is known as soon as
   the record is appended, and needs no store.
2. Without the key nobody makes the id of another click of one they were told, nor sees how many there were.
3. What opens to no place was made up. One of 65,536 that are made up opens to one, where no click is.
4. Pure: no I/O, no clock.
"""

import base64
import re
from functools import lru_cache

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

_SHAPE = re.compile("[A-Za-z0-9_-]{21}[AQgw]")
_LIMIT = 2**48
"""Of the numbers of records: 290 years of 30,000 a second. What is left of their eight bytes tells what is made up."""


class ClickIds:
    """Seals and opens with one key."""

    def __init__(self, key: str) -> None:
        """`key`: 32 hexadecimal digits. Raises ValueError for anything else."""
        # A block for itself, and never twice the same: what other modes are for does not arise.
        cipher = Cipher(algorithms.AES(bytes.fromhex(key)), modes.ECB())  # noqa: S305
        self._seal = cipher.encryptor().update
        self._open = cipher.decryptor().update

    def seal(self, spool: str, position: int) -> str:
        """The id of the click that is recorded at a position of a spool: 22 characters of base64url.

        Raises ValueError for a spool whose id is not 16 hexadecimal digits.
        """
        block = bytes.fromhex(spool) + position.to_bytes(8, "big")
        if len(block) != 16 or position >= _LIMIT:
            raise ValueError("no edge has such a record")
        return base64.urlsafe_b64encode(self._seal(block)).decode("ascii").rstrip("=")

    def open(self, told: str) -> tuple[str, int] | None:
        """The spool and the position that this is the id of; None for what was made up."""
        if not _SHAPE.fullmatch(told):
            return None
        block = self._open(base64.urlsafe_b64decode(told + "=="))
        position = int.from_bytes(block[8:], "big")
        return (block[:8].hex(), position) if position < _LIMIT else None


@lru_cache(maxsize=8)
def click_ids(key: str) -> ClickIds:
    """The same for all who have this key. Raises ValueError for what is none."""
    return ClickIds(key)
