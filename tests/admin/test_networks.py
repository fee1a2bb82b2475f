"""Networks: what kind of network an address is of."""

import pytest

from admin.stats.networks import KINDS, network_kind


@pytest.mark.parametrize(
    ("address", "kind"),
    [
        ("52.95.110.1", "hosting"),  # Amazon
        ("2a01:4f8::1", "hosting"),  # Hetzner
        ("104.16.0.1", "cdn"),  # Cloudflare
        ("188.100.2.2", ""),  # where people live
        ("2003:c0::1", ""),
        ("10.0.0.1", ""),
        ("", ""),
        ("x", ""),
        ("1.2.3.4\0", ""),
    ],
)
def test_the_lists_of_providers_say_it(address: str, kind: str) -> None:
    assert network_kind(address) == kind


def test_the_kinds_are_those_of_the_lists() -> None:
    from iporigin import core

    assert {core.HOSTING, core.CDN, core.VPN, core.TOR, core.BOT} == set(KINDS)
