"""What others name is fetched from the public internet only, once looked up, and in bounds."""

import asyncio
import datetime
import gzip
import ssl
from collections.abc import AsyncIterator
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from admin.fetch import CannotFetch, Fetched, Fetcher, is_public, resolver
from shared.addresses import Networks, networks
from tests.admin.hosts import LOOPBACK, Hosts, hosts, page, web_server

HOST = "go.example.com"


@pytest.fixture
async def there() -> AsyncIterator[Hosts]:
    """A host that answers hello at its root, and has a name."""
    async with hosts() as found:
        found.names.has(HOST, "A", "127.0.0.1")
        found.pages.pages["/"] = page(b"hello")
        yield found


async def fetch(there: Hosts, url: str, reachable: Networks = LOOPBACK, *, within_s: float = 5.0) -> Fetched:
    """With the port of the web server in place of PORT."""
    names = resolver(there.names.address)
    names.lifetime = within_s
    fetcher = Fetcher(names, reachable)
    return await fetcher.get(url.replace("PORT", str(there.pages.port)), max_bytes=100, within_s=within_s)


PUBLIC = ["1.1.1.1", "8.8.8.8", "193.0.6.139", "2606:4700::1111", "2a00:1450::1", "::ffff:8.8.8.8"]
PRIVATE = """
    0.0.0.0 0.1.2.3 10.0.0.1 100.64.0.1 100.100.100.200 127.0.0.1 127.255.255.254 168.63.129.16 169.254.169.254
    172.16.0.1 172.31.255.255 192.0.0.192 192.168.0.1 198.18.0.1 224.0.0.1 239.255.255.255 240.0.0.1 255.255.255.255
    :: ::1 ::7f00:1 ::ffff:127.0.0.1 ::ffff:169.254.169.254 ::ffff:0:127.0.0.1 64:ff9b::7f00:1 100::1 2001:db8::1
    2002:7f00:1:: fc00::1 fd00:ec2::254 fe80::1 fec0::1 ff02::1 4000::1
"""


def test_only_what_everybody_reaches_is_public() -> None:
    assert [text for text in PUBLIC if not is_public(ip_address(text))] == []
    assert [text for text in PRIVATE.split() if is_public(ip_address(text))] == []


@given(st.ip_addresses(v=4))
def test_an_ipv4_address_is_as_public_as_its_ipv6_form(address: IPv4Address) -> None:
    assert is_public(address) == is_public(IPv6Address(f"::ffff:{address}"))
    assert not is_public(IPv6Address(0x2002 << 112 | int(address) << 80))


async def test_it_asks_for_the_page_by_the_name_of_its_host_and_tells_nothing_of_us(there: Hosts) -> None:
    there.pages.pages["/a?b=c"] = page(b"found", 201)
    assert await fetch(there, f"http://{HOST.upper()}:PORT/a?b=c#d") == (HOST, 201, b"found")
    [asked] = there.pages.asked
    assert asked.headers.pop("user-agent") == "linkwire (bot)"
    assert asked.headers == {
        "host": f"{HOST}:{there.pages.port}",
        "accept": "*/*",
        "accept-encoding": "identity",
        "connection": "keep-alive",
    }


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:PORT/",
        "http://0x7f.1:PORT/",
        "http://2130706433:PORT/",
        "http://[::ffff:127.0.0.1]:PORT/",
        "http://[::1]:PORT/",
        f"http://{HOST}:PORT/",
        f"http://{HOST}.:PORT/",
        "http://both.example.com:PORT/",
        "http://localhost:PORT/",
        "//go.example.com/",
        "/",
        "http://",
    ],
)
async def test_nobody_is_asked_but_the_public_internet(there: Hosts, url: str) -> None:
    there.names.has("both.example.com", "A", "10.0.0.1")
    there.names.has("both.example.com", "AAAA", "::1")
    with pytest.raises(CannotFetch) as refused:
        await fetch(there, url, reachable=())
    assert there.pages.asked == []
    assert "10.0.0.1" not in str(refused.value)


@pytest.mark.parametrize("url", ["file:///etc/passwd", f"ftp://{HOST}:PORT/", f"ws://{HOST}:PORT/", "data:,a"])
async def test_nothing_is_asked_for_but_by_http(there: Hosts, url: str) -> None:
    with pytest.raises(CannotFetch, match="Only http:// and https:// are asked"):
        await fetch(there, url)


async def test_a_name_that_means_another_machine_a_moment_later_is_of_no_use(there: Hosts) -> None:
    async with web_server("127.0.0.2", there.pages.port) as secret:
        there.names.has(HOST, "A", "127.0.0.1", then=["127.0.0.2"])
        assert (await fetch(there, f"http://{HOST}:PORT/")).body == b"hello"
        assert secret.asked == []
        assert there.names.asked.count((HOST, "A")) == 1


