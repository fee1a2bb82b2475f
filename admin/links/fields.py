"""The fields of a link as they are sent: what is accepted, what it becomes, and what is said when it is not."""

import re
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

import orjson
from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, ValidationInfo

from admin.http.fields import Change, Fields, Plain, documented, is_whole, plain
from admin.links.destinations import normal_destination
from admin.settings import AdminSettings
from shared.entries import STATUSES
from shared.links import MAX_PATH_LENGTH, is_reserved, normal_hostname, normal_path
from shared.rules import normal_when
from shared.visitor import BROWSERS, DEVICES, SYSTEMS
from shared.windows import DAYS

MAX_TITLE_LENGTH = 500
MAX_RULES = 50
NOT_LATER = "It must be later than startsAt."
ID_OF_A_RULE = "A rule has the id of one of them."
_MAX_METADATA = 16 * 1024
_LONGEST_CACHE_S = 365 * 24 * 3600
_NOT_IN_PATHS = {"?": "%3F", "#": "%23", "\\": "%5C"}


def normal_link_path(text: str) -> str:
    """The normal form of a path that a link may have; the slash at its begin may be missing. Raises ValueError.

    One at its end stays: the policy of the host says what it means.
    """
    if not text.startswith("/"):
        text = "/" + text
    plain(text)
    for character, escape in _NOT_IN_PATHS.items():
        if character in text:
            raise ValueError(f"A path must not contain {character}; write {escape} if it is meant.")
    path = normal_path(text.encode(), keeps_slash=True)
    if "%00" in path:
        raise ValueError("A path must not contain control characters.")
    if len(path) > MAX_PATH_LENGTH:
        raise ValueError(f"A path may have {MAX_PATH_LENGTH} characters.")
    if is_reserved(path):
        raise ValueError("This path is reserved on every host.")
    return path


def _hostname(text: str, info: ValidationInfo) -> str:
    hostname, settings = normal_hostname(text), info.context
    if isinstance(settings, AdminSettings) and hostname == settings.api_hostname != settings.default_hostname:
        raise ValueError("This is the hostname of the API.")
    return hostname


def _destination(text: str, info: ValidationInfo) -> str:
    settings = info.context
    is_inside = isinstance(settings, AdminSettings) and settings.private_destinations
    return normal_destination(text, may_be_private=is_inside)


