"""Permissions: what a caller may do, as words; and what each role of a member grants.

`admin` grants everything. Nobody gives away more than they have.
"""

from collections.abc import Iterable
from typing import Literal, get_args

Permission = Literal[
    "links:read",
    "links:write",
    "stats:read",
    "messages:read",
    "messages:write",
    "conversations:read",
    "conversations:write",
    "channels:read",
    "channels:write",
    "bots:read",
    "bots:write",
    "webhooks:read",
    "webhooks:write",
    "analytics:read",
    "admin",
]
Role = Literal["owner", "admin", "member", "viewer"]

PERMISSIONS: tuple[str, ...] = get_args(Permission)

UNSCOPED = frozenset(PERMISSIONS) - {"admin"}
"""What a key may do for which no permissions were named."""

ROLES = {
    "owner": frozenset({"admin"}),
    "admin": frozenset({"admin"}),
    "member": UNSCOPED,
    "viewer": frozenset(name for name in PERMISSIONS if name.endswith(":read")),
}


def lacking(granted: frozenset[str], wanted: Iterable[str]) -> list[str]:
    """Those of the wanted permissions that are not granted."""
    return [] if "admin" in granted else [name for name in wanted if name not in granted]


def within(granted: frozenset[str], by: frozenset[str]) -> frozenset[str]:
    """What remains of `granted` where whoever stands behind it may do `by`: `admin` means everything in both."""
    return by if "admin" in granted else granted - frozenset(lacking(by, granted))