@pytest.mark.parametrize(
    "location",
    ["http://127.0.0.2:PORT/", "//inside.example.com:PORT/", "http://inside.example.com:PORT/", "file:///etc/passwd"],
)
async def test_no_redirect_leads_to_where_nobody_is_asked(there: Hosts, location: str) -> None:
    async with web_server("127.0.0.2", there.pages.port) as secret:
        secret.pages["/"] = page(b"secret")
        there.names.has("inside.example.com", "A", "127.0.0.2")
        there.pages.pages["/away"] = page(status=301, Location=location.replace("PORT", str(there.pages.port)))
        with pytest.raises(CannotFetch):
            await fetch(there, f"http://{HOST}:PORT/away", reachable=networks("127.0.0.1"))
        assert secret.asked == []


async def test_redirects_are_followed_up_to_five(there: Hosts) -> None:
    there.names.has("other.example.com", "A", "127.0.0.1")
    for number, status in enumerate((301, 302, 303, 307, 308)):
        there.pages.pages[f"/{number}"] = page(status=status, Location=f"./{number + 1}")
    there.pages.pages["/2"] = page(status=303, Location=f"http://me:secret@other.example.com:{there.pages.port}/3")
    there.pages.pages["/5"] = page(b"there")
    assert await fetch(there, f"http://{HOST}:PORT/0") == ("other.example.com", 200, b"there")
    assert [asked.target for asked in there.pages.asked] == [f"/{number}" for number in range(6)]
    assert not any("authorization" in asked.headers for asked in there.pages.asked)
    there.pages.pages |= {"/5": page(status=302, Location="/6"), "/6": page(b"too far")}
    with pytest.raises(CannotFetch, match="too many redirects"):
        await fetch(there, f"http://{HOST}:PORT/0")


async def endless(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\n")
    while True:
        writer.write(b"x" * 1000)
        await writer.drain()


async def test_no_more_is_read_than_was_asked_for(there: Hosts) -> None:
    there.pages.pages["/"] = endless
    assert (await fetch(there, f"http://{HOST}:PORT/")).body == b"x" * 100
    packed = gzip.compress(b"x" * 100_000)
    there.pages.pages["/"] = page(packed, Content_Encoding="gzip")
    assert (await fetch(there, f"http://{HOST}:PORT/")).body == packed[:100]


async def stuck(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nx")
    await writer.drain()
    await asyncio.Event().wait()


async def test_nobody_is_waited_for_without_end(there: Hosts) -> None:
    there.pages.pages["/"] = stuck
    with pytest.raises(CannotFetch, match="took too long"):
        await fetch(there, f"http://{HOST}:PORT/", within_s=0.2)
    there.names.is_silent = True
    with pytest.raises(CannotFetch):
        await fetch(there, f"http://{HOST}:PORT/", within_s=0.2)


@pytest.mark.parametrize("said", [b"", b"220 mail.example.com ESMTP\r\n", b"HTTP/1.1 200 OK\r\nX: " + b"x" * 200_000])
async def test_what_is_no_http_is_no_answer(there: Hosts, said: bytes) -> None:
    there.pages.pages["/"] = said
    with pytest.raises(CannotFetch, match="no answer in HTTP"):
        await fetch(there, f"http://{HOST}:PORT/")


async def test_a_host_with_several_addresses_is_asked_until_one_answers(there: Hosts) -> None:
    there.names.has(HOST, "A", "127.0.0.3", "127.0.0.1", "10.0.0.1")
    assert (await fetch(there, f"http://{HOST}:PORT/")).body == b"hello"
    there.names.has(HOST, "A", "127.0.0.3")
    with pytest.raises(CannotFetch, match="can't be connected to"):
        await fetch(there, f"http://{HOST}:PORT/")


def certificate(folder: Path, hostname: str) -> Path:
    """A file with a certificate that is its own authority, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, hostname)])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(1))
        .not_valid_after(now + datetime.timedelta(1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(hostname)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    file = folder / "certificate.pem"
    parts = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    file.write_bytes(made.public_bytes(serialization.Encoding.PEM) + key.private_bytes(*parts))
    return file


async def test_a_certificate_must_be_that_of_the_host_whose_address_is_asked(
    there: Hosts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = certificate(tmp_path, HOST)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(file)
    there.names.has("other.example.com", "A", "127.0.0.1")
    async with web_server(tls=tls) as pages:
        pages.pages["/"] = page(b"in private")
        with pytest.raises(CannotFetch, match="CERTIFICATE_VERIFY_FAILED"):
            await fetch(there, f"https://{HOST}:{pages.port}/")
        monkeypatch.setenv("SSL_CERT_FILE", str(file))
        assert (await fetch(there, f"https://{HOST}:{pages.port}/")).body == b"in private"
        with pytest.raises(CannotFetch, match="CERTIFICATE_VERIFY_FAILED"):
            await fetch(there, f"https://other.example.com:{pages.port}/")
