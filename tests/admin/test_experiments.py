"""Experiments: what is said of a link's variants is what clicks and conversions say."""

import random
from collections.abc import Iterable
from datetime import UTC, date, datetime, timedelta
from typing import Any, NamedTuple

import pytest

from admin.database import Connection
from admin.http.ids import new_id
from admin.stats.classify import Class
from admin.stats.rates import Rate, difference
from admin.stats.rows import COLUMNS, Row
from tests.admin.conftest import Api, made
from tests.admin.people import error_of

AT = datetime(2026, 3, 10, 9, tzinfo=UTC)
SPAN = "startDate=2026-03-10&endDate=2026-03-10"

ROW = Row(
    clicked_at=AT,
    link_id=0,
    organization_id=0,
    visitor=None,
    location=0,
    referrer=0,
    platform=0,
    language=0,
    campaign=0,
    agent=0,
    rule_id=None,
    variant_id=None,
    class_=Class.HUMAN,
    reason=0,
    version=0,
    is_head=False,
    is_prefetch=False,
    is_internal=False,
    is_use=False,
    is_scan=False,
    address=None,
    click_id=None,
)


class Visit(NamedTuple):
    """A click, and whether something came of it."""

    variant_id: int | None
    visitor: int | None = None
    converted: str = ""
    class_: Class = Class.HUMAN
    minute: float = 0.0


async def store(connection: Connection, link: str, visits: Iterable[Visit], spool: str = "a") -> None:
    """Clicks of this link, and the conversions of them."""
    found = await connection.fetchrow("select id, organization_id from links where public_id = $1", link)
    assert found is not None
    rows, converted = [], []
    for number, visit in enumerate(visits):
        row = ROW._replace(
            clicked_at=AT + timedelta(minutes=visit.minute),
            link_id=found["id"],
            organization_id=found["organization_id"],
            visitor=visit.visitor,
            variant_id=visit.variant_id,
            class_=visit.class_,
            click_id=f"{spool}-{number}",
        )
        rows.append(row)
        if visit.converted:
            converted.append((new_id(), row.click_id, visit.converted, row.link_id, row.clicked_at))
    await connection.copy_records_to_table("clicks", records=rows, columns=COLUMNS)
    await connection.executemany(
        f"""
        insert into conversions (organization_id, status, public_id, click_id, name, link_id, clicked_at)
        values ({found["organization_id"]}, 'matched', $1, $2, $3, $4, $5)""",
        converted,
    )


async def asked(api: Api, link: str, query: str) -> Any:
    answer = await api.one.api.get(f"/v1/links/{link}/experiment?{query}")
    assert answer.status_code == 200, answer.text
    return answer.json()["data"]


async def link_of(api: Api, *weights: int) -> tuple[str, list[int]]:
    """A link with variants of these weights, and their ids."""
    variants = [{"destination": f"https://example.com/{n}", "weight": weight} for n, weight in enumerate(weights)]
    link = await made(api.one.api, variants=variants)
    return link["id"], [part["id"] for part in link["variants"]]


async def test_each_variant_is_compared_with_the_first(api: Api, connection: Connection) -> None:
    link, (first, second, third) = await link_of(api, 50, 50, 50)
    visits = [
        *(
            Visit(variant, number, "order" if number < won else "")
            for variant, won, of in ((first, 20, 400), (second, 45, 410), (third, 21, 390))
            for number in range(of)
        ),
        Visit(None, 1, "order"),  # a rule has sent it
        Visit(first, 1, "signup"),  # another goal
        Visit(second, 1, "order", Class.CRAWLER),
        Visit(second, 1, "order", minute=60 * 24),  # another day
    ]
    await store(connection, link, visits)
    await connection.execute(
        """
        insert into conversions (public_id, organization_id, status, click_id, name, link_id, clicked_at)
        select 'x' || substr(public_id, 2), organization_id, status, click_id, name, link_id, clicked_at
          from conversions"""
    )  # each twice: one click is one outcome
    found = await asked(api, link, f"goal=order&{SPAN}")
    assert found["goal"] == {"conversion": "order", "linkId": None}
    assert (found["startDate"], found["endDate"]) == ("2026-03-10T00:00:00.000Z", "2026-03-11T00:00:00.000Z")
    assert (found["rateOf"], found["confidence"], found["isTooEarly"], found["reason"]) == ("clicks", 0.95, False, None)
    base = Rate(20, 401)
    assert found["variants"] == [
        {
            "variantId": variant,
            "destination": f"https://example.com/{number}",
            "weight": 50,
            "clicks": rate.trials,
            "visitors": visitors,
            "outcomes": rate.outcomes,
            "rate": rate.share,
            "difference": difference(rate, base)._asdict() if number else None,
        }
        for number, (variant, rate, visitors) in enumerate(
            [(first, base, 400), (second, Rate(45, 410), 410), (third, Rate(21, 390), 390)]
        )
    ]
    assert found["variants"][1]["difference"]["low"] > 0 > found["variants"][2]["difference"]["low"]


