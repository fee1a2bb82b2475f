"""The settings of the edge."""

from dataclasses import dataclass
from pathlib import Path

from shared.settings import CommonSettings, setting, whole_number
from shared.visitor import Networks, networks


@dataclass(frozen=True)
class EdgeSettings(CommonSettings):
    """What the edge and its shipper read."""

    workers: int = setting(
        "LINKWIRE_EDGE_WORKERS",
        "Processes that answer short links; they share one listening socket.",
        default="1",
        parse=whole_number(1, 256),
    )
    trusted_proxies: Networks = setting(
        "LINKWIRE_TRUSTED_PROXIES",
        "Comma-separated addresses and CIDR ranges whose `X-Forwarded-For` the edge believes.",
        default="127.0.0.0/8,::1",
        parse=networks,
    )
    memory_entries: int = setting(
        "LINKWIRE_EDGE_MEMORY_ENTRIES",
        "Links that each edge process remembers in front of Redis.",
        default="100000",
        parse=whole_number(0, 100_000_000),
    )

    @property
    def spool_directory(self) -> Path:
        """Where workers spool clicks and the shipper finds them."""
        return self.home / "spool"
