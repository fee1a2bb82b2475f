"""The routes of conversions, and of what they say of a link's variants."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, NamedTuple

from fastapi import APIRouter, Depends
from starlette.requests import Request

from admin import errors
from admin.database import Connection, transaction
from admin.errors import ClicksNotKept, Invalid, NotFound
from admin.http import ids
from admin.http.answers import (
    Answer,
    Instant,
    Resource,
    ResourceAnswer,
    ResourceListAnswer,
    Wire,
    answer,
    documented,
    resource_answer,
    resource_list_answer,
)
from admin.http.bodies import body_of, documented_body
from admin.http.idempotency import Once
from admin.http.lists import Sent, Values, since, until
from admin.identity import audit
from admin.identity.principal import LinkWriter, StatsReader
from admin.links import links
from admin.links.links import Link
from admin.stats import conversions, experiments, retention
from admin.stats.answering import moment
from admin.stats.conversion_fields import NewConversion
from admin.stats.conversions import Conversion
from admin.stats.experiments import Compared, Span
from admin.stats.rates import CONFIDENCE, Interval

router = APIRouter(tags=["Conversions"], responses=documented(*errors.OF_EVERY_CALLER))

_USUAL_SPAN = timedelta(days=90)
_LONGEST_SPAN = timedelta(days=366)
_MAX_GOAL = 200


class ConversionAttributes(Wire):
    """A conversion as the API shows it."""

    click_id: str
    name: str
    value: float | None
    currency: str | None
    external_id: str | None
    status: str
    """pending while it waits for its click, then matched or unmatched."""
    link_id: str | None
    variant_id: int | None
    clicked_at: Instant | None
    created_at: Instant


def _resource(conversion: Conversion) -> Resource[ConversionAttributes]:
    return Resource(
        id=ids.shown("conv", conversion.public_id),
        type="conversion",
        attributes=ConversionAttributes(
            click_id=conversion.click_id,
            name=conversion.name,
            value=None if conversion.value is None else float(conversion.value),
            currency=conversion.currency,
            external_id=conversion.external_id,
            status=conversion.status,
            link_id=conversion.link,
            variant_id=conversion.variant_id,
            clicked_at=conversion.clicked_at,
            created_at=conversion.created_at,
        ),
    )


@router.post(
    "/conversions",
    status_code=201,
    summary="Record a conversion",
    responses=documented(*errors.OF_EVERY_POST, errors.NotFound, errors.AlreadyExists),
    openapi_extra=documented_body(NewConversion),
)
async def create_conversion(
    request: Request, caller: LinkWriter, once: Once, new: Annotated[NewConversion, Depends(body_of(NewConversion))]
) -> ResourceAnswer[ConversionAttributes]:
    """It may come before its click is stored, and is `pending` then for up to an hour.

    Sent again with the same `externalId` it is the one that is there already.
    """
    told = new.told()
    async with transaction(request.app.state.pool) as connection:
        conversion, is_new = await conversions.record(connection, caller.organization_id, told)
        made = resource_answer(request, _resource(conversion))
        if is_new:
            await audit.record(connection, caller, "conversion.created", made.data.id, name=conversion.name)
        await once.keep(connection, made)
    return made


@router.get(
    "/conversions",
    summary="List conversions",
    responses=documented(errors.Invalid),
    openapi_extra={"parameters": conversions.LISTING.parameters},
)
async def list_conversions(request: Request, caller: StatsReader) -> ResourceListAnswer[ConversionAttributes]:
    """Those of the organization."""
    asked = conversions.LISTING.asked(request.query_params.multi_items())
    async with transaction(request.app.state.pool) as connection:
        found = await conversions.page_of(connection, caller.organization_id, asked)
    return resource_list_answer(request, [_resource(Conversion(**row)) for row in found.rows], found)


class Goal(Wire):
    """What counts as an outcome: a conversion of this name, or a visit of this link on the same day."""

    conversion: str | None
    link_id: str | None


class Difference(Wire):
    """How much higher the rate is than that of the first variant, and between which values that is in truth."""

    value: float
    low: float
    high: float


class VariantResult(Wire):
    """How a variant does."""

    variant_id: int
    destination: str | None
    """null for one that the link has no longer."""
    weight: int | None
    clicks: int
    """Of people."""
    visitors: int
    """Of days, summed."""
    outcomes: int
    rate: float | None
    """Outcomes of each click, or of each visitor (`rateOf`)."""
    difference: Difference | None
    """null for the first variant, and for one that can't be compared yet."""


