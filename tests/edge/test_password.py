"""Passwords of links: who knows one is let through, who guesses is slowed down, and redirects never wait."""

import asyncio
import re
from typing import Any

import argon2
import httpx2
import pytest

from edge import password
from edge.lookup import Unavailable
from edge.password import Passwords, TooManyGuesses, cookie_value, is_remembered
from shared.entries import Entry, Terms
from shared.links import Address, Published
from shared.redis import Redis, open_redis
from tests.edge.publishing import PROMO, Publisher
from tests.edge.spools import be_patient
from tests.edge.visiting import TARGET, Edge, make_edge
from tests.shared.waiting import until

patience = pytest.fixture(scope="module", autouse=True)(be_patient)
edge = pytest.fixture(make_edge)

_hasher = argon2.PasswordHasher(time_cost=1, memory_cost=64, parallelism=1)
HASH = _hasher.hash("open sesame")
ENTRY = Entry(7, 3, TARGET, terms=Terms(password_hash=HASH))
FORM = ("content-type", "application/x-www-form-urlencoded")


async def send(edge: Edge, content: bytes, path: str = "/promo", **headers: str) -> httpx2.Response:
    given: list[tuple[str, str | bytes]] = [FORM, *((name.replace("_", "-"), text) for name, text in headers.items())]
    return await edge.visit(path, method="POST", content=content, headers=given)


async def test_who_knows_the_password_is_let_through_and_remembered(edge: Edge, publisher: Publisher) -> None:
    await publisher.change(PROMO, Published(2, ENTRY))
    asked = await edge.visit()
    assert asked.status_code == 200
    assert 'type="password"' in asked.text
    assert TARGET not in asked.text
    wrong = await send(edge, b"password=guess")
    assert (wrong.status_code, "was not the password" in wrong.text) == (403, True)
    right = await send(edge, b"password=open+sesame", "/promo?a=1")
    assert (right.status_code, right.headers["location"]) == (303, "?a=1")
    cookie = right.headers["set-cookie"]
    assert re.fullmatch(r"lw7=[0-9]+\.[0-9a-f]{48}; HttpOnly; Max-Age=43200; Path=/promo; SameSite=lax", cookie)
    remembered: list[tuple[str, str | bytes]] = [("cookie", cookie.partition(";")[0])]
    assert edge.clicks() == []
    assert (await edge.visit(headers=remembered)).headers["location"] == TARGET
    twice = await edge.visit("/promo?a=1", method="POST", content=b"password=a", headers=[FORM, *remembered])
    assert (twice.status_code, twice.headers["location"]) == (303, "?a=1")
    assert len(edge.clicks()) == 1
    other = ENTRY._replace(terms=Terms(password_hash=_hasher.hash("open sesame")))
    await publisher.change(PROMO, Published(3, other))

    async def is_asked_again() -> bool:
        return (await edge.visit(headers=remembered)).status_code == 200

    await until(is_asked_again)
    secure = await send(edge, b"password=open+sesame", x_forwarded_proto="https")
    assert "; Secure" in secure.headers["set-cookie"]


async def test_a_path_that_would_end_a_cookie_is_not_in_it(edge: Edge, publisher: Publisher) -> None:
    await publisher.change(Address("go.example", "/a;b"), Published(2, ENTRY))
    right = await send(edge, b"password=open+sesame", "/a;b")
    assert "; Path=/; " in right.headers["set-cookie"]


@pytest.mark.parametrize(
    "content",
    [b"", b"other=1", b"password=" + b"x" * 5000, b"password=\xff", b"&".join([b"a=1"] * 20), b'{"password": 1}'],
)
async def test_what_is_no_form_is_no_guess(edge: Edge, publisher: Publisher, redis: Redis, content: bytes) -> None:
    await publisher.change(PROMO, Published(2, ENTRY))
    answer = await send(edge, content)
    assert (answer.status_code, "Please try again" in answer.text) == (400, True)
    assert await redis.keys("guesses:*") == []


