"""Rows: clicks as they are stored. Everything that is recorded becomes one; what it is counted as is its class."""

from datetime import datetime
from typing import NamedTuple

from admin.stats.classify import REASONS

REASON_NUMBERS = {reason: number for number, reason in enumerate(REASONS)}
"""What rows have for a reason."""


class Row(NamedTuple):
    """A row of clicks."""

    clicked_at: datetime
    link_id: int
    organization_id: int
    visitor: int | None
    location: int
    referrer: int
    platform: int
    language: int
    campaign: int
    agent: int
    rule_id: int | None
    variant_id: int | None
    class_: int
    reason: int
    version: int
    is_head: bool
    is_prefetch: bool
    is_internal: bool
    is_use: bool
    is_scan: bool
    address: str | None
    click_id: str | None
    message_id: int | None = None
    """Of the message that carried the link (carriers.py)."""
    network: int | None = None
    """The place of its kind in `networks.KINDS`, from 1 on."""


COLUMNS = tuple(name.rstrip("_") for name in Row._fields)
