"""What every host is asked for beside its links: its root, and what robots, browsers and apps look for."""

from starlette.responses import PlainTextResponse, Response

from edge import pages
from shared.entries import HostEntry
from shared.links import PROOF_PATH

_HOUR = "public, max-age=3600"


def answer(host: HostEntry, path: str) -> Response | None:
    """What the host has at a reserved path; None if it has nothing there."""
    documents = {
        "/.well-known/apple-app-site-association": host.apple_app_site_association,
        "/.well-known/assetlinks.json": host.assetlinks,
    }
    if document := documents.get(path):
        return Response(document, media_type="application/json", headers={"cache-control": _HOUR})
    texts = {"/robots.txt": host.robots_txt, PROOF_PATH: host.proof}
    if text := texts.get(path):
        return PlainTextResponse(text, headers={"cache-control": "no-store" if path == PROOF_PATH else _HOUR})
    destinations = {"/": host.root, "/favicon.ico": host.favicon}
    if destination := destinations.get(path):
        return pages.elsewhere(destination)
    return None
