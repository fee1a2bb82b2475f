"""What people see whom an app has sent here: they log in, they decide, or it can't go on.

The button that Enter presses is the first one in the markup, so it is the one that goes on; people see it last.
"""

from collections.abc import Mapping
from http import HTTPStatus
from typing import NamedTuple

import jinja2
from starlette.responses import HTMLResponse, Response

from admin.errors import ApiError
from admin.http import ids
from admin.identity.organizations import Organization

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; frame-ancestors 'none'",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
_MAX_EMAIL = 254  # RFC 5321 §4.5.3.1.3
_BUSY = (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE)
_templates = jinja2.Environment(
    autoescape=True, undefined=jinja2.StrictUndefined, loader=jinja2.PackageLoader("admin.identity.oauth", ".")
)


class Question(NamedTuple):
    """Whether an app may act for a person."""

    app: str
    """Its name."""
    organization: str
    """The name of the organization that has registered it."""
    scopes: list[str]
    target: str
    """Where the person is sent with the answer."""
    fields: dict[str, str]
    """What each form sends again."""


def log_in(question: Question, error: ApiError | None = None, email: str = "") -> Response:
    """Who are you? `error` says why it is asked again, and `email` is what was typed then."""
    return _page(
        "log_in.html",
        error.status if error else HTTPStatus.OK,
        **question._asdict(),
        problem=str(error) if error else "",
        email=email if len(email) <= _MAX_EMAIL else "",
    )


def consent(question: Question, email: str, organizations: list[Organization], ticket: str) -> Response:
    """May it? And for which of your organizations?"""
    choices = [(ids.shown("org", one.public_id), one.name) for one in organizations]
    return _page("consent.html", **question._asdict(), email=email, organizations=choices, ticket=ticket)


def denied(question: Question, back: str) -> Response:
    """The person has said no; the app learns it when they go back."""
    sentence = f"{question.app} may not act for you."
    return _stopped("You have said no", sentence, HTTPStatus.OK, question.app, back)


def refused(sentence: str, *, app: str = "", code: str = "", back: str = "") -> Response:
    """What the app asks for can't be answered. Without `back` it is not known where the app is.

    Nobody is sent on by themselves before they have logged in: anybody can register an app (RFC 9700 §4.11.2).
    """
    if not back:
        sentence += " You were sent here by an app; it must be put right there."
    return _stopped("This can’t go on", sentence, HTTPStatus.BAD_REQUEST, app, back, code=code)


def failed(error: ApiError) -> Response:
    """Something came between; the person may try again."""
    heading = "Not now" if error.status in _BUSY else "This can’t go on"
    return _stopped(heading, str(error), error.status, headers=error.headers)


def _stopped(
    heading: str,
    sentence: str,
    status: int,
    app: str = "",
    back: str = "",
    *,
    code: str = "",
    headers: Mapping[str, str] | None = None,
) -> Response:
    answer = _page("stopped.html", status, heading=heading, sentence=sentence, app=app, back=back, code=code)
    answer.headers.update(headers or {})
    return answer


def _page(template: str, status: int = HTTPStatus.OK, **facts: object) -> Response:
    return HTMLResponse(_templates.get_template(template).render(**facts), status, HEADERS)