def again(second: float, converted: str = "order", variant_id: int | None = None, visitor: int = 1) -> Visit:
    """A repeat, so many seconds after the first visit."""
    return Visit(variant_id, visitor, converted, Class.REPEAT, second / 60)


async def outcomes(api: Api, link: str) -> list[tuple[int, int, int]]:
    """What is counted of each variant: clicks, visitors, outcomes."""
    found = await asked(api, link, f"goal=order&{SPAN}")
    return [(one["clicks"], one["visitors"], one["outcomes"]) for one in found["variants"]]


async def test_what_came_of_a_repeat_came_of_the_visit_that_it_repeats(api: Api, connection: Connection) -> None:
    link, (first, second) = await link_of(api, 1, 1)
    await store(connection, link, [Visit(first, 1), again(4, "order", second)])
    assert await outcomes(api, link) == [(1, 1, 1), (0, 0, 0)]  # the variant is what was drawn first
    other = (await made(api.one.api))["id"]
    await store(connection, other, [again(0), Visit(second, 1)], "b")  # another link's have their own
    assert await outcomes(api, link) == [(1, 1, 1), (0, 0, 0)]


@pytest.mark.parametrize(
    ("visits", "wanted"),
    [
        ([Visit(1, 1, "order"), again(1), again(2), again(2)], {1: 1}),  # of a click there is one outcome at most
        ([Visit(1, 1), again(1), again(9.999, "order", 2)], {1: 1}),
        ([Visit(1, 1), again(3, "signup")], {1: 0}),
        ([Visit(1, 1), again(10)], {1: 0}),  # nothing that it repeats is there any more
        ([Visit(1, 1), again(3, visitor=2)], {1: 0}),
        ([Visit(1, None), again(3)], {1: 0}),
        ([again(3)], {}),
        ([Visit(None, 1), Visit(1, 1, minute=0.2), again(9)], {1: 0}),  # a rule had sent it
        ([Visit(1, 1), Visit(2, 1, minute=0.2), again(9)], {1: 1, 2: 0}),
        ([Visit(1, 1), Visit(2, 1, minute=0.2), again(12)], {1: 0, 2: 1}),
        ([Visit(1, 1), Visit(2, 1, minute=0.1), again(7)], {1: 0, 2: 1}),  # the last one before it
        ([Visit(1, 1), again(0)], {1: 1}),
        ([Visit(1, 1), Visit(2, 1, minute=1), again(51)], {1: 0, 2: 1}),  # stored late
        ([Visit(1, 1), Visit(2, 1, minute=1), Visit(1, 1, minute=1.05), again(55)], {1: 0, 2: 1}),  # the next one
        ([Visit(1, 1), Visit(2, 1, minute=1), again(50)], {1: 0, 2: 0}),
        ([Visit(1, 1, class_=Class.TOOL), Visit(2, 1, minute=0.1), again(4)], {2: 1}),
        ([Visit(1, 1), Visit(2, 1, "order", Class.INTERNAL, 0.05)], {1: 0}),  # only repeats are of a visit
        ([Visit(1, 1, minute=-9 * 60 - 0.05), again(-9 * 3600 + 2)], {}),  # the visit was before the range
        ([Visit(1, 1, minute=15 * 60 - 0.05), again(15 * 3600 + 2)], {1: 1}),  # the repeat was behind it
    ],
)
async def test_a_repeat_has_one_visit_or_none(
    api: Api, connection: Connection, visits: list[Visit], wanted: dict[int, int]
) -> None:
    link = (await made(api.one.api))["id"]
    await store(connection, link, visits)
    found = await asked(api, link, f"goal=order&{SPAN}")
    assert {one["variantId"]: one["outcomes"] for one in found["variants"]} == wanted


async def test_months_are_told_apart(api: Api, connection: Connection) -> None:
    """Each has a click at the first place of its table."""
    link = (await made(api.one.api))["id"]
    for month in ("2026-02-01", "2026-03-01"):
        await connection.execute("select make_month($1)", date.fromisoformat(month))
    await store(connection, link, [Visit(1, 1), Visit(2, 2, minute=-20 * 24 * 60), again(1)])
    places = await connection.fetch("select ctid from clicks where class = $1", Class.HUMAN)
    assert len(places) == 2 and len({row["ctid"] for row in places}) == 1
    found = await asked(api, link, "goal=order&startDate=2026-02-01&endDate=2026-03-31")
    assert [one["outcomes"] for one in found["variants"]] == [1, 0]


