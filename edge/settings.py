"""The settings of the edge."""

from dataclasses import dataclass
from pathlib import Path

from shared.settings import CommonSettings, setting, whole_number


@dataclass(frozen=True)
class EdgeSettings(CommonSettings):
    """What the edge and its shipper read."""

    workers: int = setting(
        "LINKWIRE_EDGE_WORKERS",
        "Processes that answer short links; they share one listening socket.",
        default="1",
        parse=whole_number(1, 256),
    )
    memory_entries: int = setting(
        "LINKWIRE_EDGE_MEMORY_ENTRIES",
        "Links that each edge process remembers in front of Redis.",
        default="100000",
        parse=whole_number(0, 100_000_000),
    )
    connections: int = setting(
        "LINKWIRE_EDGE_CONNECTIONS",
        "Connections that each edge process keeps open; more are answered 503 and closed.",
        default="10000",
        parse=whole_number(1, 1_000_000),
    )
    connections_per_client: int = setting(
        "LINKWIRE_EDGE_CONNECTIONS_PER_CLIENT",
        "Of these, connections from one IPv4 address or IPv6 /64; trusted proxies may have any number.",
        default="512",
        parse=whole_number(1, 1_000_000),
    )
    spool_max_bytes: int = setting(
        "LINKWIRE_SPOOL_MAX_BYTES",
        "Disk that the spools of this machine may take, in segments of 16 MiB of which each edge process has two. "
        "Beyond it clicks are dropped and counted; redirects go on.",
        default="2147483648",
        parse=whole_number(32 * 1024 * 1024, 2**62),
    )
    spool_flush_interval_s: int = setting(
        "LINKWIRE_SPOOL_FLUSH_INTERVAL_S",
        "Seconds between flushes of the spools to the disk, so that a loss of power costs no more clicks than these; "
        "0 leaves it to the operating system. Any other death loses none.",
        default="0",
        parse=whole_number(0, 3600),
    )

    @property
    def spool_directory(self) -> Path:
        """Where workers spool clicks and the shipper finds them."""
        return self.home / "spool"
