"""The fields of OAuth clients as they are sent."""

import re
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field

from admin.http.fields import Fields, Name, documented
from admin.identity.permissions import PERMISSIONS, Permission

_LOOPBACK = ("127.0.0.1", "[::1]", "localhost")
_PRINTABLE = re.compile("[!-~]+")


def _redirect_uri(text: str) -> str:
    """Compared letter by letter later, so it is kept as it is (RFC 9700 §2.1, RFC 8252 §7)."""
    try:
        parts = urlsplit(text)
        host = parts.netloc.rpartition(":")[0] if parts.port else parts.netloc
    except ValueError as error:
        raise ValueError("It is not a URI.") from error
    if not _PRINTABLE.fullmatch(text) or "#" in text or "\\" in text or "@" in parts.netloc or not host:
        raise ValueError("It must be a URI with a host, without a fragment and without credentials.")
    if parts.scheme != "https" and not (parts.scheme == "http" and host in _LOOPBACK):
        raise ValueError("It must begin with https://, or with http:// on the loopback interface.")
    return text


RedirectUri = Annotated[
    str, Field(max_length=2000), AfterValidator(_redirect_uri), documented(format="uri", pattern="^https?://[^#@]+$")
]


class NewClient(Fields):
    """What POST /oauth/clients takes. An app that can't keep a secret is not confidential."""

    name: Name
    redirect_uris: Annotated[list[RedirectUri], Field(max_length=20, default_factory=list)]
    permissions: Annotated[list[Permission], Field(min_length=1, max_length=len(PERMISSIONS))]
    is_confidential: bool = True
