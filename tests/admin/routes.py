"""The routes of the API as its OpenAPI document has them, so that no test forgets a new one."""

from typing import Any, NamedTuple

from admin.app import build
from admin.settings import AdminSettings
from shared.settings import load

DOCUMENT: dict[str, Any] = build(
    load(AdminSettings, {"DATABASE_URL": "postgresql://x", "REDIS_URL": "redis://x", "LINKWIRE_SECRET": "x" * 32})
).openapi()


class Route(NamedTuple):
    """One operation of the document."""

    method: str
    path: str
    permissions: list[str] | None
    """What it needs; None where nobody has to say who they are."""
    has_body: bool
    parameters: list[str]
    """Of its path."""

    def at(self, **ids: str) -> str:
        return self.path.format(**ids)


def _route(method: str, path: str, operation: dict[str, Any]) -> Route:
    security = operation.get("security")
    permissions = [scope for one in security for scopes in one.values() for scope in scopes] if security else None
    named = [one["name"] for one in operation.get("parameters", []) if one["in"] == "path"]
    return Route(method.upper(), path, permissions, "requestBody" in operation, named)


ROUTES = [
    _route(method, path, operation)
    for path, operations in DOCUMENT["paths"].items()
    for method, operation in operations.items()
]
CLOSED = [route for route in ROUTES if route.permissions is not None]
