"""Clicks as edge and worker agree on them: one record, a batch of records, and the names in Redis.

Rules of this file:

1. A record is one line of JSON. JSON never holds a raw newline, so records are joined and split at newlines, on disk
   as in Redis, without being read.
2. A batch names its place: the spool it comes from and the number of its first record there. Whoever stores clicks
   remembers the position per spool, which makes a second delivery harmless and a loss visible.
3. Every shipper reports its spools each second, for as long as they are on its disk: what was counted there, and from
   which record on it can ship. The report is how a finished spool is closed and how a loss is told from a delay.
4. Pure: no I/O, no clock.
"""

from typing import NamedTuple

import orjson

STREAM = "clicks"
"""The Redis stream of batches."""

GROUP = "ingest"
"""The consumer group that ingests it."""

COMMITTED_KEY = "clicks:committed"
"""Hash, spool id -> the number of records of it that are dealt with in Postgres, or `CLOSED`."""

CLOSED = b"closed"
"""In place of a position: Postgres has all of the spool and its report, and the shipper may remove it."""

REPORTS_KEY = "clicks:spools"
"""Hash, spool id -> `SpoolReport`."""

GAPS_KEY = "clicks:gaps"
"""Hash, spool id -> the position that ingest waits for, after a batch that began beyond it."""

EPOCH_KEY = "clicks:epoch"
"""A random word that vanishes when Redis loses its data; the shipper sets it and ships again when it has gone."""

MAX_USER_AGENT = 512
MAX_REFERRER = 2048
MAX_ACCEPT_LANGUAGE = 64
MAX_CAMPAIGN = 1024


class Click(NamedTuple):
    """One redirect that happened, as the edge saw it."""

    at_ms: int
    """Milliseconds since 1970, UTC."""
    link_id: int
    organization_id: int
    method: str
    """GET or HEAD."""
    address: str
    """The visitor's IP address, canonical, or empty."""
    user_agent: str
    """At most `MAX_USER_AGENT` characters; empty when there was none."""
    referrer: str
    """At most `MAX_REFERRER` characters; empty when there was none."""
    rule_id: int = 0
    """The rule of the link that said where to go; 0 for none."""
    variant_id: int = 0
    """The variant of the link that was drawn; 0 for none."""
    is_use: bool = False
    """The click limit of the link has counted it."""
    is_scan: bool = False
    """It came from a QR code."""
    has_id: bool = False
    """The destination was told the id of the click (click_ids.py)."""
    accept_language: str = ""
    """The begin of the header of that name: at most `MAX_ACCEPT_LANGUAGE` characters."""
    campaign: str = ""
    """The parameters of the query whose names begin with `utm_`: at most `MAX_CAMPAIGN` characters."""
    is_prefetch: bool = False
    """A browser asked ahead of its user (`Sec-Purpose` and its forerunners)."""
    has_opted_out: bool = False
    """The visitor sends `Sec-GPC` or `DNT`."""

    def to_bytes(self) -> bytes:
        """The record, without a newline. Most clicks are as the last fields are by default, and leave them out."""
        return orjson.dumps(tuple(self) if self[_USUAL:] != _DEFAULTS else self[:_USUAL])

    @classmethod
    def from_bytes(cls, record: bytes) -> "Click":
        """The inverse of `to_bytes`. Raises ValueError for anything else."""
        fields = orjson.loads(record)
        if not isinstance(fields, list) or not _ALWAYS <= len(fields) <= len(cls._fields):
            raise ValueError("a click is a list of 7 to 16 fields")
        if tuple(map(type, fields)) != _KINDS[: len(fields)]:
            raise ValueError("a field of the click is of the wrong type")
        click = cls(*fields)
        if not (0 <= click.at_ms < _END_MS and 0 <= click.link_id < 2**31 and 0 <= click.organization_id < 2**63):
            raise ValueError("a number of the click is out of range")
        if not (0 <= click.rule_id < 2**31 and 0 <= click.variant_id < 2**31):
            raise ValueError("a number of the click is out of range")
        if len(click.user_agent) > MAX_USER_AGENT or len(click.referrer) > MAX_REFERRER:
            raise ValueError("a text of the click is too long")
        if len(click.accept_language) > MAX_ACCEPT_LANGUAGE or len(click.campaign) > MAX_CAMPAIGN:
            raise ValueError("a text of the click is too long")
        return click


_ALWAYS = 7
"""Edges before 0.1 have recorded no more of a plain click."""
_USUAL = 13
_DEFAULTS = ("", False, False)
_KINDS = (int, int, int, str, str, str, str, int, int, bool, bool, bool, str, str, bool, bool)
_END_MS = 253_402_300_800_000  # the year 10000


class Batch(NamedTuple):
    """Consecutive records of one spool."""

    spool: str
    first: int
    """The number of the first record in its spool, counted from 0."""
    records: list[bytes]

    @property
    def end(self) -> int:
        """The number of the first record after this batch."""
        return self.first + len(self.records)

    def to_fields(self) -> dict[str, str | int | bytes]:
        """The fields of a stream entry."""
        return {"spool": self.spool, "first": self.first, "records": b"\n".join(self.records)}

    @classmethod
    def from_fields(cls, fields: dict[bytes, bytes]) -> "Batch":
        """The inverse of `to_fields`, as Redis returns it. Raises ValueError or KeyError for anything else."""
        spool, first = fields[b"spool"].decode("ascii"), int(fields[b"first"])
        if not spool.isprintable() or not 0 <= first < 2**63:
            raise ValueError("the place of the batch is none")
        return cls(spool, first, fields[b"records"].split(b"\n"))


class SpoolReport(NamedTuple):
    """What the shipper says of a spool."""

    at_ms: int
    """When it said so."""
    host: str
    """The name of its machine."""
    served: int
    """Redirects of the worker that writes it."""
    recorded: int
    dropped: int
    earliest: int
    """The number of the first record that can still be shipped; those before are removed or were destroyed."""
    is_finished: bool
    """No worker writes to it any more: the counts are final, and served = recorded + dropped."""
    is_removed: bool
    """It is gone from the disk; the report stays for a while, should Postgres be restored to a time before."""

    def to_bytes(self) -> bytes:
        """As JSON."""
        return orjson.dumps(self._asdict())

    @classmethod
    def from_bytes(cls, value: bytes) -> "SpoolReport":
        """The inverse of `to_bytes`. Raises ValueError for anything else."""
        fields = orjson.loads(value)
        if not isinstance(fields, dict) or set(fields) != set(cls._fields):
            raise ValueError("a report has other fields")
        report = cls(**fields)
        numbers = (report.at_ms, report.served, report.recorded, report.dropped, report.earliest)
        if any(type(number) is not int or not 0 <= number < 2**63 for number in numbers):
            raise ValueError("a number of the report is none or out of range")
        if type(report.host) is not str or {type(report.is_finished), type(report.is_removed)} != {bool}:
            raise ValueError("a field of the report is of the wrong type")
        return report