async def test_a_form_that_does_not_come_is_waited_for_a_while(
    edge: Edge, publisher: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge.terms._FORM_WITHIN_S", 0.05)
    await publisher.change(PROMO, Published(2, ENTRY))
    scope = {"type": "http", "method": "POST", "path": "/promo", "raw_path": b"/promo", "query_string": b""}
    headers = [(b"host", b"go.example"), (b"content-length", b"100")]
    said: list[Any] = []

    async def nothing() -> Any:
        await asyncio.Event().wait()

    async def say(message: Any) -> None:
        said.append(message)

    await edge.app({**scope, "http_version": "1.1", "headers": headers, "client": ("203.0.113.1", 5)}, nothing, say)
    assert said[0]["status"] == 408

    async def gone() -> Any:
        return {"type": "http.disconnect"}

    await edge.app({**scope, "http_version": "1.1", "headers": headers, "client": ("203.0.113.1", 5)}, gone, say)
    assert said[2]["status"] == 400


async def test_other_links_take_no_form(edge: Edge, publisher: Publisher) -> None:
    assert (await send(edge, b"password=a")).status_code == 405
    await publisher.change(PROMO, Published(2, ENTRY._replace(terms=Terms(fallback=TARGET))))
    assert (await send(edge, b"password=a")).status_code == 405


def test_a_cookie_holds_for_one_link_one_password_and_some_time() -> None:
    until = 4_000_000_000
    value = cookie_value(ENTRY, until)
    assert is_remembered(ENTRY, value)
    assert not is_remembered(ENTRY._replace(link_id=8), value)
    assert not is_remembered(ENTRY._replace(terms=Terms(password_hash=HASH + "x")), value)
    for forged in (
        None,
        "",
        value[:-1],
        value.replace("4", "5", 1),
        "٤" + value,
        "1." + value.partition(".")[2],
        "x" * 99,
    ):
        assert not is_remembered(ENTRY, forged), forged
    assert not is_remembered(ENTRY, cookie_value(ENTRY, 1))


async def test_guesses_are_counted_per_address_and_per_link(redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(password, "_GUESSES_PER_LINK", 15)
    passwords = Passwords(redis, timeout_s=5)
    for _ in range(10):
        assert not await passwords.is_right(ENTRY, "2001:db8::1", "guess")
    with pytest.raises(TooManyGuesses) as refused:
        await passwords.is_right(ENTRY, "2001:db8::2", "open sesame")  # of the same network
    assert 0 < refused.value.retry_after_s <= password.WINDOW_S
    for _ in range(20):  # of one office
        assert await passwords.is_right(ENTRY, "203.0.113.1", "open sesame")
    for number in range(4):
        assert not await passwords.is_right(ENTRY, f"203.0.113.{number}", "guess")
    with pytest.raises(TooManyGuesses):
        await passwords.is_right(ENTRY, "203.0.113.9", "open sesame")
    assert await passwords.is_right(ENTRY._replace(link_id=8), "203.0.113.10", "open sesame")


async def test_few_may_wait_for_their_turn(redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    goes_on = asyncio.Event()
    at_once = most = 0

    async def slow(function: object, *arguments: object) -> bool:
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        await goes_on.wait()
        at_once -= 1
        return True

    monkeypatch.setattr("edge.password.asyncio.to_thread", slow)
    passwords = Passwords(redis, timeout_s=5)
    guesses = [asyncio.create_task(passwords.is_right(ENTRY, f"203.0.113.{number}", "a")) for number in range(12)]
    done, waiting = await asyncio.wait(guesses, return_when=asyncio.FIRST_EXCEPTION)
    while len(done) < 4:
        done, waiting = await asyncio.wait(guesses, return_when=asyncio.FIRST_COMPLETED)
        await asyncio.sleep(0)
    assert all(isinstance(guess.exception(), TooManyGuesses) for guess in done)
    goes_on.set()
    assert await asyncio.gather(*waiting) == [True] * 8
    assert most == 1


async def test_without_redis_nobody_guesses() -> None:
    nobody = open_redis("redis://127.0.0.1:1", timeout_s=0.2)
    with pytest.raises(Unavailable):
        await Passwords(nobody).is_right(ENTRY, "203.0.113.1", "open sesame")
    await nobody.aclose()
