"""What schemathesis can't know: whose key it has, and what the formats mean that JSON Schema has no words for."""

import itertools
import os
import re
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from typing import Any

import schemathesis
from hypothesis import strategies as st
from schemathesis import Case, HookContext

from tests.admin.test_qr import png_of

_numbers = itertools.count()  # random ones would repeat: the tool seeds chance before each request

schemathesis.openapi.format("link-path", st.from_regex("/[0-9A-Za-z_-]{1,30}", fullmatch=True))
schemathesis.openapi.format("idn-hostname", st.from_regex("[a-z]{3,12}\\.example", fullmatch=True))
schemathesis.openapi.format(
    "uri", st.from_regex("https?://[a-z]{3,12}\\.example\\.com/[a-z0-9]{0,8}(\\?[a-z]=[0-9]{1,4})?", fullmatch=True)
)
schemathesis.openapi.format(
    "date-time",
    st.datetimes(datetime.now() + timedelta(days=1), datetime(2999, 1, 1)).map(
        lambda at: at.replace(tzinfo=UTC).isoformat()
    ),
)
schemathesis.openapi.media_type("image/png", st.just(png_of()))
for _kind in ("text/csv", "application/x-ndjson", "application/octet-stream"):
    schemathesis.openapi.media_type(_kind, st.just(b'{"destination": "https://example.com/"}\n'))


@schemathesis.auth()
class Bearer:
    """An API key that may do everything; for one's own account, a session."""

    def get(self, case: Case[Any], context: Any) -> str:
        is_own = case.operation.path.startswith("/v1/auth/")
        return os.environ["ACCESS_TOKEN" if is_own else "API_KEY"]

    def set(self, case: Case[Any], data: str, context: Any) -> None:
        case.headers["Authorization"] = f"Bearer {data}"


@schemathesis.hook
def before_call(context: HookContext, case: Case[Any], kwargs: dict[str, Any]) -> None:
    """Each request comes from another client, or it would only meet the limits of one; no key of idempotency is used
    twice, or its answer might be of something that is gone; and nobody revokes the API key."""
    address = str(IPv4Address(0x0A000000 + next(_numbers)))
    case.headers["X-Forwarded-For"] = address
    if re.fullmatch("[!#-~]{1,255}", case.headers.get("Idempotency-Key", "")):
        case.headers["Idempotency-Key"] = address
    if case.path_parameters and case.path_parameters.get("key_id") == os.environ["API_KEY_ID"]:
        case.path_parameters = {"key_id": "key_0123456789abcdef"}
