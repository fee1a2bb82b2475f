"""Making: rows of what the edges have recorded.

Rules of this file:

1. Everything that is recorded becomes a row; what it is counted as is a class (classify.py).
2. What an organization does not want kept of its visitors (counting.py) ends here.
3. A repeat is told by the time of the click, against the visitor's last visit of that link. Edges are not stored in one
   order, so a click that comes later than one that came after it may be misjudged, by the lag between them;
   reclassifying decides it exactly.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from itertools import chain
from typing import NamedTuple

from admin.database import Connection
from admin.stats import bursts, counting, visitors
from admin.stats.bursts import Clicked
from admin.stats.carriers import Carriers
from admin.stats.classify import REPEAT_WITHIN_MS, SEVERAL_LINKS, VERSION, Carried, Class, Evidence, classify
from admin.stats.counting import Counting
from admin.stats.facts import Facts, facts_of
from admin.stats.networks import KINDS, network_kind
from admin.stats.places import Locate
from admin.stats.rows import REASON_NUMBERS, Row
from admin.stats.visitors import Day, Salts
from admin.stats.words import Words
from shared.addresses import Networks, is_in
from shared.clicks import Click

_SKEW_MS = 60_000
"""So far ahead of ours a clock may be; a click from a later time is stored as of now."""
_REMEMBERED = 50_000
_LOADED_S = 10 * REPEAT_WITHIN_MS / 1000


class Visits:
    """When visitors were last at a link, for as long as it matters. Key: the link and the visitor."""

    def __init__(self) -> None:
        # Two generations: to forget the oldest ones of a dict one by one takes longer the more of them are forgotten.
        self._last_ms: dict[tuple[int, int], int] = {}
        self._before_ms: dict[tuple[int, int], int] = {}

    def last_ms(self, who: tuple[int, int]) -> int | None:
        """When the visitor was there last, as far as is known."""
        last_ms = self._last_ms.get(who)
        return self._before_ms.get(who) if last_ms is None else last_ms

    def note(self, visits: Mapping[tuple[int, int], int]) -> None:
        """Remember visits that are stored."""
        self._last_ms.update(visits)
        if len(self._last_ms) > _REMEMBERED:
            self._before_ms, self._last_ms = self._last_ms, {}

    def forget(self, rows: Iterable[Row]) -> None:
        """Of visits that turned out to be none."""
        for row in rows:
            if row.visitor is not None:
                for known in (self._last_ms, self._before_ms):
                    known.pop((row.link_id, row.visitor), None)

    async def load(self, connection: Connection) -> None:
        """What was stored before this process began."""
        rows = await connection.fetch(
            """
            /* maker.load */
            select link_id, visitor, clicked_at from clicks
             where clicked_at > now() - make_interval(secs => $1) and class = $2 and visitor is not null
             order by clicked_at""",
            _LOADED_S,
            Class.HUMAN,
        )
        self._last_ms = {(row["link_id"], row["visitor"]): _ms(row["clicked_at"]) for row in rows}


class Made(NamedTuple):
    """What is made of clicks."""

    rows: list[Row]
    """In their order."""
    bursting: list[Clicked]
    """Those that are of a burst, of whatever class they are."""
    visits: dict[tuple[int, int], int]
    """When visitors were last at a link, by these clicks and all before."""


class Maker:
    """Makes rows. What it remembers is true of what is stored, if it is told of that (`visits`)."""

    def __init__(self, locate: Locate) -> None:
        self.visits = Visits()
        self._locate = locate
        self._carriers = Carriers()
        self._words = Words()
        self._salts = Salts()

    async def made(
        self, connection: Connection, clicks: Sequence[Click], click_ids: Sequence[str | None], now: datetime
    ) -> Made:
        """What is made of clicks. Not in a transaction."""
        wishes = await counting.of_many(connection, {click.organization_id for click in clicks})
        latest = now.timestamp() * 1000 + _SKEW_MS
        drafts = [_draft(click, wishes.get(click.organization_id, _DEFAULT), latest, now) for click in clicks]
        facts = [facts_of(click, self._locate) for click in clicks]
        texts = {*chain.from_iterable(facts), *(draft.agent for draft in drafts)}
        words = await self._words.numbers(connection, texts)
        salts = await self._salts.of(connection, {draft.day for draft in drafts if draft.day is not None}, now)
        carried = await self._carried(connection, clicks, drafts)
        lately: dict[tuple[int, int], int] = {}
        rows = [
            self._row(click, click_id, draft, some, message, words, salts, lately)
            for click, click_id, draft, some, message in zip(clicks, click_ids, drafts, facts, carried, strict=True)
        ]
        bursting = [
            Clicked(message[0], row.link_id, row.clicked_at)
            for row, message in zip(rows, carried, strict=True)
            if message is not None and message[1].links_at_once >= SEVERAL_LINKS
        ]
        return Made(rows, bursting, lately)

    async def _carried(
        self, connection: Connection, clicks: Sequence[Click], drafts: Sequence["_Draft"]
    ) -> list[tuple[int, Carried] | None]:
        """Of each click the message that carried its link, and what is known of that."""
        carriers = await self._carriers.of(connection, {click.link_id for click in clicks})
        if not carriers:
            return [None] * len(clicks)
        of_messages = [
            Clicked(carriers[click.link_id].message_id, click.link_id, draft.at)
            for click, draft in zip(clicks, drafts, strict=True)
            if click.link_id in carriers
        ]
        at_once = iter(await bursts.links_at_once(connection, of_messages))
        return [
            (carrier.message_id, carrier.judged(draft.at, next(at_once), draft.network))
            if (carrier := carriers.get(click.link_id))
            else None
            for click, draft in zip(clicks, drafts, strict=True)
        ]

    def _row(
        self,
        click: Click,
        click_id: str | None,
        draft: "_Draft",
        facts: Facts,
        carried: tuple[int, Carried] | None,
        words: Mapping[str, int],
        salts: Mapping[Day, bytes],
        lately: dict[tuple[int, int], int],
    ) -> Row:
        salt = salts.get(draft.day) if draft.day is not None else None
        visitor = visitors.visitor_of(salt, click.address, click.user_agent) if salt else None
        who, at_ms, last_ms = None, draft.at_ms, None
        if visitor is not None:
            who = click.link_id, visitor
            last_ms = lately.get(who) or self.visits.last_ms(who)
        since_ms = None if last_ms is None else at_ms - last_ms
        message_id, message = carried or (None, None)
        verdict = classify(
            Evidence(click.method, click.user_agent, click.is_prefetch, draft.is_internal, since_ms, message)
        )
        if who is not None and verdict.kind == Class.HUMAN:
            lately[who] = at_ms if last_ms is None else max(at_ms, last_ms)
        return Row(
            draft.at,
            click.link_id,
            click.organization_id,
            visitor,
            words[facts.location],
            words[facts.referrer],
            words[facts.platform],
            words[facts.language],
            words[facts.campaign],
            words[draft.agent],
            click.rule_id or None,
            click.variant_id or None,
            verdict.kind,
            REASON_NUMBERS[verdict.reason],
            VERSION,
            click.method == "HEAD",
            click.is_prefetch,
            draft.is_internal,
            click.is_use,
            click.is_scan,
            draft.address,
            click_id,
            message_id,
            _NETWORKS.get(draft.network),
        )


class _Draft(NamedTuple):
    """What an organization's wishes leave of a click."""

    at: datetime
    at_ms: int
    is_internal: bool
    day: Day | None
    """Whose salt the visitor is hashed with; None for whoever has none."""
    agent: str
    address: str | None
    network: str
    """One of `networks.KINDS`, or empty."""


_DEFAULT = Counting()
_NETWORKS = {kind: number for number, kind in enumerate(KINDS, start=1)}


def _draft(click: Click, wishes: Counting, latest_ms: float, now: datetime) -> _Draft:
    at_ms = click.at_ms if click.at_ms <= latest_ms else _ms(now)
    at = datetime.fromtimestamp(at_ms / 1000, UTC)
    is_internal = bool(wishes.internal) and _is_internal(click.address, wishes.internal_networks)
    if click.has_opted_out and wishes.heeds_opt_out:
        return _Draft(at, at_ms, is_internal, None, "", None, "")
    day = visitors.day_of(click.organization_id, at, wishes.time_zone) if click.address else None
    return _Draft(
        at,
        at_ms,
        is_internal,
        day,
        click.user_agent.replace("\0", "").replace("\t", " "),
        counting.kept_of(click.address, wishes.addresses),
        network_kind(click.address),
    )


@lru_cache(maxsize=16384)
def _is_internal(address: str, ranges: Networks) -> bool:
    return is_in(address, ranges)


def _ms(at: datetime) -> int:
    return int(at.timestamp() * 1000)
