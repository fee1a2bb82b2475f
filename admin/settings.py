"""The settings of admin, worker and the `linkwire` command."""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from shared.links import normal_hostname
from shared.settings import CommonSettings, port, required, setting, url, whole_number


def _public_url(text: str) -> str:
    parts = urlsplit(url("http", "https")(text))
    if not parts.hostname or "@" in parts.netloc or parts.path.strip("/") or parts.query or parts.fragment:
        raise ValueError("it must look like https://links.example or http://localhost:8000")
    port = f":{parts.port}" if parts.port else ""
    return f"{parts.scheme}://{normal_hostname(parts.hostname)}{port}"


@dataclass(frozen=True)
class AdminSettings(CommonSettings):
    """What admin and worker read."""

    database_url: str | None = setting(
        "DATABASE_URL",
        "PostgreSQL, 15 or newer. Unset: `linkwire up` starts its own PostgreSQL.",
        default=None,
        parse=url("postgresql", "postgres"),
        secret=True,
    )
    host: str = setting("LINKWIRE_ADMIN_HOST", "Address that the API is served on.", default="127.0.0.1")
    port: int = setting("LINKWIRE_ADMIN_PORT", "Port that the API is served on.", default="8001", parse=port)
    configured_public_url: str | None = setting(
        "LINKWIRE_PUBLIC_URL",
        "The default domain as people reach it. Its host is the default `hostname`; its scheme and port are those of "
        "every `shortUrl`. Unset: `http://localhost` with the edge's port.",
        default=None,
        parse=_public_url,
    )

    spool_silence_s: int = setting(
        "LINKWIRE_SPOOL_SILENCE_S",
        "Seconds after which a spool that nobody says anything of is closed; clicks of it that are missing then are "
        "counted as lost.",
        default="604800",
        parse=whole_number(60, 10**9),
    )

    def database(self) -> str:
        """The URL of Postgres. Raises `SettingsError` when it is unset."""
        return required("DATABASE_URL", self.database_url)

    @property
    def servers_file(self) -> Path:
        """Where `linkwire up` keeps the URLs of its servers while it runs."""
        return self.home / "servers.json"

    def beside_a_running_home(self) -> "AdminSettings":
        """For commands beside a running `linkwire up`: servers that are not configured are those it has started."""
        try:
            running = json.loads(self.servers_file.read_text())
        except (OSError, ValueError):
            return self
        return dataclasses.replace(
            self,
            database_url=self.database_url or running.get("DATABASE_URL"),
            redis_url=self.redis_url or running.get("REDIS_URL"),
        )

    def require_servers(self) -> None:
        """Raises `SettingsError` when Postgres or Redis is not configured."""
        self.database()
        self.redis()

    @property
    def public_url(self) -> str:
        """The default domain as people reach it: scheme, host and port."""
        return self.configured_public_url or f"http://localhost:{self.edge_port}"

    @property
    def default_hostname(self) -> str:
        """The hostname of links that name none."""
        return normal_hostname(urlsplit(self.public_url).hostname or "")

    def short_url(self, hostname: str, path: str) -> str:
        """What one pastes into a browser to follow a link."""
        parts = urlsplit(self.public_url)
        port = f":{parts.port}" if parts.port else ""
        return f"{parts.scheme}://{hostname}{port}{path}"
