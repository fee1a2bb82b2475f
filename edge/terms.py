"""Terms: visits of links that are not the same for everybody. A plain link never enters, and does not load this.

What becomes of a visit is said by shared/rules.py; here it is done: a page, a password, a use, a redirect.
"""

import asyncio
import time
from urllib.parse import parse_qsl

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from edge import pages, password
from edge.connection import MESSAGE_S
from edge.lookup import Lookup, Unavailable
from edge.segments import link_bytes
from edge.spool import Spool
from edge.tally import Tally
from edge.uses import Uses
from edge.visits import append, redirection
from shared.addresses import Networks, Proxies
from shared.click_ids import click_ids
from shared.entries import Entry, HostEntry
from shared.redis import Redis
from shared.rules import Decision, decide, used_up, with_query
from shared.visitor import PURPOSE_HEADERS, Visitor

# Kept here: connection.py sees that a request is being answered, and not that its answer waits for the rest of it. No
# other body is ever waited for.
_FORM_WITHIN_S = MESSAGE_S


class Terms:
    """Answers visits of links with terms."""

    def __init__(self, redis: Redis, lookup: Lookup, spool: Spool, tally: Tally, trusted_proxies: Networks) -> None:
        self._uses = Uses(redis, lookup)
        self._passwords = password.Passwords(redis)
        self._spool = spool
        self._tally = tally
        self._proxies = Proxies(trusted_proxies)
        _load()

    async def answer(self, request: Request, entry: Entry, host: HostEntry) -> Response:
        """The rest of the story of a visit. Raises `Unavailable`."""
        visitor = self._visitor(request)
        has_passed = password.is_remembered(entry, request.cookies.get(password.cookie_name(entry)))
        decision = decide(entry, visitor, has_password_passed=has_passed, host_expired=host.expired)
        is_use = self._is_use(request, entry, visitor, decision)
        if decision.is_open and not await self._has_room(entry, is_use=is_use):
            decision = used_up(entry, host_expired=host.expired)
        if decision.outcome == "password":
            return await self._ask(request, entry, visitor)
        if request.method == "POST":
            if entry.terms.password_hash:  # sent twice
                return pages.again(request.url.query)
            self._tally.refused += 1
            return pages.method_not_allowed()
        if decision.outcome == "preview":
            self._tally.asked += 1
            return pages.preview(entry.terms.preview)
        if decision.outcome == "redirect":
            return self._redirect(request, entry, visitor, decision, is_use=is_use)
        self._tally.gone += 1
        return pages.elsewhere(decision.destination) if decision.destination else pages.gone(decision.outcome)

    def _is_use(self, request: Request, entry: Entry, visitor: Visitor, decision: Decision) -> bool:
        """Whether the visit takes one of a limited number: not those of programs, which often come before people."""
        is_counted = entry.terms.click_limit is not None and decision.outcome == "redirect"
        return is_counted and request.method == "GET" and not visitor.is_automatic

    async def _has_room(self, entry: Entry, *, is_use: bool) -> bool:
        """Whether the click limit leaves room for a visit, which takes it then if it is a use."""
        limit = entry.terms.click_limit
        if limit is None:
            return True
        return await (self._uses.take if is_use else self._uses.is_left)(entry.link_id, limit)

    def _redirect(
        self, request: Request, entry: Entry, visitor: Visitor, decision: Decision, *, is_use: bool
    ) -> Response:
        terms = entry.terms
        own_id = ""
        if terms.click_id_key:
            own_id = click_ids(terms.click_id_key).seal(self._spool.id, self._spool.recorded)
        link = link_bytes(
            entry.link_id,
            entry.organization_id,
            rule_id=decision.rule_id,
            variant_id=decision.variant_id,
            is_use=is_use,
            has_id=bool(own_id),
        )
        is_recorded = append(self._spool, request, link)
        if is_use and not is_recorded:
            raise Unavailable  # nobody could count this use again, should Redis lose its count
        self._tally.redirected += 1
        destination = with_query(
            decision.destination,
            visitor.query,
            terms.query_policy,
            terms.click_id_parameter if own_id and is_recorded else "",
            own_id,
        )
        return redirection(entry, destination)

    async def _ask(self, request: Request, entry: Entry, visitor: Visitor) -> Response:
        """Ask for the password, or look at the one that was sent."""
        self._tally.asked += 1
        if request.method != "POST":
            return pages.password_form()
        try:
            async with asyncio.timeout(_FORM_WITHIN_S):
                guess = await _sent(request)
        except TimeoutError:
            return pages.too_slow()
        if guess is None:
            return pages.password_form(status=400)
        try:
            if not await self._passwords.is_right(entry, visitor.address, guess):
                return pages.password_form(status=403)
        except password.TooManyGuesses as error:
            return pages.too_many_guesses(error.retry_after_s)
        answer = pages.again(request.url.query)
        until_s = int(time.time()) + password.REMEMBERED_S
        path = request.scope["raw_path"].decode("latin-1")
        answer.set_cookie(
            password.cookie_name(entry),
            password.cookie_value(entry, until_s),
            max_age=password.REMEMBERED_S,
            path="/" if ";" in path else path,  # it would end there
            secure=request.headers.get("x-forwarded-proto") == "https",
            httponly=True,
            samesite="lax",
        )
        return answer

    def _visitor(self, request: Request) -> Visitor:
        headers = request.headers
        peer = request.client.host if request.client else ""
        forwarded_for = ",".join(headers.getlist("x-forwarded-for"))
        purposes = [value for name in PURPOSE_HEADERS for value in headers.getlist(name)]
        return Visitor(
            self._proxies.client_of(peer, forwarded_for),
            _text(headers.get("user-agent", "")),
            headers.get("accept-language", ""),
            _text(headers.get("referer", "")),
            request.scope["query_string"].decode("utf-8", "replace"),
            time.time_ns() // 1_000_000,
            purpose=",".join(purposes),
        )


def _load() -> None:
    """Have the lists that facts about visitors come from loaded before a visitor has to wait for them."""
    visitor = Visitor("192.0.2.1", "Mozilla/5.0", "", "", "", 0)
    assert visitor.device is not None
    assert visitor.country is not None


def _text(header: str) -> str:
    """As the click has it: starlette reads headers as Latin-1, agents send UTF-8."""
    return header.encode("latin-1").decode("utf-8", "replace")


async def _sent(request: Request) -> str | None:
    """The password that was sent with the form; None when it is no such form."""
    content = b""
    try:
        async for chunk in request.stream():
            content += chunk
            if len(content) > password.MAX_FORM:
                return None
    except ClientDisconnect:
        return None
    try:
        fields = dict(parse_qsl(content.decode("utf-8"), keep_blank_values=True, errors="strict", max_num_fields=5))
    except ValueError:
        return None
    return fields.get("password")