def counted_one_by_one(visits: list[Visit]) -> dict[int, tuple[int, int, int]]:
    """Clicks, visitors and outcomes by variant: what the statement should say, without any haste."""
    humans = [visit for visit in visits if visit.class_ == Class.HUMAN]
    won = {number for number, human in enumerate(humans) if human.converted == "order"}
    for repeat in visits:
        if repeat.class_ != Class.REPEAT or repeat.converted != "order":
            continue
        near = [
            (number, round((repeat.minute - human.minute) * 60, 3))
            for number, human in enumerate(humans)
            if human.visitor is not None and human.visitor == repeat.visitor
        ]
        before = [(after_s, number) for number, after_s in near if 0 <= after_s < 10]
        late = [(-after_s, number) for number, after_s in near if -10 < after_s < 0]
        if before or late:
            won.add(min(before or late)[1])
    return {
        variant: (
            sum(human.variant_id == variant for human in humans),
            len({human.visitor for human in humans if human.variant_id == variant} - {None}),
            sum(humans[number].variant_id == variant for number in won),
        )
        for variant in {human.variant_id for human in humans}
        if variant is not None
    }


@pytest.mark.parametrize("seed", range(4))
async def test_outcomes_are_what_one_would_count_by_hand(api: Api, connection: Connection, seed: int) -> None:
    """Many clicks of few visitors, so that repeats have several visits near, before and behind them, and none."""
    chance, link = random.Random(seed), (await made(api.one.api))["id"]
    seconds = chance.sample(range(2400), 600)  # no two clicks of one instant: nobody can say which of them is repeated
    visits = [
        Visit(
            chance.choice([1, 2, 3, None]),
            chance.choice([None, *range(20)]),
            chance.choices(["order", "signup", ""], [2, 1, 3])[0],
            chance.choices([Class.HUMAN, Class.REPEAT, Class.TOOL], [4, 5, 1])[0],
            second / 60,
        )
        for second in seconds
    ]
    await store(connection, link, visits)
    found = await asked(api, link, f"goal=order&{SPAN}")
    counted = {one["variantId"]: (one["clicks"], one["visitors"], one["outcomes"]) for one in found["variants"]}
    assert counted == counted_one_by_one(visits)


async def test_a_goal_is_another_link_that_the_same_visitor_reaches_after_it(api: Api, connection: Connection) -> None:
    link, (first, second) = await link_of(api, 1, 1)
    goal = (await made(api.one.api))["id"]
    await store(
        connection,
        link,
        [
            *(
                Visit(variant, number)
                for variant, begin in ((first, 0), (second, 1000))
                for number in range(begin, begin + 200)
            ),
            Visit(first, 7, minute=5),  # comes again: no other trial, and no other outcome
            Visit(first, None),  # nobody knows who
        ],
    )
    later = [Visit(None, number, minute=1) for number in (*range(10), *range(1000, 1030))]
    before = [Visit(None, number, minute=-1) for number in (150, 1150)]
    robots = [Visit(None, 160, class_=Class.TOOL, minute=2)]
    unknown = [Visit(None, None, minute=2)]
    much_later = [Visit(None, 170, minute=60 * 40)]
    await store(connection, goal, [*later, *later, *before, *robots, *unknown, *much_later], "b")
    found = await asked(api, link, f"goal={goal}&{SPAN}")
    assert (found["goal"], found["rateOf"]) == ({"conversion": None, "linkId": goal}, "visitors")
    counted = [(one["clicks"], one["visitors"], one["outcomes"], one["rate"]) for one in found["variants"]]
    assert counted == [(202, 200, 10, 0.05), (200, 200, 30, 0.15)]
    assert found["variants"][1]["difference"] == difference(Rate(30, 200), Rate(10, 200))._asdict()


@pytest.mark.parametrize(
    ("weights", "counts", "reason"),
    [
        ((1, 1), [(0, 0), (0, 0)], "One of two that are compared has 0 of the 100 trials that each needs."),
        ((1, 1), [(50, 99), (50, 500)], "One of two that are compared has 99 of the 100 trials that each needs."),
        ((1, 1), [(4, 500), (5, 500)], "Two that are compared have 9 of the 10 outcomes that they need together."),
        (
            (1, 1, 1),
            [(40, 500), (50, 500), (1, 9)],
            "One of two that are compared has 9 of the 100 trials that each needs.",
        ),
        ((1, 1, 0), [(40, 500), (50, 500), (1, 9)], None),
        ((1, 0), [(40, 500), (50, 500)], "The link sends visitors to fewer than two variants."),
        ((), [], "The link sends visitors to fewer than two variants."),
    ],
    ids=str,
)
async def test_it_says_that_it_is_too_early(
    api: Api, connection: Connection, weights: tuple[int, ...], counts: list[tuple[int, int]], reason: str | None
) -> None:
    link, variants = await link_of(api, *weights)
    await store(
        connection,
        link,
        [
            Visit(variant, None, "order" if number < won else "")
            for variant, (won, of) in zip(variants, counts, strict=True)
            for number in range(of)
        ],
    )
    found = await asked(api, link, f"goal=order&{SPAN}")
    assert (found["isTooEarly"], found["reason"]) == (reason is not None, reason)
    assert [(one["outcomes"], one["clicks"]) for one in found["variants"]] == counts


