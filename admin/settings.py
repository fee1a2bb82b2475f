"""The settings of admin, worker and the `linkwire` command."""

from dataclasses import dataclass
from urllib.parse import urlsplit

from shared.links import normal_hostname
from shared.settings import CommonSettings, port, required, setting


def _public_url(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.path.strip("/") or parts.query:
        raise ValueError("it must look like https://links.example or http://localhost:8000")
    normal_hostname(parts.hostname)
    return f"{parts.scheme}://{parts.netloc}"


@dataclass(frozen=True)
class AdminSettings(CommonSettings):
    """What admin and worker read."""

    database_url: str | None = setting(
        "DATABASE_URL",
        "PostgreSQL, 15 or newer. Unset: `linkwire up` starts its own PostgreSQL.",
        default=None,
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

    def database(self) -> str:
        """The URL of Postgres. Raises `SettingsError` when it is unset."""
        return required("DATABASE_URL", self.database_url)

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
