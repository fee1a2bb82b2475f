"""Links as the API shows them, in the Linkkit dialect."""

from typing import Any

from starlette.requests import Request

from admin.http.answers import Answer, Instant, Meta, Wire
from admin.http.request_ids import request_id
from admin.links import drafts
from admin.links.links import Link


class LinkResource(Wire):
    """A link."""

    id: str
    title: str | None
    hostname: str
    path: str
    destination: str
    short_url: str
    created_at: Instant
    updated_at: Instant
    schema_version: str = "1.0"
    owner_id: str
    tags: list[str]
    folder: str | None
    notes: str | None
    external_id: str | None
    archived: bool
    disabled: bool
    reported_at: Instant | None
    """When the operator stopped it, who alone can let it lead again."""
    starts_at: Instant | None
    expires_at: Instant | None
    click_limit: int | None
    fallback_url: str | None
    has_password: bool
    redirect_status: int
    cache_seconds: int
    query_policy: str
    click_id_parameter: str | None
    rules: list[dict[str, Any]]
    variants: list[dict[str, Any]]
    preview: dict[str, str]
    utm: dict[str, str]
    robots: str | None
    is_public_stats: bool
    metadata: dict[str, Any]
    clicks: int
    """Stored so far, of every class."""
    limited_clicks: int
    """Of those, what the click limit has counted."""
    historic_clicks: int
    """From where the link was imported; in no other number."""
    destination_status: str
    """ok once the destination answered, dead when there has been nothing for some time, unchecked before either."""
    destination_checked_at: Instant | None


class DeletedResource(Wire):
    """What is left of a link."""

    id: str
    deleted: bool = True


class LinkMeta(Meta):
    """What is known about an answer with one link."""

    warnings: list[str]
    """What its owner should know; empty when there is nothing."""


class LinkAnswer(Answer[LinkResource]):
    """The envelope around one link."""

    meta: LinkMeta


def resource(request: Request, link: Link) -> LinkResource:
    """What is shown of a link."""
    same = {name: getattr(link, name) for name in LinkResource.model_fields if hasattr(link, name)}
    return LinkResource(
        **same
        | {
            "id": link.public_id,
            "short_url": request.app.state.settings.short_url(link.hostname, link.path),
            "has_password": link.password_hash is not None,
            "limited_clicks": link.uses,
        }
    )


def link_answer(request: Request, link: Link) -> LinkAnswer:
    """One link, with what its owner should know of it."""
    meta = LinkMeta(request_id=request_id(request), warnings=drafts.warnings(link))
    return LinkAnswer(data=resource(request, link), meta=meta)