class Experiment(Wire):
    """How the variants of a link do, by outcome."""

    goal: Goal
    start_date: Instant
    end_date: Instant
    """Clicks before it."""
    rate_of: str
    """clicks for conversions, visitors for a goal link."""
    confidence: float
    is_too_early: bool
    """There is a variant that nobody should compare with the first yet."""
    reason: str | None
    """Why it is too early."""
    variants: list[VariantResult]


def _goal(sent: str) -> str:
    if not 1 <= len(sent) <= _MAX_GOAL:
        raise ValueError(f"It must be the name of a conversion or the id of a link, of up to {_MAX_GOAL} characters.")
    return sent


_PARAMETERS: Mapping[str, tuple[Values, str]] = {
    "goal": (
        Values(_goal, {"type": "string", "minLength": 1, "maxLength": _MAX_GOAL}),
        "The name of a conversion, or the id of the link that visitors go on to.",
    ),
    "startDate": (since("").values, "Clicks not before this day or instant; 90 days before the end unless given."),
    "endDate": (until("").values, "Clicks not after this day or instant; until now unless given."),
}


class _Asked(NamedTuple):
    goal: str
    begin: datetime
    end: datetime


def _asked(pairs: list[tuple[str, str]], kept_since: datetime | None) -> _Asked:
    """Unless it says more, of what is kept. Raises `Invalid`, `ClicksNotKept`."""
    sent = Sent(pairs, _PARAMETERS)
    goal, begin, end = (sent.read(name, values.read) for name, (values, _) in _PARAMETERS.items())
    if "goal" not in sent:
        sent.wrong["goal"] = "It is required."
    end = end or datetime.now(UTC)
    if begin and begin >= end:
        sent.refuse("startDate", "It must be before the end.")
    if begin and end - begin > _LONGEST_SPAN:
        sent.refuse("startDate", f"It must be at most {_LONGEST_SPAN.days} days before the end.")
    sent.check()
    if kept_since and (end <= kept_since or (begin and begin < kept_since)):
        raise ClicksNotKept
    begin = begin or end - min(_USUAL_SPAN, end - (kept_since or datetime.min.replace(tzinfo=UTC)))
    return _Asked(goal, begin, end)


@router.get(
    "/links/{link_id}/experiment",
    summary="Compare a link's variants by outcome",
    responses=documented(errors.Invalid, errors.NotFound, errors.QueryTooLarge, errors.ClicksNotKept),
    openapi_extra={
        "parameters": [
            {"name": name, "in": "query", "required": name == "goal", "description": words, "schema": values.schema}
            for name, (values, words) in _PARAMETERS.items()
        ]
    },
)
async def show_experiment(request: Request, caller: StatsReader, link_id: str) -> Answer[Experiment]:
    """Each variant against the first, with the 95 % confidence interval of the difference of their rates.

    `goal` is a link of the organization if one has that id, and otherwise the name of a conversion.
    """
    async with moment(request.app.state.pool) as connection:
        link = await links.get(connection, caller.organization_id, link_id)
        kept_since = await retention.folded_until(connection, caller.organization_id)
        asked = _asked(request.query_params.multi_items(), kept_since)
        goal = await _goal_link(connection, link, asked.goal)
        span = Span(caller.organization_id, link.id, asked.begin, asked.end)
        if goal is None:
            counted = await experiments.by_conversion(connection, span, asked.goal)
        else:
            counted = await experiments.by_goal(connection, span, goal.id)
    parts = {part["id"]: part for part in link.variants}
    found = experiments.compared(list(parts), counted, is_by_visitor=goal is not None)
    reason = experiments.too_early_for_all(parts, found)
    return answer(
        request,
        Experiment(
            goal=Goal(conversion=None if goal else asked.goal, link_id=goal and goal.public_id),
            start_date=asked.begin,
            end_date=asked.end,
            rate_of="visitors" if goal else "clicks",
            confidence=CONFIDENCE,
            is_too_early=reason is not None,
            reason=reason,
            variants=[_variant(one, parts.get(one.variant_id)) for one in found],
        ),
    )


async def _goal_link(connection: Connection, link: Link, goal: str) -> Link | None:
    """The link that is the goal, if it is one. Raises `Invalid` for the link itself."""
    try:
        found = await links.get(connection, link.organization_id, goal)
    except NotFound:
        return None
    if found.id == link.id:
        raise Invalid.of("goal", "It must be another link than the one whose variants are compared.")
    return found


def _variant(one: Compared, part: Mapping[str, Any] | None) -> VariantResult:
    return VariantResult(
        variant_id=one.variant_id,
        destination=part["destination"] if part else None,
        weight=part["weight"] if part else None,
        **one.counted._asdict(),
        rate=one.rate.share,
        difference=_difference(one.difference),
    )


def _difference(interval: Interval | None) -> Difference | None:
    return interval and Difference(**interval._asdict())
