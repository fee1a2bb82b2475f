"""Experiments: which variant of a link leads to more outcomes.

Weights decide how clicks split, so clicks prove nothing. An outcome is a conversion of a click, at most one of each; or
that a visitor of the variant goes on to another link, the goal, on the same day of the organization.

Rules of this file:

1. Only clicks of people count. They are read as rows, because two facts are asked for at once.
2. Conversions are counted by click. Those of a repeat belong to the human click that it repeats: the last one before,
   or the next one if the repeat was stored late, less than `REPEAT_WITHIN_MS` away. Without one they count nowhere.
   Goals are counted by visitor of a day, whoever clicks twice being one; who has no visitor (admin/stats/visitors.py)
   is in `clicks` and in no rate.
3. Where rules send visitors is no variant's.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from admin.database import Connection
from admin.stats.classify import REPEAT_WITHIN_MS, Class
from admin.stats.rates import Interval, Rate, difference, too_early

_LONGEST_DAY = timedelta(hours=25)
_REPEAT_WITHIN = timedelta(milliseconds=REPEAT_WITHIN_MS)


class Counted(NamedTuple):
    """What is counted of a variant."""

    clicks: int
    visitors: int
    """Of days, summed."""
    outcomes: int


class Compared(NamedTuple):
    """A variant and how it does."""

    variant_id: int
    counted: Counted
    rate: Rate
    difference: Interval | None
    """Against the first; None for the first itself, and while it is too early."""
    too_early: str | None
    """Why there is no difference yet."""


class Span(NamedTuple):
    """Which clicks are looked at: those of an organization's link, from `begin` on, before `end`."""

    organization_id: int
    link_id: int
    begin: datetime
    end: datetime


async def by_conversion(connection: Connection, span: Span, name: str) -> dict[int, Counted]:
    """By variant, how many clicks, or repeats of them, were followed by a conversion of this name, whenever."""
    # Rows have no id: a click is known by where it lies. `human` is for the planner, which takes a join by visitor and
    # time for a large one. It costs another look at the link's clicks, but only when repeats were converted.
    rows = await connection.fetch(
        """
        /* experiments.by_conversion */
        with converted as (
            select distinct click_id from conversions
             where organization_id = $1 and link_id = $2 and name = $7
               and clicked_at >= $3::timestamptz - $8::interval and clicked_at < $4::timestamptz + $8::interval),
             seen as not materialized (
            select tableoid as part, ctid as place, class, visitor, variant_id, clicked_at, click_id from clicks
             where organization_id = $1 and link_id = $2
               and clicked_at >= $3::timestamptz - $8::interval and clicked_at < $4::timestamptz + $8::interval),
             again as materialized (
            select click_id, visitor, clicked_at from seen join converted using (click_id) where class = $6),
             human as materialized (
            select part, place, visitor, clicked_at from seen
             where class = $5 and visitor in (select visitor from again)),
             repeated as (
            select distinct on (again.click_id) part, place
              from again join human using (visitor)
             where human.clicked_at > again.clicked_at - $8::interval
               and human.clicked_at < again.clicked_at + $8::interval
             order by again.click_id, human.clicked_at > again.clicked_at,
                      abs(extract(epoch from human.clicked_at - again.clicked_at)))
        select variant_id, count(*) as clicks, count(distinct visitor) as visitors,
               count(*) filter (where converted.click_id is not null or repeat.place is not null) as outcomes
          from seen
               left join converted using (click_id)
               left join (select distinct part, place from repeated) as repeat using (part, place)
         where class = $5 and variant_id is not null and clicked_at >= $3 and clicked_at < $4
         group by variant_id""",
        *span,
        Class.HUMAN,
        Class.REPEAT,
        name,
        _REPEAT_WITHIN,
    )
    return _by_variant(rows)


async def by_goal(connection: Connection, span: Span, goal_id: int) -> dict[int, Counted]:
    """By variant, how many visitors have clicked the goal after it."""
    # A visitor is a hash that lasts for a day: whoever is the same has come on the same day.
    rows = await connection.fetch(
        """
        /* experiments.by_goal */
        select variant_id, sum(clicks)::bigint as clicks, count(visitor) as visitors,
               count(*) filter (where last_at > first_at) as outcomes
          from (select variant_id, visitor, count(*) as clicks, min(clicked_at) as first_at from clicks
                 where organization_id = $1 and link_id = $2 and clicked_at >= $3 and clicked_at < $4 and class = $5
                   and variant_id is not null
                 group by variant_id, visitor) as seen
               left join (
                select visitor, max(clicked_at) as last_at from clicks
                 where organization_id = $1 and link_id = $6 and clicked_at >= $3 and clicked_at < $4 + $7::interval
                   and class = $5 and visitor is not null
                 group by visitor) as reached using (visitor)
         group by variant_id""",
        *span,
        Class.HUMAN,
        goal_id,
        _LONGEST_DAY,
    )
    return _by_variant(rows)


def compared(variants: Sequence[int], counted: dict[int, Counted], *, is_by_visitor: bool) -> list[Compared]:
    """These variants, each against the first of them, and behind them those that are not there any more."""
    every = [*variants, *sorted(counted.keys() - set(variants))]
    rates = {id_: _rate(counted.get(id_, _NOTHING), is_by_visitor) for id_ in every}
    return [_compared(id_, counted.get(id_, _NOTHING), rates[id_], rates[every[0]], id_ == every[0]) for id_ in every]


def too_early_for_all(variants: Mapping[int, Mapping[str, Any]], found: Sequence[Compared]) -> str | None:
    """Why nothing should be concluded yet, judged by those variants of the link that visitors are sent to."""
    sent_to = [one for one in found if one.variant_id in variants and variants[one.variant_id]["weight"]]
    if len(sent_to) < 2:
        return "The link sends visitors to fewer than two variants."
    return next((one.too_early for one in sent_to if one.too_early), None)


_NOTHING = Counted(0, 0, 0)


def _compared(variant_id: int, counted: Counted, rate: Rate, first: Rate, is_first: bool) -> Compared:
    why_not = None if is_first else too_early(rate, first)
    apart = None if is_first or why_not else difference(rate, first)
    return Compared(variant_id, counted, rate, apart, why_not)


def _rate(counted: Counted, is_by_visitor: bool) -> Rate:
    return Rate(counted.outcomes, counted.visitors if is_by_visitor else counted.clicks)


def _by_variant(rows: Sequence[Any]) -> dict[int, Counted]:
    return {row["variant_id"]: Counted(row["clicks"], row["visitors"], row["outcomes"]) for row in rows}
