"""What the edge says when it does not redirect: small pages for people, with nothing in them that a visitor sent."""

from starlette.responses import HTMLResponse, Response

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
  p {{ margin: 0; color: #6b7280; }}
  @media (prefers-color-scheme: dark) {{ body {{ color: #f3f4f6; background: #111827; }} p {{ color: #9ca3af; }} }}
</style>
<h1>{title}</h1>
<p>{text}</p>
</html>
"""

NO_STORE = "private, no-store"


def _page(status: int, title: str, text: str, **headers: str) -> Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return HTMLResponse(
        _PAGE.format(title=title, text=text), status_code=status, headers={"cache-control": NO_STORE, **named}
    )


def not_found() -> Response:
    """404: there is certainly no link at this address."""
    return _page(404, "There is no link here", "The address may be mistyped, or the link has been removed.")


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