async def test_a_variant_that_is_gone_is_still_shown(api: Api, connection: Connection) -> None:
    link, (first, second) = await link_of(api, 1, 1)
    await store(connection, link, [Visit(variant, None, "order") for variant in (first, second) for _ in range(100)])
    change = {"variants": [{"id": second, "destination": "https://example.com/1", "weight": 1}]}
    assert (await api.one.api.patch(f"/v1/links/{link}", json=change)).status_code == 200
    found = await asked(api, link, f"goal=order&{SPAN}")
    shown = [
        (one["variantId"], one["destination"], one["clicks"], bool(one["difference"])) for one in found["variants"]
    ]
    assert shown == [(second, "https://example.com/1", 100, False), (first, None, 100, True)]
    assert found["isTooEarly"]


async def test_of_twenty_experiments_without_a_difference_one_finds_one(api: Api, connection: Connection) -> None:
    """Visitors are drawn, stored and asked for; the truth is that nobody prefers anything."""
    chance, wrong, rounds = random.Random(11), 0, 40
    variants = list(range(1, 2 * rounds + 1))
    link = (await made(api.one.api))["id"]
    await store(
        connection,
        link,
        [Visit(variant, None, "order" if chance.random() < 0.1 else "") for variant in variants for _ in range(150)],
    )
    counted = {
        one["variantId"]: Rate(one["outcomes"], one["clicks"])
        for one in (await asked(api, link, f"goal=order&{SPAN}"))["variants"]
    }
    for one in variants[::2]:
        apart = difference(counted[one + 1], counted[one])
        wrong += not apart.low <= 0 <= apart.high
    assert wrong <= rounds // 8


async def test_it_needs_single_clicks(api: Api, connection: Connection) -> None:
    link, _ = await link_of(api, 1, 1)
    until = datetime(2026, 3, 9, tzinfo=UTC)
    await connection.execute(
        "insert into foldings (organization_id, until) values ($1, $2)", api.one.organization_id, until
    )
    assert (await asked(api, link, "goal=a&endDate=2026-03-10"))["startDate"] == "2026-03-09T00:00:00.000Z"
    assert (await asked(api, link, "goal=a&startDate=2026-03-09"))["startDate"] == "2026-03-09T00:00:00.000Z"
    for query in ("startDate=2026-03-08", "endDate=2026-03-08"):
        answer = await api.one.api.get(f"/v1/links/{link}/experiment?goal=a&{query}")
        assert error_of(answer) == (422, "CLICKS_NOT_KEPT")


@pytest.mark.parametrize(
    ("query", "fields"),
    [
        ("", ["goal"]),
        ("goal=", ["goal"]),
        (f"goal={'a' * 201}", ["goal"]),
        ("goal=a%00", ["goal"]),
        ("goal=a&goal=b", ["goal"]),
        ("goal=a&colour=red", ["colour"]),
        ("goal=a&startDate=soon&end_date=never", ["startDate", "end_date"]),
        ("goal=a&startDate=2026-01-02&endDate=2026-01-01", ["startDate"]),
        ("goal=a&startDate=1926-01-02&endDate=2026-01-01", ["startDate"]),
        ("goal=a&startDate=2999-01-01", ["startDate"]),
    ],
)
async def test_what_makes_no_sense_is_refused(api: Api, query: str, fields: list[str]) -> None:
    link, _ = await link_of(api, 1, 1)
    answer = await api.one.api.get(f"/v1/links/{link}/experiment?{query}")
    assert error_of(answer) == (400, "VALIDATION_ERROR")
    assert [detail["field"] for detail in answer.json()["error"]["details"]] == fields


async def test_a_link_is_no_goal_of_its_own_and_that_of_others_is_a_name(api: Api) -> None:
    link, _ = await link_of(api, 1, 1)
    answer = await api.one.api.get(f"/v1/links/{link}/experiment?goal={link}")
    assert error_of(answer) == (400, "VALIDATION_ERROR")
    theirs = (await made(api.other.api))["id"]
    found = await asked(api, link, f"goal={theirs}&endDate=0001-01-01")
    assert found["goal"] == {"conversion": theirs, "linkId": None}
    assert (await asked(api, link, "goal=a&end_date=9999-12-31"))["endDate"].startswith("9999-12-31")
