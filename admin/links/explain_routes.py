"""Explaining: where a link would lead a visitor, and why, by the same rules as the edge."""

import time
from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Depends
from pydantic import Field
from starlette.requests import Request

from admin import errors
from admin.database import transaction
from admin.http.answers import Answer, Wire, answer, documented
from admin.http.bodies import body_of, documented_body
from admin.http.fields import Fields, Plain
from admin.http.idempotency import Once
from admin.identity.principal import LinkReader
from admin.links import domains, links
from admin.links.entries import entry_of_link
from admin.links.fields import Moment
from shared.entries import HostEntry
from shared.rules import Decision, decide, explained, used_up, with_query
from shared.visitor import Visitor

router = APIRouter(tags=["Links"], responses=documented(*errors.OF_EVERY_CALLER))

Text = Annotated[Plain, Field(max_length=2048)]


class Supposed(Fields):
    """A visit that is thought of. What is left out is as if the visitor had not sent it; the time is now."""

    user_agent: Text = ""
    ip: Annotated[str, Field(max_length=45)] = ""
    country: Annotated[str, Field(pattern="^[A-Za-z]{2}$")] | None = None
    """Instead of that of the address."""
    language: Text = ""
    """As in Accept-Language."""
    referrer: Text = ""
    purpose: Text = ""
    """As in Sec-Purpose."""
    query: Text = ""
    """Without the question mark."""
    time: Moment | None = None
    knows_password: bool = False


class FactsResource(Wire):
    """What the rules see of the visitor."""

    country: str
    device: str
    os: str
    browser: str
    languages: list[str]
    referrer_host: str
    is_automatic: bool


class ExplanationResource(Wire):
    """Where a visitor goes, and why."""

    outcome: str
    """redirect, preview, password, not_started or gone."""
    reason: str
    destination: str | None
    """Where the visitor goes; null for nowhere."""
    rule_id: int | None
    variant_id: int | None
    steps: list[str]
    """The same, step by step, as sentences."""
    visitor: FactsResource


@router.post(
    "/links/{link_id}/explain",
    summary="Explain where a link leads a visitor",
    status_code=200,
    responses=documented(errors.NotFound, *errors.OF_EVERY_POST),
    openapi_extra=documented_body(Supposed),
)
async def explain_link(
    request: Request,
    caller: LinkReader,
    once: Once,
    link_id: str,
    supposed: Annotated[Supposed, Depends(body_of(Supposed))],
) -> Answer[ExplanationResource]:
    """By the rules of the edge. Nothing is counted; a click limit is taken as used as often as is stored."""
    visitor = _visitor(supposed)
    async with transaction(request.app.state.pool) as connection:
        link = await links.get(connection, caller.organization_id, link_id)
        hosts = await domains.host_entries(connection, [link.hostname])
        host_expired = hosts.get(link.hostname, HostEntry()).expired
        entry = entry_of_link(link)
        decision = decide(entry, visitor, has_password_passed=supposed.knows_password, host_expired=host_expired)
        is_used_up = link.click_limit is not None and link.uses >= link.click_limit
        if decision.is_open and is_used_up:
            decision = used_up(entry, host_expired=host_expired)
        explanation = ExplanationResource(
            outcome=decision.outcome,
            reason=decision.reason,
            destination=_destination(decision, visitor, entry.terms.query_policy) or None,
            rule_id=decision.rule_id or None,
            variant_id=decision.variant_id or None,
            steps=list(explained(entry, visitor, decision)),
            visitor=FactsResource(**{name: getattr(visitor, name) for name in FactsResource.model_fields}),
        )
        explained_answer = answer(request, explanation)
        await once.keep(connection, explained_answer, 200)
    return explained_answer


def _visitor(supposed: Supposed) -> Visitor:
    at_ms = time.time_ns() // 1_000_000 if supposed.time is None else _milliseconds(supposed.time)
    return Visitor(
        supposed.ip,
        supposed.user_agent,
        supposed.language,
        supposed.referrer,
        supposed.query,
        at_ms,
        purpose=supposed.purpose,
        country=supposed.country,
    )


def _milliseconds(at: datetime) -> int:
    return round(at.timestamp() * 1000)


def _destination(decision: Decision, visitor: Visitor, policy: str) -> str:
    if decision.outcome != "redirect":
        return decision.destination
    return with_query(decision.destination, visitor.query, policy)
