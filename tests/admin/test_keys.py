"""API keys: their shape, their check characters, and that only a hash is kept."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from admin.database import Connection
from admin.identity import keys, organizations


def test_new_keys_are_well_formed_and_differ() -> None:
    made = [keys.new_key() for _ in range(50)]
    assert len(set(made)) == 50
    assert all(keys.is_well_formed(key) for key in made)


@given(st.text())
def test_other_text_is_not(text: str) -> None:
    assert not keys.is_well_formed(text)


@given(st.integers(8, 45), st.sampled_from(keys.BASE62))
def test_a_mistyped_character_is_noticed(place: int, character: str) -> None:
    key = keys.new_key()
    mistyped = key[:place] + character + key[place + 1 :]
    assert keys.is_well_formed(mistyped) == (mistyped == key)


async def test_a_key_acts_for_its_organization_and_is_kept_nowhere(connection: Connection) -> None:
    organization_id = await organizations.create(
        connection, name="one", tier="free", email="a@b.example", password="secret-password"
    )
    key = keys.new_key()
    await keys.add(connection, organization_id, "test", key)
    owner = await keys.owner(connection, key)
    assert owner is not None and owner[0] == organization_id
    assert await keys.owner(connection, keys.new_key()) is None
    for table in ("api_keys", "users", "organizations"):
        text = await connection.fetchval(f"select string_agg(t::text, ' ') from {table} t")
        assert key not in text and "secret-password" not in text


@pytest.mark.parametrize("tier", ["free", "starter", "pro", "enterprise"])
async def test_tiers(connection: Connection, tier: str) -> None:
    await organizations.create(connection, name="one", tier=tier, email="a@b.example", password="x")
