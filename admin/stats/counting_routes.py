"""The routes of how an organization wants its clicks counted, and of what anybody may see of a link."""

from datetime import UTC, datetime, timedelta
from ipaddress import IPv6Network, ip_network
from typing import Annotated, Literal
from zoneinfo import ZoneInfo

from fastapi import APIRouter, Depends
from pydantic import AfterValidator, Field
from starlette.requests import Request

from admin import errors
from admin.database import Connection, snapshot, transaction
from admin.errors import NotFound
from admin.http import ids
from admin.http.answers import Answer, Instant, Wire, answer, documented
from admin.http.bodies import body_of, documented_body
from admin.http.fields import Change, is_whole
from admin.http.limits import Limit
from admin.http.lists import Sent
from admin.http.request_ids import client
from admin.identity import audit
from admin.identity.people import gate_of
from admin.identity.principal import Administrator, StatsReader
from admin.links import domains
from admin.links.fields import normal_link_path
from admin.stats import counting, questions
from admin.stats.answering import moment
from admin.stats.asked import DEFAULT_DAYS
from admin.stats.counting import Counting
from admin.stats.intervals import begin_of_day, bounds
from admin.stats.source import FACTS, Question
from shared.entries import HostEntry
from shared.links import Address, normal_hostname, path_under
from shared.windows import zone_name

_SHORTEST_DAYS, _LONGEST_DAYS = 7, 36_500
_MAX_RANGES = 100
_MOST_COUNTRIES = 10
_LOOKS = (Limit(60, 60),)
"""At public counts, from one address."""

router = APIRouter(tags=["Stats"])


def _network(text: str) -> str:
    """As addresses are compared with it: none has a scope, and IPv4 is told as IPv4."""
    try:
        network = ip_network("" if "%" in text else text.strip(), strict=False)
    except ValueError as error:
        raise ValueError("It must be an address or a range, such as 192.0.2.0/24 or 2001:db8::/32.") from error
    mapped = network.network_address.ipv4_mapped if isinstance(network, IPv6Network) else None
    return str(network if mapped is None else ip_network(f"{mapped}/{network.prefixlen - 96}"))


class CountingChange(Change):
    """What may be changed of how clicks are counted; what is not sent stays as it is."""

    timezone: Annotated[str, AfterValidator(zone_name)] = "UTC"
    addresses: Literal["none", "truncated", "full"] = "none"
    heeds_opt_out: bool = False
    internal: Annotated[list[Annotated[str, AfterValidator(_network)]], Field(max_length=_MAX_RANGES)] = []
    kept_days: Annotated[int, Field(ge=_SHORTEST_DAYS, le=_LONGEST_DAYS), is_whole] | None = None


class CountingResource(Wire):
    """How the clicks of an organization are counted, and what is kept of whoever clicked."""

    timezone: str
    """Whose days visitors are counted by."""
    addresses: str
    """What is stored of them: none, truncated or full."""
    heeds_opt_out: bool
    """Whether who sends Sec-GPC or DNT is counted without visitor, address and agent."""
    internal: list[str]
    """Addresses and ranges of its own people."""
    kept_days: int | None
    """How long single clicks are kept; null for ever."""


@router.get("/stats/settings", summary="See how clicks are counted", responses=documented(*errors.OF_EVERY_CALLER))
async def show_counting(request: Request, caller: StatsReader) -> Answer[CountingResource]:
    """Until something is changed, in UTC and without any address."""
    async with snapshot(request.app.state.pool) as connection:
        wishes = await counting.of(connection, caller.organization_id)
    return answer(request, _shown(wishes))


@router.patch(
    "/stats/settings",
    summary="Change how clicks are counted",
    responses=documented(*errors.OF_EVERY_CALLER, errors.PayloadTooLarge),
    openapi_extra=documented_body(CountingChange),
)
async def change_counting(
    request: Request, caller: Administrator, change: Annotated[CountingChange, Depends(body_of(CountingChange))]
) -> Answer[CountingResource]:
    """From now on: what is stored stays as it is."""
    sent = change.model_dump(include=change.model_fields_set)
    fields = {"time_zone" if name == "timezone" else name: value for name, value in sent.items()}
    if "internal" in fields:
        fields["internal"] = ",".join(dict.fromkeys(fields["internal"]))
    async with transaction(request.app.state.pool) as connection:
        wishes = await counting.of(connection, caller.organization_id, lock=True)
        wanted = wishes._replace(**fields)
        await counting.change(connection, caller.organization_id, wanted)
        shown = ids.shown("org", caller.organization)
        await audit.record(connection, caller, "stats_settings.changed", shown, **sent)
    return answer(request, _shown(wanted))


