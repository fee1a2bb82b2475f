"""A visit, through the edge's whole application on a real Valkey: what is answered, and what is said around it."""

import signal
import subprocess
import time
from pathlib import Path

import httpx2
import pytest

from admin import embedded
from shared.links import Address
from shared.redis import open_redis
from tests.conftest import Servers
from tests.edge.publishing import PROMO, Publisher, living
from tests.edge.visiting import TARGET, Edge, counted, edge_on, make_edge, until_ready
from tests.shared.waiting import until

OwnValkey = tuple[embedded.Server, "subprocess.Popen[bytes]"]

edge = pytest.fixture(make_edge)

# The answer.


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_a_visit_is_sent_to_the_destination_and_no_cache_keeps_the_answer(edge: Edge, method: str) -> None:
    answer = await edge.visit(method=method)
    assert answer.status_code == 302
    assert answer.headers["location"] == TARGET
    assert answer.headers["cache-control"] == "private, no-store"
    assert answer.content == b""


@pytest.mark.parametrize(
    "destination",
    [
        pytest.param("https://example.com/a%20b?x=1&y=%7Bz%7D#part", id="escapes stay as they are"),
        pytest.param("https://example.com/?q={a}|b^c`d\"e'<f>", id="what a library would escape stays as it is"),
        pytest.param("https://example.com/%", id="a percent sign that escapes nothing stays alone"),
        pytest.param("https://xn--mnchen-3ya.de/", id="a hostname in its ASCII form"),
        pytest.param("https://example.com/?utm_source=a+b&next=https://other.example/?a=b%26c", id="a query"),
        pytest.param("https://example.com/" + "x" * 6000, id="a long one"),
    ],
)
async def test_the_destination_is_sent_exactly_as_it_is_stored(
    edge: Edge, publisher: Publisher, destination: str
) -> None:
    await publisher.change(Address("go.example", "/exact"), living(to=destination))
    answer = await edge.visit("/exact")
    assert answer.headers.get_list("location") == [destination]


async def test_the_visitors_query_finds_the_link_and_is_not_passed_on(edge: Edge) -> None:
    answer = await edge.visit("/promo?fbclid=abc")
    assert (answer.status_code, answer.headers["location"]) == (302, TARGET)


@pytest.mark.parametrize("host", ["go.example", "GO.Example", "go.example:8000", "go.example.", "Go.Example.:80"])
async def test_every_spelling_of_the_host_is_the_same_host(edge: Edge, host: str) -> None:
    assert (await edge.visit(host=host)).headers.get("location") == TARGET


@pytest.mark.parametrize(
    "raw_path",
    [
        pytest.param(b"/promo/", id="with a slash at its end"),
        pytest.param(b"/%70romo", id="with an escape that needs none"),
        pytest.param(b"/%70%72%6F%6d%6f/", id="with nothing but escapes"),
        pytest.param(b"/./promo", id="with a dot segment"),
        pytest.param(b"/x/../promo", id="with a way back"),
        pytest.param(b"/x/%2e%2E/promo/.", id="with escaped dots"),
    ],
)
async def test_every_spelling_of_the_path_is_the_same_path(edge: Edge, raw_path: bytes) -> None:
    assert (await edge.visit(raw_path=raw_path)).headers.get("location") == TARGET


@pytest.mark.parametrize(
    ("raw_path", "stored"),
    [
        pytest.param("/Grüße".encode(), "/Gr%C3%BC%C3%9Fe", id="UTF-8 that was not escaped"),
        pytest.param(b"/Gr%c3%bc%c3%9fe", "/Gr%C3%BC%C3%9Fe", id="escapes in lower case"),
        pytest.param(b"/a%2fb", "/a%2Fb", id="an escaped slash"),
        pytest.param(b"/100%", "/100%25", id="a percent sign that escapes nothing"),
    ],
)
async def test_a_link_with_an_unusual_path_is_found(
    edge: Edge, publisher: Publisher, raw_path: bytes, stored: str
) -> None:
    await publisher.change(Address("go.example", stored), living(to="https://example.com/unusual"))
    assert (await edge.visit(raw_path=raw_path)).headers.get("location") == "https://example.com/unusual"


