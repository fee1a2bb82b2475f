"""Conversions: what became of clicks, as those who run the destinations tell it.

Rules of this file:

1. A conversion belongs to a click of its own organization. The id of another's click is as good as that of none.
2. It may come before its click is stored. Then it is pending, and a step looks for the click again and again, at pauses
   that grow with its age; after `_WAITS` it is unmatched, unless its click is stored after all (`expect_again`).
3. What is needed of the click is kept here, so that a conversion outlives the row of its click.
4. The organization's own id of a conversion is good for one. It may be sent again, but not for something else.
"""

from collections.abc import Collection
from datetime import datetime, timedelta
from decimal import Decimal
from typing import NamedTuple

from admin.database import Connection
from admin.errors import AlreadyExists, NotFound
from admin.http import ids
from admin.http.lists import Asked, Filter, Found, Listing, one_of, since, text, until
from shared.click_ids import ClickIds, click_ids

STATUSES = ("pending", "matched", "unmatched")

_WAITS = timedelta(hours=1)
_FIRST_PAUSE = timedelta(seconds=1)
_AT_ONCE = 1000


class Conversion(NamedTuple):
    """A row of conversions."""

    public_id: str
    click_id: str
    name: str
    value: Decimal | None
    """With up to four places; not without a currency."""
    currency: str | None
    external_id: str | None
    created_at: datetime
    status: str
    """One of `STATUSES`."""
    link: str | None
    """The public id of the link of the click; None also for one that is gone for good."""
    variant_id: int | None
    clicked_at: datetime | None


class Told(NamedTuple):
    """What somebody says of a click."""

    click_id: str
    name: str
    value: Decimal | None
    currency: str | None
    external_id: str | None


_COLUMNS = """public_id, click_id, name, value, currency, external_id, created_at, status,
              (select public_id from links where links.id = link_id) as link, variant_id, clicked_at"""

LISTING = Listing(
    prefix="conv",
    sorts={"createdAt": "public_id"},  # ids are in the order of time, and have an index
    filters={
        "name": Filter("name = {}", text),
        "status": Filter("status = {}", one_of(*STATUSES)),
        "linkId": Filter("link_id = (select id from links where links.public_id = {})", text),
        "externalId": Filter("external_id = {}", text),
        "startDate": since("created_at"),
        "endDate": until("created_at"),
    },
)


async def ids_of_clicks(connection: Connection) -> ClickIds:
    """What seals and opens the ids of clicks, the same for ever."""
    return click_ids(await connection.fetchval("/* conversions.ids_of_clicks */ select key from click_key"))


async def record(connection: Connection, organization_id: int, told: Told) -> tuple[Conversion, bool]:
    """The conversion, and whether it is new: by its external id it may be known.

    Raises `NotFound` for what is the id of no click, and `AlreadyExists` for an external id that is another one's.
    """
    if (await ids_of_clicks(connection)).open(told.click_id) is None:
        raise NotFound("There is no such click: clickId is what a destination was told in its clickIdParameter.")
    public_id = await connection.fetchval(
        """
        /* conversions.record */
        insert into conversions
               (public_id, organization_id, click_id, name, value, currency, external_id)
        values ($1, $2, $3, $4, $5, $6, $7)
        on conflict (organization_id, external_id) do nothing returning public_id""",
        ids.new_id(),
        organization_id,
        *told,
    )
    if public_id is None:
        return await _known(connection, organization_id, told), False
    await _match(connection, [public_id])
    row = await connection.fetchrow(
        f"/* conversions.record */ select {_COLUMNS} from conversions where public_id = $1",  # noqa: S608
        public_id,
    )
    assert row is not None
    return Conversion(**row), True


async def _known(connection: Connection, organization_id: int, told: Told) -> Conversion:
    row = await connection.fetchrow(
        f"""
        /* conversions.known */
        select {_COLUMNS} from conversions where organization_id = $1 and external_id = $2""",  # noqa: S608
        organization_id,
        told.external_id,
    )
    assert row is not None  # nobody takes one away
    known = Conversion(**row)
    if (known.click_id, known.name, known.value, known.currency) != told[:4]:
        raise AlreadyExists("Another conversion has this externalId.")
    return known


async def page_of(connection: Connection, organization_id: int, asked: Asked) -> Found:
    """Conversions of this organization."""
    select = f"/* conversions.page_of */ select {_COLUMNS} from conversions where organization_id = $1"  # noqa: S608
    return await LISTING.run(connection, select, [organization_id], asked)


async def step(connection: Connection) -> int:
    """Look for the clicks of some that wait for theirs, and give up those that have waited for long; how many."""
    async with connection.transaction():
        rows = await connection.fetch(
            """
            /* conversions.step */
            select public_id from conversions
             where status = 'pending' and next_try_at <= now() order by next_try_at limit $1 for update skip locked""",
            _AT_ONCE,
        )
        await _match(connection, [row["public_id"] for row in rows])
    return len(rows)


async def expect_again(connection: Connection, click_ids: Collection[str]) -> None:
    """Look once more for the clicks of conversions that were given up, in the transaction that stores these clicks.

    Clicks are late when nobody has ingested for long.
    """
    await connection.execute(
        """
        /* conversions.expect_again */
        update conversions set status = 'pending', next_try_at = now()
         where status = 'unmatched' and click_id = any($1)""",
        list(click_ids),
    )


async def _match(connection: Connection, public_ids: list[str]) -> None:
    await connection.execute(
        """
        /* conversions.match */
        update conversions
           set status = case when click.link_id is not null then 'matched'
                             when conversions.created_at <= now() - $2::interval then 'unmatched'
                             else 'pending' end,
               next_try_at = least(now() + greatest($3::interval, now() - conversions.created_at),
                                   conversions.created_at + $2::interval),
               link_id = click.link_id, variant_id = click.variant_id, clicked_at = click.clicked_at
          from conversions as waiting
               left join lateral (
                   select link_id, variant_id, clicked_at from clicks
                    where clicks.click_id = waiting.click_id and clicks.organization_id = waiting.organization_id
                    limit 1) as click on true
         where waiting.public_id = any($1) and conversions.public_id = waiting.public_id""",
        public_ids,
        _WAITS,
        _FIRST_PAUSE,
    )
