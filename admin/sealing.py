"""Sealing: what must be kept and may be read by nobody who only has the database.

Fernet (AES-128-CBC and HMAC-SHA256), with keys made of `LINKWIRE_SECRET`. The first secret seals; all of them open, so
that a secret can be replaced while what it sealed is still needed.
"""

import base64
import hashlib

from cryptography.fernet import Fernet, InvalidToken, MultiFernet


class CannotOpen(Exception):
    """It was sealed with a secret that is not known any more, or it was changed."""


class Sealer:
    """Seals and opens."""

    def __init__(self, *secrets: str) -> None:
        self._fernet = MultiFernet([Fernet(_key(secret)) for secret in secrets])

    def seal(self, plain: bytes) -> bytes:
        """Sealed text, different each time."""
        return self._fernet.encrypt(plain)

    def open(self, sealed: bytes) -> bytes:
        """What was sealed. Raises `CannotOpen`."""
        try:
            return self._fernet.decrypt(sealed)
        except InvalidToken as error:
            raise CannotOpen("LINKWIRE_SECRET is not the one that this was sealed with.") from error


def _key(secret: str) -> bytes:
    return base64.urlsafe_b64encode(hashlib.sha256(secret.encode()).digest())
