"""The settings of admin, worker and the `linkwire` command."""

import dataclasses
import json
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import urlsplit

from admin.sealing import Sealer
from shared.addresses import Networks, networks
from shared.links import normal_hostname
from shared.settings import CommonSettings, SettingsError, port, required, setting, switch, url, whole_number


def _public_url(text: str) -> str:
    parts = urlsplit(url("http", "https")(text))
    if not parts.hostname or "@" in parts.netloc or parts.path.strip("/") or parts.query or parts.fragment:
        raise ValueError("it must look like https://links.example or http://localhost:8000")
    port = f":{parts.port}" if parts.port else ""
    return f"{parts.scheme}://{normal_hostname(parts.hostname)}{port}"


def _secrets(text: str) -> tuple[str, ...]:
    secrets = tuple(part.strip() for part in text.split(",") if part.strip())
    if not secrets or min(map(len, secrets)) < 32:
        raise ValueError("each needs at least 32 characters")
    return secrets


def _origins(text: str) -> tuple[str, ...]:
    origins = tuple(part.strip() for part in text.split(",") if part.strip())
    for origin in origins:
        parts = urlsplit(origin)
        if parts.scheme not in ("http", "https") or origin.lower() != f"{parts.scheme}://{parts.netloc}".lower():
            raise ValueError(f"{origin} is no origin such as https://app.example")
    return origins


def _name_server(text: str) -> tuple[str, int]:
    """Its address and port; an IPv6 address with a port stands in brackets."""
    try:
        parts = urlsplit(f"//[{text}]" if text.count(":") > 1 and "[" not in text else f"//{text}")
        return str(ip_address(parts.hostname or "")), parts.port or 53
    except ValueError as error:
        raise ValueError("it must look like 192.0.2.53 or 192.0.2.53:5353") from error


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

    secrets: tuple[str, ...] | None = setting(
        "LINKWIRE_SECRET",
        "At least 32 random characters, which seal what the database must not give away. Several, separated by commas: "
        "the first seals, all of them open. Unset: `linkwire up` makes one and keeps it in `LINKWIRE_HOME/secret`.",
        default=None,
        parse=_secrets,
        secret=True,
    )
    configured_api_url: str | None = setting(
        "LINKWIRE_API_URL",
        "The API as clients reach it; access tokens name it as their issuer. Unset: `http://localhost` with the admin "
        "port.",
        default=None,
        parse=_public_url,
    )
    cors_origins: tuple[str, ...] | None = setting(
        "LINKWIRE_CORS_ORIGINS",
        "Comma-separated origins, such as `https://app.example`, whose pages may call the API from a browser.",
        default=None,
        parse=_origins,
    )
    open_registration: bool = setting(
        "LINKWIRE_OPEN_REGISTRATION",
        "1: anybody may register an organization. An open shortener is a tool for phishing; by default one needs an "
        "invitation.",
        default="0",
        parse=switch,
    )
    name_server: tuple[str, int] | None = setting(
        "LINKWIRE_DNS_SERVER",
        "Address, and port if it is not 53, of the name server that is asked when a domain is verified or a "
        "destination is looked at. Unset: the system's.",
        default=None,
        parse=_name_server,
    )
    reachable_networks: Networks | None = setting(
        "LINKWIRE_REACHABLE_NETWORKS",
        "Comma-separated addresses and CIDR ranges that are asked then though they are not public, such as those of an "
        "intranet. Unset: only what is on the public internet is.",
        default=None,
        parse=networks,
    )
    private_destinations: bool = setting(
        "LINKWIRE_PRIVATE_DESTINATIONS",
        "1: links may lead to private addresses and local names, such as `http://10.0.0.7` or `http://wiki.local`, for "
        "a shortener inside of a network. On the internet they would have browsers ask machines of their own networks.",
        default="0",
        parse=switch,
    )
    checks_destinations: bool = setting(
        "LINKWIRE_CHECK_DESTINATIONS",
        "0: the worker does not ask once a day whether there still is something where links lead. For machines that "
        "have no way out, or whose address nobody is to see.",
        default="1",
        parse=switch,
    )
    geoip_db: Path | None = setting(
        "GEOIP_DB",
        "A file with the cities of addresses, in the format of MaxMind DB (`.mmdb`), for the worker. Unset: clicks "
        "have a country and no city.",
        default=None,
        parse=Path,
    )
    import_max_bytes: int = setting(
        "LINKWIRE_IMPORT_MAX_BYTES",
        "Bytes of the largest file of links that the API imports. Postgres holds it until it is dealt with.",
        default="536870912",
        parse=whole_number(1024, 2**40),
    )
    enterprise_per_minute: int = setting(
        "LINKWIRE_ENTERPRISE_PER_MINUTE",
        "Requests that an organization of the enterprise tier may make in a minute.",
        default="100000",
        parse=whole_number(1, 10**9),
    )
    smtp_url: str | None = setting(
        "LINKWIRE_SMTP_URL",
        "Where mail is handed in: `smtp://user:password@host:587`, which turns to TLS where the server offers it, or "
        "`smtps://`, which begins with it. A password goes to another machine over TLS only. Unset: no mail is sent.",
        default=None,
        parse=url("smtp", "smtps"),
        secret=True,
    )
    mail_from: str = setting("LINKWIRE_MAIL_FROM", "The sender of mail.", default="Linkwire <no-reply@localhost>")
    is_development: bool = setting(
        "LINKWIRE_DEVELOPMENT",
        "1: without `LINKWIRE_SMTP_URL`, the worker prints mail to its log. It has tokens in it: never in earnest.",
        default="0",
        parse=switch,
    )

    def sealer(self) -> Sealer:
        """Made of `LINKWIRE_SECRET`. Raises `SettingsError` when it is unset."""
        if self.secrets is None:
            raise SettingsError("LINKWIRE_SECRET is not set; set it, or use `linkwire up`, which makes one.")
        return Sealer(*self.secrets)

    @property
    def sends_mail(self) -> bool:
        """Whether mail is sent, or at least printed."""
        return self.smtp_url is not None or self.is_development

    @property
    def api_url(self) -> str:
        """The API as clients reach it: scheme, host and port."""
        return self.configured_api_url or f"http://localhost:{self.port}"

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

    def require_all(self) -> None:
        """Raises `SettingsError` when Postgres, Redis, the secret, or mail that is needed is not configured."""
        self.database()
        self.redis()
        self.sealer()
        self.require_mail()

    def require_mail(self) -> None:
        """Raises `SettingsError` when anybody may register and nothing sends mail."""
        if self.open_registration and not self.sends_mail:
            raise SettingsError(
                "LINKWIRE_OPEN_REGISTRATION: nothing sends mail, so nobody could ever confirm an address; set "
                "LINKWIRE_SMTP_URL."
            )

    @property
    def public_url(self) -> str:
        """The default domain as people reach it: scheme, host and port."""
        return self.configured_public_url or f"http://localhost:{self.edge_port}"

    @property
    def api_hostname(self) -> str:
        """The hostname of the API, which serves no links."""
        return normal_hostname(urlsplit(self.api_url).hostname or "")

    @property
    def default_hostname(self) -> str:
        """The hostname of links that name none."""
        return normal_hostname(urlsplit(self.public_url).hostname or "")

    def short_url(self, hostname: str, path: str) -> str:
        """What one pastes into a browser to follow a link."""
        parts = urlsplit(self.public_url)
        port = f":{parts.port}" if parts.port else ""
        return f"{parts.scheme}://{hostname}{port}{path}"
