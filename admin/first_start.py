"""The first start on an empty database: an organization, its owner and an API key, and the file that keeps them.

The secrets are written to disk before they are committed, under another name until the start has succeeded: a start
that dies in between loses none, and `credentials.json` exists only when what it says works.
"""

import json
import secrets
from dataclasses import dataclass
from pathlib import Path

from admin.database import Connection
from admin.embedded import write_private
from admin.identity import founding, keys, organizations
from admin.links import domains
from admin.settings import AdminSettings

OWNER_EMAIL = "owner@localhost"


@dataclass
class Credentials:
    """What a person needs to use a Linkwire of their own; the secrets are empty when they were made elsewhere."""

    path: Path
    api_key: str
    email: str
    password: str
    are_new: bool
    """Made by this start."""

    def settle(self, *, edge_url: str, admin_url: str) -> None:
        """Write `credentials.json`, now that everything answers. Without secrets there is nothing to write."""
        if self.api_key:
            _write(self.path, self._facts(edge_url, admin_url))
            _pending(self.path).unlink(missing_ok=True)

    def _facts(self, edge_url: str, admin_url: str) -> dict[str, str]:
        return {
            "edgeUrl": edge_url,
            "adminUrl": admin_url,
            "apiKey": self.api_key,
            "email": self.email,
            "password": self.password,
        }


async def establish(connection: Connection, settings: AdminSettings) -> Credentials:
    """Make the default domain, and the first organization where there is none."""
    path = settings.home / "credentials.json"
    await domains.open_to_all(connection, settings.default_hostname)
    if await organizations.first(connection) is not None:
        # A start that died after its commit left the pending file: its secrets are shown now.
        return (
            await _kept(connection, _pending(path), path)
            or await _kept(connection, path, path)
            or Credentials(path, "", "", "", are_new=False)
        )
    made = Credentials(path, keys.new_key(), OWNER_EMAIL, secrets.token_urlsafe(12), are_new=True)
    _write(_pending(path), made._facts("", ""))
    async with connection.transaction():
        organization = await founding.found(
            connection, name="Home", tier="enterprise", email=made.email, password=made.password
        )
        await founding.add_key(connection, organization.id, made.api_key, name="first")
    return made


def read(path: Path) -> dict[str, str] | None:
    """The facts in a credentials file; None when there is none that can be read."""
    try:
        facts = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return facts if isinstance(facts, dict) and isinstance(facts.get("apiKey"), str) else None


async def _kept(connection: Connection, file: Path, path: Path) -> Credentials | None:
    """Credentials from a file, if its key is one of this database."""
    facts = read(file)
    if facts is None or not await keys.exists(connection, facts["apiKey"]):
        return None
    return Credentials(path, facts["apiKey"], facts.get("email", ""), facts.get("password", ""), are_new=file != path)


def _pending(path: Path) -> Path:
    return path.with_suffix(".new")


def _write(path: Path, facts: dict[str, str]) -> None:
    write_private(path, json.dumps(facts, indent=2) + "\n")
