"""API keys: their shape and their check characters."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from admin.http.ids import BASE62
from admin.identity import keys


@pytest.mark.parametrize("environment", ["live", "test"])
def test_new_keys_are_well_formed_and_differ(environment: str) -> None:
    made = [keys.new_key(environment) for _ in range(50)]
    assert len(set(made)) == 50
    assert all(keys.is_well_formed(key) and key.startswith(f"lk_{environment}_") for key in made)


@given(st.text())
def test_other_text_is_not(text: str) -> None:
    assert not keys.is_well_formed(text)


@given(st.integers(8, 45), st.sampled_from(BASE62))
def test_a_mistyped_character_is_noticed(place: int, character: str) -> None:
    key = keys.new_key()
    mistyped = key[:place] + character + key[place + 1 :]
    assert keys.is_well_formed(mistyped) == (mistyped == key)
