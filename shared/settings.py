"""Settings as data: each is declared once, with its name, its default and a sentence of help.

Values come from the environment, then from `.env` in the working directory, then from the default. An empty value
means unset, and one in the environment hides the one in the file. A secret may also be given as a file, which then
counts: `NAME_FILE` holds its path. A process reads all its settings once, into one frozen value; whatever is missing or
malformed stops the start with a sentence that names the setting.
"""

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from starlette.config import Config, environ

from shared.addresses import Networks, networks

T = TypeVar("T", bound="CommonSettings")


class SettingsError(Exception):
    """A setting is missing or malformed; the message is one sentence for the operator."""


@dataclass(frozen=True)
class Setting:
    """The declaration of one setting."""

    name: str
    help: str
    default: str | None
    parse: Callable[[str], Any]
    secret: bool


def setting(
    name: str, help: str, *, default: str | None, parse: Callable[[str], Any] = str, secret: bool = False
) -> Any:
    """A field of a settings class. `default` is text as it would stand in the environment; None means unset."""
    return dataclasses.field(metadata={"setting": Setting(name, help, default, parse, secret)})


def declared(cls: type["CommonSettings"]) -> list[Setting]:
    """The settings of a class, in the order of their declaration."""
    return [field.metadata["setting"] for field in dataclasses.fields(cls)]


def load(cls: type[T], environment: Mapping[str, str] | None = None, directory: Path | None = None) -> T:
    """Read all settings of a class. Raises `SettingsError`."""
    env_file = (directory or Path.cwd()) / ".env"
    config = Config(env_file if env_file.is_file() else None, environ if environment is None else environment)
    return cls(**{field.name: _value(field.metadata["setting"], config) for field in dataclasses.fields(cls)})


def _value(declaration: Setting, config: Config) -> Any:
    text = (declaration.secret and _from_file(declaration.name + "_FILE", config)) or config(
        declaration.name, default=None
    )
    # An empty value means unset: compose files and CI systems pass empty strings for what nobody gave.
    text = text or declaration.default
    if text is None:
        return None
    try:
        return declaration.parse(text)
    except ValueError as error:
        shown = "its value" if declaration.secret else repr(text)
        raise SettingsError(f"{declaration.name}: {shown} is not valid: {error}") from error


def _from_file(name: str, config: Config) -> str | None:
    path = config(name, default=None)
    if not path:
        return None
    try:
        return Path(path).read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{name}: can't read {path}: {error}") from error


def whole_number(low: int, high: int) -> Callable[[str], int]:
    """A parser for a whole number within bounds."""

    def parse(text: str) -> int:
        number = int(text)
        if not low <= number <= high:
            raise ValueError(f"it must be from {low} to {high}")
        return number

    return parse


port = whole_number(1, 65535)


def switch(text: str) -> bool:
    """A parser for a setting that is on (`1`, `true`, `yes`) or off (`0`, `false`, `no`)."""
    if text.lower() not in ("1", "true", "yes", "0", "false", "no"):
        raise ValueError("it must be 1 or 0")
    return text.lower() in ("1", "true", "yes")


def url(*schemes: str) -> Callable[[str], str]:
    """A parser for a URL of one of these schemes."""

    def parse(text: str) -> str:
        parts = urlsplit(text)
        if parts.scheme not in schemes:
            raise ValueError(f"it must begin with {' or '.join(f'{scheme}://' for scheme in schemes)}")
        _ = parts.port  # raises for a port that is none
        return text

    return parse


def required(name: str, value: str | None) -> str:
    """The value of a setting that a process can't do without. Raises `SettingsError` when it is unset."""
    if value is None:
        raise SettingsError(f"{name} is not set; set it, or use `linkwire up`, which starts a server of its own.")
    return value


@dataclass(frozen=True)
class CommonSettings:
    """What every process of Linkwire reads."""

    home: Path = setting(
        "LINKWIRE_HOME",
        "Directory for everything Linkwire keeps on this machine: spools, logs, and the embedded servers' data.",
        default="var",
        parse=lambda text: Path(text).expanduser().absolute(),
    )
    redis_url: str | None = setting(
        "REDIS_URL",
        "Redis or Valkey, 6.2 or newer, with `maxmemory-policy noeviction`. Unset: `linkwire up` starts a Valkey.",
        default=None,
        parse=url("redis", "rediss", "unix"),
        secret=True,
    )
    edge_host: str = setting("LINKWIRE_EDGE_HOST", "Address that short links are served on.", default="127.0.0.1")
    edge_port: int = setting("LINKWIRE_EDGE_PORT", "Port that short links are served on.", default="8000", parse=port)
    trusted_proxies: Networks = setting(
        "LINKWIRE_TRUSTED_PROXIES",
        "Comma-separated addresses and CIDR ranges whose `X-Forwarded-For` is believed.",
        default="127.0.0.0/8,::1",
        parse=networks,
    )
    metrics_host: str = setting("LINKWIRE_METRICS_HOST", "Address that metrics listen on.", default="127.0.0.1")
    metrics_port: int | None = setting(
        "LINKWIRE_METRICS_PORT",
        "Port of the Prometheus metrics. Unset: `linkwire up` takes the edge's port + 1000; a process that was started "
        "by itself serves none.",
        default=None,
        parse=port,
    )

    def redis(self) -> str:
        """The URL of Redis. Raises `SettingsError` when it is unset."""
        return required("REDIS_URL", self.redis_url)
