"""Places: where addresses are registered, by country, and by city where the operator has a database of those.

Without one, or where it does not know, the country is that of the registries (shared/visitor.py).
"""

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import maxminddb

from shared.settings import SettingsError
from shared.visitor import country_of

Locate = Callable[[str], str]
"""From a canonical address, or nothing, to the word of its place: a country, and a city behind a tab."""

_LONGEST = 100


def places(file: Path | None) -> Locate:
    """`file` is in the format of MaxMind DB (https://maxmind.github.io/MaxMind-DB/) with the fields of a city database:
    `country.iso_code`, `city.names.en`. Raises `SettingsError` for one that can't be read."""
    if file is None:
        return country_of
    try:
        database = maxminddb.open_database(file)
    except (OSError, maxminddb.InvalidDatabaseError) as error:
        raise SettingsError(f"GEOIP_DB: can't read {file}: {error}") from error

    @lru_cache(maxsize=16384)
    def located(address: str) -> str:
        try:
            found = database.get(address) if address else None
        except (ValueError, maxminddb.InvalidDatabaseError):  # IPv6, and the database has none; or a damaged place
            found = None
        country = _text(found, "country", "iso_code")
        city = _text(found, "city", "names", "en")
        return f"{country}\t{city}" if country and city else country or country_of(address)

    return located


def _text(found: object, *names: str) -> str:
    """What is in a record under these names, on one line."""
    for name in names:
        found = found.get(name) if isinstance(found, dict) else None
    return " ".join(found.replace("\0", "").split())[:_LONGEST] if isinstance(found, str) else ""
