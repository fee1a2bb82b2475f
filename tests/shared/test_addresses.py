"""Addresses: their one form, ranges of them, and whose address a click has."""

from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.addresses import Proxies, client_network, is_in, networks

PROXIES = networks("127.0.0.0/8, ::1, 10.0.0.0/8, 2001:db8:f::/48")
_ADDRESSES = st.ip_addresses().filter(lambda it: it.version == 4 or (it.ipv4_mapped is None and it.scope_id is None))


@pytest.mark.parametrize(
    ("peer", "forwarded_for", "address"),
    [
        pytest.param("203.0.113.7", "", "203.0.113.7", id="nobody in between: the peer"),
        pytest.param("203.0.113.7", "198.51.100.1", "203.0.113.7", id="a stranger is not believed"),
        pytest.param("127.0.0.1", "203.0.113.7", "203.0.113.7", id="a trusted proxy is believed"),
        pytest.param("127.0.0.1", "", "127.0.0.1", id="a trusted proxy that says nothing is the visitor"),
        pytest.param("127.0.0.1", "1.1.1.1, 203.0.113.7", "203.0.113.7", id="what the visitor wrote itself is not"),
        pytest.param("127.0.0.1", "203.0.113.7, 10.0.0.2,10.0.0.3", "203.0.113.7", id="a chain of trusted proxies"),
        pytest.param("127.0.0.1", "10.0.0.9, 10.0.0.2", "10.0.0.9", id="a visitor from inside the trusted networks"),
        pytest.param("127.0.0.1", "  203.0.113.7\t", "203.0.113.7", id="spaces around an address"),
        pytest.param("127.0.0.1", "unknown", "127.0.0.1", id="a word instead of an address: who said it"),
        pytest.param("127.0.0.1", "1.1.1.1, unknown, 10.0.0.2", "10.0.0.2", id="nothing is believed beyond a word"),
        pytest.param("127.0.0.1", "203.0.113.7,", "127.0.0.1", id="an empty place is no address"),
        pytest.param("127.0.0.1", "203.0.113.007", "127.0.0.1", id="an ambiguous number is no address"),
        pytest.param("::1", "2001:DB8:0:0::7", "2001:db8::7", id="IPv6 in its shortest form"),
        pytest.param("2001:db8:f::1", "203.0.113.7", "203.0.113.7", id="a trusted network of IPv6"),
        pytest.param("::ffff:203.0.113.7", "", "203.0.113.7", id="an IPv4 peer on an IPv6 socket"),
        pytest.param("::ffff:127.0.0.1", "203.0.113.7", "203.0.113.7", id="a trusted one on an IPv6 socket"),
        pytest.param("127.0.0.1", "::ffff:203.0.113.7", "203.0.113.7", id="an IPv4 visitor as a proxy saw it on IPv6"),
        pytest.param("127.0.0.1", "1.1.1.1, " * 999 + "203.0.113.7", "203.0.113.7", id="a visitor that wrote a lot"),
        pytest.param("127.0.0.1", "fe80::1%eth0", "fe80::1", id="a zone, which is somebody else's"),
        pytest.param("127.0.0.1", "fe80::1%eth0, 10.0.0.1", "fe80::1", id="a zone behind another proxy"),
        pytest.param("fe80::1%lo", "203.0.113.7", "fe80::1", id="a peer with a zone"),
        pytest.param("", "203.0.113.7", "", id="a unix socket"),
        pytest.param("testclient", "", "", id="a peer without an address"),
    ],
)
def test_the_address_of_a_visitor(peer: str, forwarded_for: str, address: str) -> None:
    assert Proxies(PROXIES).client_of(peer, forwarded_for) == address


@given(peer=_ADDRESSES, forwarded_for=st.text(max_size=60))
def test_where_nobody_is_trusted_nothing_that_is_said_counts(peer: object, forwarded_for: str) -> None:
    assert Proxies(()).client_of(str(peer), forwarded_for) == str(peer)


@given(
    written=st.text(max_size=40),
    visitor=_ADDRESSES.filter(lambda it: not any(it in network for network in PROXIES)),
    proxies=st.lists(st.ip_addresses(network="10.0.0.0/8"), min_size=1, max_size=4),
)
def test_a_visitor_can_not_choose_an_address_by_what_it_writes(
    written: str, visitor: object, proxies: list[object]
) -> None:
    """Each proxy appends the address it was called from to what it got."""
    *appended, last = [visitor, *proxies]
    forwarded_for = ", ".join([written, *map(str, appended)])
    assert Proxies(PROXIES).client_of(str(last), forwarded_for) == str(visitor)


@given(peer=st.text(max_size=20) | _ADDRESSES.map(str), forwarded_for=st.text("0123456789abcdef.:, ", max_size=60))
def test_the_result_is_a_canonical_address_or_empty(peer: str, forwarded_for: str) -> None:
    found = Proxies(PROXIES).client_of(peer, forwarded_for)
    assert found == "" or str(ip_address(found)) == found