@pytest.mark.parametrize(
    ("host", "raw_path"),
    [
        pytest.param("other.example", b"/promo", id="another host"),
        pytest.param("sub.go.example", b"/promo", id="a host below it"),
        pytest.param("go.example", b"/Promo", id="another case of the path"),
        pytest.param("go.example", b"/promo/x", id="a path below it"),
        pytest.param("go.example", b"//promo", id="an empty segment before it"),
        pytest.param("go.example", b"/x%2F..%2Fpromo", id="slashes that are none"),
        pytest.param("go.example", b"/promo%00", id="something after it"),
        pytest.param("go.example", b"/", id="the root"),
    ],
)
async def test_where_there_certainly_is_no_link_a_page_says_so(edge: Edge, host: str, raw_path: bytes) -> None:
    answer = await edge.visit(host=host, raw_path=raw_path)
    assert answer.status_code == 404
    assert "There is no link here" in answer.text
    assert answer.headers["cache-control"] == "private, no-store"
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert "location" not in answer.headers
    assert edge.clicks() == []


async def test_a_path_longer_than_any_link_has_is_not_even_looked_up(edge: Edge) -> None:
    for raw_path in (b"/" + b"x" * 2048, b"/" + b'"' * 700):
        assert (await edge.visit(raw_path=raw_path)).status_code == 404


async def test_a_head_of_a_page_has_no_body(edge: Edge) -> None:
    answer = await edge.visit("/nothing", method="HEAD")
    assert (answer.status_code, answer.content) == (404, b"")


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND"])
async def test_a_link_is_followed_with_get_or_head_only(edge: Edge, method: str) -> None:
    for path in ("/promo", "/promo+"):
        answer = await edge.visit(path, method=method)
        assert answer.status_code == 405
        assert answer.headers["allow"] == "GET, HEAD"
        assert "location" not in answer.headers
    assert edge.clicks() == []


@pytest.mark.parametrize(
    "host",
    [
        pytest.param(None, id="none"),
        pytest.param("", id="an empty one"),
        pytest.param("[::1]:8000", id="an IPv6 address"),
        pytest.param("go.example:http", id="a port that is no number"),
        pytest.param("go..example", id="an empty label"),
        pytest.param("go.example, other.example", id="two in one"),
        pytest.param("user@go.example", id="a user"),
        pytest.param("go.example/promo", id="a path"),
        pytest.param("g" * 64 + ".example", id="a label that is too long"),
        pytest.param("g\x80\xff.example", id="bytes that are no text"),
    ],
)
async def test_a_host_header_that_names_no_host_is_a_bad_request(edge: Edge, host: str | None) -> None:
    answer = await edge.visit(host=host)
    assert answer.status_code == 400
    assert "This request names no address" in answer.text
    assert answer.headers["cache-control"] == "private, no-store"
    assert edge.clicks() == []


async def test_a_request_that_names_two_hosts_is_a_bad_request(edge: Edge) -> None:
    """RFC 9112 §3.2; whoever stands in front of the edge may have believed the other one."""
    answer = await edge.visit(host="go.example", headers=[("host", "other.example")])
    assert answer.status_code == 400


async def test_while_the_links_are_not_complete_a_miss_is_asked_to_try_again(
    servers: Servers, publisher: Publisher, tmp_path: Path
) -> None:
    await publisher.put(PROMO, living(to=TARGET))
    async with edge_on(servers.redis_url, tmp_path) as edge:
        answer = await edge.visit("/nothing")
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        assert "Please try again" in answer.text
        assert answer.headers["cache-control"] == "private, no-store"
        assert (await edge.visit("/promo")).headers["location"] == TARGET
        await publisher.complete()

        async def is_certain() -> bool:
            return (await edge.visit("/nothing")).status_code == 404

        await until(is_certain)