def _moment(value: Any) -> Any:
    """An instant, to the millisecond, as answers tell it."""
    if not isinstance(value, str):
        return value
    try:
        at = datetime.fromisoformat(value)
        if at.tzinfo is None or not re.match("[0-9]{4}-[0-9]{2}-[0-9]{2}T", value):
            raise ValueError
        at = at.astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise ValueError("It must be an instant with its time zone, such as 2026-01-31T09:30:00Z.") from error
    return at.replace(microsecond=at.microsecond // 1000 * 1000)


def _tags(tags: list[str]) -> list[str]:
    return list(dict.fromkeys(tags))


def _when(when: dict[str, Any]) -> dict[str, list[Any]]:
    if not when:
        raise ValueError("A rule needs a condition; for everybody else there is the destination.")
    return normal_when(when)


def _metadata(metadata: dict[str, Any]) -> dict[str, Any]:
    if len(orjson.dumps(metadata)) > _MAX_METADATA:
        raise ValueError(f"It may have {_MAX_METADATA} bytes as JSON.")
    return metadata


def _ids_once(parts: list[Any]) -> list[Any]:
    ids = [part.id for part in parts if part.id is not None]
    if len(set(ids)) < len(ids):
        raise ValueError("An id is given twice.")
    return parts


def _weights(variants: list["VariantFields"]) -> list["VariantFields"]:
    if variants and not any(variant.weight for variant in variants):
        raise ValueError("One of the weights must be more than 0.")
    return variants


def _later(expires_at: datetime, info: ValidationInfo) -> datetime:
    # drafts.py says it, too, of what stays. Here it is told beside what is wrong with other fields.
    starts_at = info.data.get("starts_at")
    if starts_at and starts_at >= expires_at:
        raise ValueError(NOT_LATER)
    return expires_at


def _of_no_rule(variants: list["VariantFields"], info: ValidationInfo) -> list["VariantFields"]:
    ids = {rule.id for rule in info.data.get("rules", []) if rule.id is not None}
    if any(variant.id in ids for variant in variants):
        raise ValueError(ID_OF_A_RULE)
    return variants


def _status(status: int) -> int:
    if status not in STATUSES:
        raise ValueError(f"It must be one of: {', '.join(map(str, STATUSES))}.")
    return status


_MOMENT = "^[0-9]{4}-[0-9]{2}-[0-9]{2}T.*(Z|[+-][0-9]{2}:[0-9]{2})$"

Hostname = Annotated[str, AfterValidator(_hostname), documented(format="idn-hostname")]
Path = Annotated[str, AfterValidator(normal_link_path), documented(format="link-path")]
Destination = Annotated[str, AfterValidator(_destination), documented(format="uri", pattern="^[Hh][Tt][Tt][Pp]")]
Title = Annotated[Plain, Field(max_length=MAX_TITLE_LENGTH)]
Moment = Annotated[datetime, BeforeValidator(_moment), documented(format="date-time", pattern=_MOMENT)]
Tag = Annotated[Plain, Field(min_length=1, max_length=50)]
Short = Annotated[Plain, Field(min_length=1, max_length=200)]
Count = Annotated[int, Field(ge=0, le=2**53 - 1), is_whole]
PartId = Annotated[int, Field(ge=1, le=2**31 - 1), is_whole]
ParameterName = Annotated[str, Field(pattern="^[A-Za-z0-9_.-]{1,50}$")]
Metadata = Annotated[dict[str, Any], AfterValidator(_metadata)]


def _some(**value: Any) -> dict[str, Any]:
    """The schema of a value, or a list of values."""
    return {"anyOf": [value, {"type": "array", "items": value, "minItems": 1}]}


_WHEN = {
    "minProperties": 1,
    "additionalProperties": False,
    "properties": {
        "country": _some(type="string", pattern="^[A-Za-z]{2}$", examples=["BR"]),
        "device": _some(type="string", enum=list(DEVICES)),
        "os": _some(type="string", enum=list(SYSTEMS)),
        "browser": _some(type="string", enum=list(BROWSERS)),
        "language": _some(type="string", examples=["pt", "pt-BR"]),
        "query": _some(type="string", examples=["source=letter"]),
        "referrer": _some(type="string", examples=["news.example.com", "direct"]),
        "address": _some(type="string", examples=["192.0.2.0/24"]),
        "time": _some(
            type="object",
            minProperties=1,
            additionalProperties=False,
            properties={
                "from": {"type": "string", "examples": ["09:00"]},
                "until": {"type": "string", "examples": ["17:00"]},
                "days": {"type": "array", "items": {"type": "string", "enum": list(DAYS)}},
                "zone": {"type": "string", "examples": ["Europe/Berlin"]},
                "after": {"type": "string", "format": "date-time"},
                "before": {"type": "string", "format": "date-time"},
            },
        ),
    },
}
"""What a rule can ask (shared/conditions.py), as JSON schema."""


class RuleFields(Fields):
    """One rule: who meets every condition goes there. `id` keeps the rule's clicks together when it is sent again."""

    when: Annotated[dict[str, Any], AfterValidator(_when), documented(**_WHEN)]
    destination: Destination
    id: PartId | None = None


class VariantFields(Fields):
    """One of the destinations between which visitors are divided, by weight."""

    destination: Destination
    weight: Annotated[int, Field(ge=0, le=1000), is_whole] = 1
    id: PartId | None = None


class PreviewFields(Fields):
    """What social networks and messengers show of the link."""

    model_config = ConfigDict(frozen=True)  # or pydantic copies the default for each link

    title: Annotated[Plain, Field(max_length=300)] | None = None
    description: Annotated[Plain, Field(max_length=1000)] | None = None
    image: Destination | None = None


class UtmFields(Fields):
    """What the destination's `utm_` parameters are set to."""

    model_config = ConfigDict(frozen=True)

    source: Short | None = None
    medium: Short | None = None
    campaign: Short | None = None
    term: Short | None = None
    content: Short | None = None


Rules = Annotated[list[RuleFields], Field(max_length=MAX_RULES), AfterValidator(_ids_once)]
Variants = Annotated[
    list[VariantFields],
    Field(max_length=MAX_RULES),
    AfterValidator(_ids_once),
    AfterValidator(_weights),
    AfterValidator(_of_no_rule),
]
RedirectStatus = Annotated[int, is_whole, AfterValidator(_status), documented(enum=list(STATUSES))]
QueryPolicy = Literal["none", "append", "override"]
Robots = Literal["noindex", "nofollow", "noindex, nofollow"]


class NewLink(Fields):
    """What POST takes."""

    destination: Destination
    hostname: Hostname | None = None
    path: Path | None = None
    title: Title | None = None
    tags: Annotated[list[Tag], Field(max_length=50), AfterValidator(_tags)] = []
    folder: Short | None = None
    notes: Annotated[str, Field(max_length=5000)] | None = None
    external_id: Short | None = None
    archived: bool = False
    disabled: bool = False
    starts_at: Moment | None = None
    expires_at: Annotated[Moment, AfterValidator(_later)] | None = None
    click_limit: Count | None = None
    fallback_url: Destination | None = None
    password: Annotated[Plain, Field(min_length=1, max_length=200)] | None = None
    redirect_status: RedirectStatus = 302
    cache_seconds: Annotated[int, Field(ge=0, le=_LONGEST_CACHE_S), is_whole] = 0
    query_policy: QueryPolicy = "none"
    click_id_parameter: ParameterName | None = None
    rules: Rules = []
    variants: Variants = []
    preview: PreviewFields = PreviewFields()
    utm: UtmFields = UtmFields()
    robots: Robots | None = None
    is_public_stats: bool = False
    metadata: Metadata = {}


class LinkChange(Change, NewLink):
    """What PUT takes: fields that are not sent stay as they are. null takes away what a link can be without."""

    destination: Destination = ""
    hostname: Hostname = ""
    path: Path = ""
