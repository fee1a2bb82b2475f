"""Destinations: the normal form, what is refused before a parser could repair it, and private addresses."""

from ipaddress import IPv4Address
from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from admin.links.destinations import BadDestination, hostname_of, normal_destination


@pytest.mark.parametrize(
    ("sent", "stored"),
    [
        ("https://example.com", "https://example.com/"),
        ("HTTP://EXAMPLE.com:80/A/../b?q=1#f", "http://example.com/b?q=1#f"),
        ("https://bücher.example/ä", "https://xn--bcher-kva.example/%C3%A4"),
        ("http://0x08080808/", "http://8.8.8.8/"),
        ("  https://example.com/ ", "https://example.com/"),
        ("https://example.com/a?b=c d", "https://example.com/a?b=c%20d"),
    ],
)
def test_the_normal_form_is_what_a_browser_makes_of_it(sent: str, stored: str) -> None:
    assert normal_destination(sent) == stored


@pytest.mark.parametrize(
    "sent",
    [
        "",
        "example.com",
        "//example.com/",
        "javascript:alert(1)",
        "data:text/html,hi",
        "https:example.com",
        "https:/example.com",
        "https:////example.com",
        "https://user@example.com/",
        "https://:password@example.com/",
        "https://exa\tmple.com/",
        "https://example.com/\u0085",
        "https:\\\\example.com",
        "https://a b/",
        "https://[::g]/",
        "\ud800https://example.com/",
    ],
)
def test_refused(sent: str) -> None:
    with pytest.raises(BadDestination):
        normal_destination(sent)


@given(
    st.text() | st.text(max_size=40).map("https://example.com/".__add__) | st.text(max_size=20).map("http://".__add__)
)
def test_what_is_accepted_can_be_sent_and_is_stable(text: str) -> None:
    try:
        stored = normal_destination(text)
    except BadDestination:
        return
    assert normal_destination(stored) == stored
    assert stored.isascii()
    assert stored.isprintable()
    assert " " not in stored
    parts = urlsplit(stored)
    assert parts.scheme in ("http", "https")
    assert parts.hostname
    assert "@" not in parts.netloc


PRIVATE = """
    localhost LocalHost. a.localhost wiki.local nas.internal home.arpa db.home.arpa site.test x.corp x.lan intranet a..
    127.0.0.1 127.1 0x7f.1 0177.1 2130706433 0x7f000001 %31%32%37.0.0.1 １２７.0.0.1 ⓛocalhost 127.0.0.1. 0 10.1.2.3
    172.16.0.1 192.168.1.1 169.254.169.254 100.64.0.1 192.0.2.1 224.0.0.1 [::1] [::] [::127.0.0.1] [::ffff:10.0.0.1]
    [fe80::1] [fc00::1] [2001:db8::1] [2002:7f00:1::] [64:ff9b::7f00:1]
"""
PUBLIC = (
    "example.com example.com. 8.8.8.8 134744072 [2606:4700::1111] local.example localhost.example a.tester a.glocal"
)


@pytest.mark.parametrize("host", PRIVATE.split())
def test_what_means_something_else_in_each_network_is_no_destination_unless_that_is_wanted(host: str) -> None:
    for url in (f"http://{host}/", f"https://{host}:8443/a?b"):
        with pytest.raises(BadDestination, match="private address"):
            normal_destination(url)
        assert normal_destination(url, may_be_private=True).startswith("http")


@pytest.mark.parametrize("host", PUBLIC.split())
def test_what_is_on_the_internet_is_a_destination(host: str) -> None:
    assert normal_destination(f"http://{host}/")


@given(st.ip_addresses(v=4), st.sampled_from(["{}", "0x{:x}", "0{:o}", "{:d}"]))
def test_an_address_is_private_in_all_its_spellings(address: IPv4Address, form: str) -> None:
    def is_refused(host: str) -> bool:
        try:
            normal_destination(f"http://{host}/")
        except BadDestination:
            return True
        return False

    parts = str(address).split(".")
    spellings = [".".join(form.format(int(part)) for part in parts), f"[::ffff:{address}]"]
    if form != "{}":
        spellings.append(form.format(int(address)))
    assert {is_refused(host) for host in spellings} == {is_refused(str(address))}


def test_the_host_of_a_destination_has_no_port_and_no_final_dot() -> None:
    assert hostname_of(normal_destination("https://Example.com.:8443/")) == "example.com"