async def test_while_redis_hangs_remembered_links_redirect_at_once_and_others_are_asked_to_try_again(
    own_valkey: OwnValkey, tmp_path: Path
) -> None:
    server, process = own_valkey
    redis = open_redis(server.url, timeout_s=5.0)
    publisher = Publisher(redis)
    await publisher.complete()
    await publisher.put(PROMO, living(to=TARGET))
    await redis.aclose()
    async with edge_on(server.url, tmp_path) as edge:
        await until_ready(edge)
        assert (await edge.visit()).status_code == 302
        process.send_signal(signal.SIGSTOP)
        asked_at = time.monotonic()
        assert (await edge.visit("/nothing")).status_code == 503
        assert 0.2 < time.monotonic() - asked_at < 0.8
        asked_at = time.monotonic()
        assert (await edge.visit()).headers["location"] == TARGET
        assert time.monotonic() - asked_at < 0.2
        assert (await edge.visit("/healthz")).status_code == 200
        assert len(edge.clicks()) == 2
        process.send_signal(signal.SIGCONT)


# Around it.


async def test_the_edge_is_healthy_without_redis_and_ready_only_with_the_complete_links(
    servers: Servers, publisher: Publisher, tmp_path: Path
) -> None:
    async with edge_on(servers.redis_url, tmp_path) as edge:
        assert (await edge.visit("/healthz")).status_code == 200
        not_ready = await edge.visit("/readyz")
        assert (not_ready.status_code, not_ready.headers["content-type"]) == (503, "text/plain; charset=utf-8")
        await publisher.complete()
        await until_ready(edge)
        await publisher.void()

        async def is_not_ready() -> bool:
            return (await edge.visit("/readyz")).status_code == 503

        await until(is_not_ready)
        assert (await edge.visit("/healthz")).status_code == 200


async def test_health_is_told_whatever_host_is_asked_and_leaves_no_click(edge: Edge) -> None:
    for path in ("/healthz", "/readyz"):
        for host in ("10.1.2.3:8000", "[::1]", None):
            assert (await edge.visit(path, host=host)).text == "ok\n"
    assert edge.clicks() == []


@pytest.mark.parametrize("status", [400, 404, 405, 503])
async def test_a_page_holds_nothing_that_a_visitor_sent(edge: Edge, publisher: Publisher, status: int) -> None:
    said = "visitorsaid"
    if status == 503:
        await publisher.void()
    host = {400: f"<{said}>"}.get(status, f"{said}.example")
    headers: list[tuple[str, str | bytes]] = [
        (name, said) for name in ("user-agent", "referer", "x-forwarded-for", "x-forwarded-host", "cookie", "accept")
    ]

    async def visit() -> httpx2.Response:
        return await edge.visit(
            f"/{said}?{said}",
            method={405: "PUT"}.get(status, "GET"),
            host=host,
            raw_path=f"/<script>{said}</script>".encode(),
            headers=headers,
        )

    answer = await visit()
    assert answer.status_code == status
    assert said not in answer.text
    assert "<script" not in answer.text
    assert not any(said in value for value in answer.headers.values())


async def test_requests_are_counted_by_their_outcome(servers: Servers, publisher: Publisher, tmp_path: Path) -> None:
    await publisher.put(PROMO, living())
    before = _outcomes()
    async with edge_on(servers.redis_url, tmp_path) as edge:
        await edge.visit()
        await edge.visit("/nothing")
        await edge.visit(host="")
        await edge.visit(method="POST")
        await publisher.complete()
        await until_ready(edge)
        await edge.visit("/nothing")
    assert {outcome: count - before[outcome] for outcome, count in _outcomes().items()} == {
        "redirected": 1,
        "unavailable": 1,
        "refused": 2,
        "not_found": 1,
    }


def _outcomes() -> dict[str, float]:
    names = ("redirected", "unavailable", "refused", "not_found")
    return {name: counted("linkwire_requests_total", outcome=name) for name in names}


async def test_stopping_finishes_the_spool(servers: Servers, publisher: Publisher, tmp_path: Path) -> None:
    await publisher.put(PROMO, living())
    async with edge_on(servers.redis_url, tmp_path) as edge:
        await edge.visit()
        [reader] = edge.spools()
        before = reader.is_finished
    assert (before, reader.is_finished) == (False, True)
    reader.close()
    assert len(edge.clicks()) == 1
