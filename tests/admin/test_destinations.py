"""Destinations: the normal form, and what is refused before a parser could repair it."""

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
        ("http://0x7f.1/", "http://127.0.0.1/"),
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


def test_the_host_of_a_destination_has_no_port_and_no_final_dot() -> None:
    assert hostname_of(normal_destination("https://Example.com.:8443/")) == "example.com"