def _shown(wishes: Counting) -> CountingResource:
    return CountingResource(
        timezone=wishes.time_zone,
        addresses=wishes.addresses,
        heeds_opt_out=wishes.heeds_opt_out,
        internal=wishes.internal.split(",") if wishes.internal else [],
        kept_days=wishes.kept_days,
    )


class PublicDay(Wire):
    """The clicks of a day."""

    start: Instant
    total: int


class PublicCountry(Wire):
    """The clicks from a country; an empty one is what nobody knows."""

    country: str
    total: int


class PublicStats(Wire):
    """What anybody may know of a link: the clicks of people in the last thirty days."""

    total: int
    timezone: str
    days: list[PublicDay]
    countries: list[PublicCountry]
    """Those with the most clicks."""


_PUBLIC = {"hostname": "idn-hostname", "path": "link-path"}
"""Parameters, and what they are."""
_PARAMETERS = [
    {
        "name": name,
        "in": "query",
        "required": True,
        "description": f"The {name} of the link.",
        "schema": {"type": "string", "format": kind},
    }
    for name, kind in _PUBLIC.items()
]


@router.get(
    "/public/stats",
    summary="See the counts of a link that shows them to everybody",
    responses=documented(errors.Invalid, errors.NotFound, errors.QueryTooLarge, errors.RateLimited, errors.Unavailable),
    openapi_extra={"parameters": _PARAMETERS},
)
async def show_public_stats(request: Request) -> Answer[PublicStats]:
    """For links with `isPublicStats`; all others are not found. No key is needed."""
    await gate_of(request).charge(f"public stats:{client(request)[1]}", _LOOKS)
    hostname, path = _asked(request)
    async with moment(request.app.state.pool) as connection:
        organization_id, link_id = await _public_link(connection, hostname, path)
        zone = ZoneInfo((await counting.of(connection, organization_id)).time_zone)
        today = datetime.now(UTC).astimezone(zone).date()
        begin, end = (begin_of_day(today + timedelta(days=days), zone) for days in (1 - DEFAULT_DAYS, 1))
        question = Question(organization_id, begin, end, link_id=link_id)
        starts = list(bounds(begin, end, "day", zone))
        counts = await questions.series(connection, question, starts)
        countries, _ = await questions.breakdown(connection, question, FACTS["country"], _MOST_COUNTRIES)
    return answer(
        request,
        PublicStats(
            total=sum(counts),
            timezone=zone.key,
            days=[PublicDay(start=start, total=count) for start, count in zip(starts, counts, strict=True)],
            countries=[PublicCountry(country=str(one.value), total=one.clicks) for one in countries],
        ),
    )


def _asked(request: Request) -> tuple[str, str]:
    sent = Sent(request.query_params.multi_items(), _PUBLIC)
    hostname, path = sent.read("hostname", normal_hostname), sent.read("path", normal_link_path)
    for name in _PUBLIC:
        if name not in sent:
            sent.wrong.setdefault(name, "It is missing.")
    sent.check()
    return hostname, path


async def _public_link(connection: Connection, hostname: str, path: str) -> tuple[int, int]:
    """Its organization and its id. Raises `NotFound`."""
    host = (await domains.host_entries(connection, [hostname])).get(hostname, HostEntry())
    address = Address(hostname, path_under(host, path.encode()))
    row = await connection.fetchrow(
        """
        /* counting_routes.public_link */
        select organization_id, id from links
         where hostname = $1 and path = $2 and is_public_stats and deleted_at is null""",
        *address,
    )
    if row is None:
        raise NotFound("There is no such link, or it shows its counts to nobody.")
    return row["organization_id"], row["id"]
