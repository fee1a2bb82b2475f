"""What the edge says when it does not redirect: small pages for people, with nothing in them that a visitor sent."""

from html import escape
from urllib.parse import urlsplit

from starlette.responses import HTMLResponse, Response

from shared.entries import Entry, Preview

_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="robots" content="noindex">
<title>{title}</title>
<style>
  body {{ font: 1.1rem/1.5 system-ui, sans-serif; display: grid; place-content: center; min-height: 90vh;
         margin: 0 1.5rem; text-align: center; color: #1f2937; background: #f9fafb; }}
  h1 {{ font-size: 1.6rem; margin: 0 0 .25rem; }}
  p {{ margin: 0; color: #6b7280; overflow-wrap: anywhere; }}
  form {{ margin-top: 1rem; display: flex; gap: .5rem; }}
  input, button {{ font: inherit; padding: .4rem .7rem; border: 1px solid #9ca3af; border-radius: .4rem; }}
  @media (prefers-color-scheme: dark) {{ body {{ color: #f3f4f6; background: #111827; }} p {{ color: #9ca3af; }} }}
</style>
<h1>{title}</h1>
<p>{text}</p>
{more}</html>
"""

NO_STORE = "private, no-store"


_FORM = """<form method="post">
<label for="password" hidden>Password</label>
<input id="password" name="password" type="password" autocomplete="current-password" required autofocus
  placeholder="Password">
<button>Open</button>
</form>
"""


def _page(status: int, title: str, text: str, more: str = "", **headers: str) -> Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return HTMLResponse(
        _PAGE.format(title=title, text=text, more=more),
        status_code=status,
        headers={"cache-control": NO_STORE, **named},
    )


def not_found() -> Response:
    """404: there is certainly no link at this address."""
    return _page(404, "There is no link here", "The address may be mistyped, or the link has been removed.")


def gone(outcome: str) -> Response:
    """410 for a link that is not there any more, or not yet (`shared.rules.OUTCOMES`); 404 would say it is none."""
    if outcome == "not_started":
        return _page(410, "This link is not open yet", "Please come back later.")
    return _page(410, "This link is closed", "Whoever made it has closed it, or it has expired.")


def elsewhere(destination: str) -> Response:
    """302 to where a host or a link sends those whom it can't lead on."""
    return Response(status_code=302, headers={"location": destination, "cache-control": NO_STORE})


def again(query: str) -> Response:
    """303 to the same address: the form has done its work."""
    return Response(status_code=303, headers={"location": f"?{query}", "cache-control": NO_STORE})


def password_form(status: int = 200) -> Response:
    """The form that asks for a link's password: again with 403 after a wrong one, with 400 after what is no form."""
    said = {
        200: "It asks for a password.",
        400: "The form did not arrive as it should. Please try again.",
        403: "This was not the password. Please try again.",
    }
    return _page(status, "This link is protected", said[status], _FORM, referrer_policy="no-referrer")


def too_many_guesses(retry_after_s: int) -> Response:
    """429: whoever guesses has to wait."""
    return _page(429, "Please wait a while", "Too many passwords were tried.", retry_after=str(retry_after_s))


def preview(shown: Preview) -> Response:
    """What the crawler of a social network makes its picture of (https://ogp.me)."""
    named = {"og:title": shown.title, "og:description": shown.description, "og:image": shown.image}
    lines = [f'<meta property="{name}" content="{escape(text)}">\n' for name, text in named.items() if text]
    return _page(200, escape(shown.title), escape(shown.description), "".join(lines))


def about(entry: Entry, now_ms: float) -> Response:
    """Where a link leads, for whoever wants to know before following it; no more than following it would tell."""
    terms = entry.terms
    if terms.starts_at_ms is not None and now_ms < terms.starts_at_ms:
        return gone("not_started")
    if terms.state or (terms.expires_at_ms is not None and now_ms >= terms.expires_at_ms):
        return gone("gone")
    if terms.click_limit is not None:
        return _page(
            200, "This link can be followed a limited number of times", "Where it leads is told to those who do."
        )
    if terms.password_hash:
        return _page(200, "This link is protected", "Where it leads is told to those who know its password.")
    destination = escape(entry.destination)
    host = escape(urlsplit(entry.destination).hostname or "")
    depends = "<p>Some visitors are sent elsewhere.</p>\n" if terms.rules or terms.variants else ""
    follow = f'<p><a rel="noreferrer nofollow" href="{destination}">Go there</a></p>\n'
    return _page(200, f"This link leads to {host}", destination, depends + follow)


def bad_request() -> Response:
    """400: the request is malformed or names no address (RFC 9112 §3.2 asks for it when Host is missing or invalid)."""
    return _page(
        400,
        "This request names no address",
        "It is malformed, or its Host header is no domain name.",
        connection="close",
    )


def method_not_allowed() -> Response:
    """405: links are followed with GET or HEAD."""
    return _page(405, "Links can only be followed", "This address answers GET and HEAD.", allow="GET, HEAD")


def unavailable() -> Response:
    """503: whether there is a link can't be known now."""
    return _page(503, "Please try again", "This link can't be looked up at the moment.", retry_after="1")


def too_slow() -> Response:
    """408: the request did not become complete in time."""
    return _page(408, "This took too long", "The request did not arrive completely in time.", connection="close")


def target_too_long() -> Response:
    """414: no address is as long as this one."""
    return _page(414, "This address is too long", "No link is as long as that.", connection="close")


def head_too_large() -> Response:
    """431: more headers than a browser sends."""
    return _page(431, "This request is too large", "Its headers are larger than this server reads.", connection="close")


def too_many_connections() -> Response:
    """503: there is no room for another connection."""
    return _page(
        503, "Please try again", "There are too many connections at the moment.", retry_after="1", connection="close"
    )