@pytest.mark.parametrize(
    ("address", "is_inside"),
    [
        pytest.param("10.255.0.1", True, id="in a range"),
        pytest.param("11.0.0.1", False, id="beside it"),
        pytest.param("::1", True, id="in the range of one address"),
        pytest.param("::2", False, id="beside that"),
        pytest.param("2001:db8:f:1:2:3:4:5", True, id="in a range of IPv6"),
        pytest.param("2001:db8:e::", False, id="beside that one"),
        pytest.param("::ffff:10.0.0.1", True, id="IPv4-mapped, in a range of IPv4"),
        pytest.param("::ffff:11.0.0.1", False, id="IPv4-mapped, beside it"),
        pytest.param("::10.0.0.1", False, id="IPv6 that only looks like it"),
        pytest.param(" 10.0.0.1\t", True, id="spaces around it"),
        pytest.param("", False, id="a unix socket"),
        pytest.param("testclient", False, id="a word"),
        pytest.param("10.0.0.0/8", False, id="a range"),
        pytest.param("10.0.0.1:80", False, id="an address with a port"),
    ],
)
def test_whether_an_address_is_in_a_range(address: str, is_inside: bool) -> None:
    assert is_in(address, PROXIES) is is_inside
    assert not is_in(address, ())


@given(address=_ADDRESSES, text=st.text(max_size=20))
def test_an_address_is_in_its_own_range_and_in_that_of_everything_and_other_text_in_none(
    address: object, text: str
) -> None:
    everything = networks("0.0.0.0/0, ::/0")
    assert is_in(str(address), networks(str(address)))
    assert is_in(str(address), everything)
    try:
        ip_address(text.strip())
    except ValueError:
        assert not is_in(text, everything)


@pytest.mark.parametrize(
    ("address", "network"),
    [
        pytest.param("203.0.113.7", "203.0.113.7", id="IPv4 by its address"),
        pytest.param("2001:DB8:1:2:3:4:5:6", "2001:db8:1:2::/64", id="IPv6 by its /64"),
        pytest.param("2001:db8:1:2::", "2001:db8:1:2::/64", id="the first of them"),
        pytest.param("2001:db8:1:2:ffff:ffff:ffff:ffff", "2001:db8:1:2::/64", id="the last of them"),
        pytest.param("2001:db8:1:3::", "2001:db8:1:3::/64", id="the one after it"),
        pytest.param("::ffff:203.0.113.7", "203.0.113.7", id="IPv4-mapped as IPv4"),
        pytest.param("fe80::1%eth0", "fe80::/64", id="an interface is no part of it"),
        pytest.param(" 203.0.113.7 ", "203.0.113.7", id="spaces around it"),
        pytest.param("", "", id="a unix socket"),
        pytest.param("testclient", "testclient", id="a word"),
        pytest.param("203.0.113.007", "203.0.113.007", id="what is no address"),
    ],
)
def test_what_a_client_is_counted_by(address: str, network: str) -> None:
    assert client_network(address) == network


@given(st.text(max_size=20) | st.ip_addresses().map(str))
def test_whoever_is_counted_by_something_is_counted_by_it_again(address: str) -> None:
    assert client_network(client_network(address)) == client_network(address)


@given(one=_ADDRESSES, other=_ADDRESSES, low=st.integers(0, 2**64 - 1))
def test_clients_are_counted_together_only_where_one_host_may_have_both_addresses(
    one: IPv4Address | IPv6Address, other: IPv4Address | IPv6Address, low: int
) -> None:
    if isinstance(one, IPv6Address):
        neighbour = IPv6Address(int(one) >> 64 << 64 | low)
        assert neighbour.ipv4_mapped or client_network(str(neighbour)) == client_network(str(one))
        assert ip_address(one) in ip_network(client_network(str(one)))
    are_neighbours = one.version == other.version == 6 and int(one) >> 64 == int(other) >> 64
    assert (client_network(str(one)) == client_network(str(other))) is (one == other or are_neighbours)


@given(st.ip_addresses(v=4))
def test_an_ipv4_address_is_counted_as_one_on_an_ipv6_socket_too(address: object) -> None:
    assert client_network(f"::ffff:{address}") == client_network(str(address)) == str(address)


@pytest.mark.parametrize(
    ("text", "parsed"),
    [
        ("", []),
        (" , ", []),
        ("127.0.0.1", ["127.0.0.1/32"]),
        ("10.0.0.0/8, ::1", ["10.0.0.0/8", "::1/128"]),
        ("10.1.2.3/8", ["10.0.0.0/8"]),
    ],
)
def test_networks_are_addresses_and_ranges_between_commas(text: str, parsed: list[str]) -> None:
    assert networks(text) == tuple(ip_network(part) for part in parsed)


@pytest.mark.parametrize("text", ["proxy.example", "10.0.0.0/33", "10.0.0.0/8;::1", "10.0.0"])
def test_what_is_no_network_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        networks(text)
