"""Places: a database of the operator's says more than the registries, where it knows anything."""

from pathlib import Path
from typing import Any

import pytest
from mmdb_writer import MMDBWriter
from netaddr import IPSet  # type: ignore[import-untyped]

from admin.stats.places import places
from shared.settings import SettingsError
from shared.visitor import country_of


@pytest.fixture
def file(tmp_path: Path) -> Path:
    writer = MMDBWriter(ip_version=4)
    records: dict[str, Any] = {
        "198.51.100.0/24": {"country": {"iso_code": "BR"}, "city": {"names": {"en": "São\tPaulo\0 ", "pt": "x"}}},
        "203.0.113.0/25": {"country": {"iso_code": "PT"}},
        "203.0.113.128/25": {"city": {"names": {"en": "Nowhere"}}},
        "192.0.2.0/24": {"country": "odd", "city": ["odd"]},
    }
    for network, record in records.items():
        writer.insert_network(IPSet([network]), record)
    writer.to_db_file(str(tmp_path / "cities.mmdb"))
    return tmp_path / "cities.mmdb"


def test_a_place_is_a_country_with_a_city_if_that_is_known(file: Path) -> None:
    locate = places(file)
    assert locate("198.51.100.7") == "BR\tSão Paulo"
    assert locate("203.0.113.7") == "PT"
    for address in ("203.0.113.200", "192.0.2.7", "8.8.8.8", "2001:4860:4860::8888", ""):
        assert locate(address) == country_of(address)
    assert country_of("8.8.8.8") == "US"


def test_without_a_file_the_registries_say_it() -> None:
    assert places(None) is country_of


@pytest.mark.parametrize("content", [None, b"", b"no database"])
def test_a_file_that_is_none_is_refused(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "cities.mmdb"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(SettingsError, match="GEOIP_DB"):
        places(file)
