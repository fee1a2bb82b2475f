"""Whose a host is, is shown by a TXT record or by a file on it; what is there instead is told."""

from collections.abc import AsyncIterator

import pytest

from admin.settings import AdminSettings
from shared.settings import SettingsError, load
from tests.admin.hosts import Hosts, hosts, page, web_server

HOST = "go.example.com"
TXT = f"_linkwire.{HOST}"
PROOF = "00112233445566778899aabbccddeeff"
VALUE = f"linkwire-verification={PROOF}"
FILE = "/.well-known/linkwire-verification"


@pytest.fixture
async def there() -> AsyncIterator[Hosts]:
    """A host that shows nothing."""
    async with hosts() as found:
        found.names.has(HOST, "A", "127.0.0.1")
        yield found


@pytest.mark.parametrize(
    "record",
    [
        pytest.param(f'"{VALUE}"', id="as it is told"),
        pytest.param(f'"{VALUE[:10]}" "{VALUE[10:]}"', id="in pieces"),
        pytest.param(f'"\\"{VALUE}\\""', id="with the quotes that somebody typed"),
        pytest.param(f'" {VALUE} "', id="with blanks around it"),
    ],
)
async def test_a_txt_record_shows_it(there: Hosts, record: str) -> None:
    there.names.has(TXT, "TXT", '"v=spf1 -all"', record)
    assert await there.verifier().look(HOST, PROOF) == ("txt", [])


@pytest.mark.parametrize(
    ("record", "told"),
    [
        (None, f"There is no TXT record at {TXT}."),
        (f'"{PROOF}"', f"There are TXT records at {TXT}, but none is {VALUE}."),
        (f'"{VALUE}0"', "but none is"),
        (f'"{VALUE.upper()}"', "but none is"),
    ],
)
async def test_other_records_do_not(there: Hosts, record: str | None, told: str) -> None:
    there.names.has(TXT, "A", "127.0.0.1")
    there.names.has(HOST, "TXT", f'"{VALUE}"')
    if record:
        there.names.has(TXT, "TXT", record)
    seen = await there.verifier().look(HOST, PROOF)
    assert seen.method is None and told in seen.missing[0].message
    assert (TXT, "TXT") in there.names.asked


@pytest.mark.parametrize("body", [PROOF.encode(), f"{PROOF}\r\n".encode()])
async def test_a_file_shows_it(there: Hosts, body: bytes) -> None:
    there.pages.pages[FILE] = page(body)
    assert await there.verifier().look(HOST, PROOF) == ("file", [])
    there.names.has(TXT, "TXT", f'"{VALUE}"')
    assert await there.verifier().look(HOST, PROOF) == ("txt", [])


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (page(b"<html>welcome"), "holds something else than"),
        (page(PROOF.encode(), 404), "answers with status 404"),
        (b"220 ready\r\n", "no answer in HTTP"),
    ],
)
async def test_other_answers_do_not(there: Hosts, answer: bytes, told: str) -> None:
    there.pages.pages[FILE] = answer
    seen = await there.verifier().look(HOST, PROOF)
    assert seen.method is None
    assert [detail.field for detail in seen.missing] == ["txt", "file"]
    assert told in seen.missing[1].message


async def test_a_redirect_may_not_leave_the_host(there: Hosts) -> None:
    async with web_server() as pages:
        pages.pages["/proof"] = page(PROOF.encode())
        there.pages.pages[FILE] = page(status=301, Location=f"http://{HOST}:{pages.port}/proof")
        assert (await there.verifier().look(HOST, PROOF)).method == "file"
        there.names.has("other.example.com", "A", "127.0.0.1")
        there.pages.pages[FILE] = page(status=301, Location=f"http://other.example.com:{pages.port}/proof")
        seen = await there.verifier().look(HOST, PROOF)
    assert seen.method is None and "leads to another host" in seen.missing[1].message


async def test_a_host_that_is_not_there_shows_nothing(there: Hosts) -> None:
    for name in ("nowhere.example.com", "a." * 124 + "com", "x" * 63 + ".example.com"):
        seen = await there.verifier().look(name, PROOF)
        assert seen.method is None and len(seen.missing) == 2


async def test_name_servers_that_say_nothing_are_not_waited_for_without_end(there: Hosts) -> None:
    there.names.is_silent = True
    verifier = there.verifier()
    verifier._names.lifetime = 0.2
    seen = await verifier.look(HOST, PROOF)
    assert [detail.message for detail in seen.missing] == [
        f"No name server answers what is at {TXT}.",
        f"There is no host {HOST} in the DNS.",
    ]


@pytest.mark.parametrize(
    ("text", "server"),
    [
        ("192.0.2.53", ("192.0.2.53", 53)),
        ("127.0.0.1:5353", ("127.0.0.1", 5353)),
        ("2001:db8::53", ("2001:db8::53", 53)),
        ("[2001:db8::53]:5353", ("2001:db8::53", 5353)),
        ("ns.example.com", None),
        ("192.0.2.53:x", None),
        ("[::1", None),
    ],
)
def test_a_name_server_is_an_address(text: str, server: tuple[str, int] | None) -> None:
    if server is None:
        with pytest.raises(SettingsError, match=r"LINKWIRE_DNS_SERVER: .*192\.0\.2\.53:5353"):
            load(AdminSettings, {"LINKWIRE_DNS_SERVER": text})
    else:
        assert load(AdminSettings, {"LINKWIRE_DNS_SERVER": text}).name_server == server
