"""Any entry of a link and of a host, for properties."""

from collections.abc import Callable
from typing import Any, TypeVar

from hypothesis import strategies as st

from shared.entries import PLAIN, QUERY_POLICIES, STATES, STATUSES, Entry, HostEntry, Preview, Rule, Terms, Variant

_T = TypeVar("_T")

DESTINATIONS = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=30)
_MAYBE = st.just("") | DESTINATIONS
_NUMBERS = st.integers(0, 2**63 - 1)
_TEXTS = st.text(max_size=20)
_WHEN = st.dictionaries(_TEXTS, st.lists(_TEXTS, min_size=1, max_size=3), max_size=3)


def _all_of(kind: Callable[..., _T], *fields: st.SearchStrategy[Any]) -> st.SearchStrategy[_T]:
    return st.tuples(*fields).map(lambda values: kind(*values))


TERMS = _all_of(
    Terms,
    st.sampled_from(["", *STATES]),
    *[st.none() | _NUMBERS] * 3,
    _MAYBE,
    _TEXTS,
    st.sampled_from(QUERY_POLICIES),
    _TEXTS,
    st.lists(_all_of(Rule, _NUMBERS, _WHEN, DESTINATIONS), max_size=3).map(tuple),
    st.lists(_all_of(Variant, _NUMBERS, _NUMBERS, DESTINATIONS), max_size=3).map(tuple),
    _all_of(Preview, *[_TEXTS] * 3),
    st.just("") | st.text("0123456789abcdef", min_size=32, max_size=32),
)
ENTRIES = _all_of(
    Entry,
    _NUMBERS,
    _NUMBERS,
    DESTINATIONS,
    st.sampled_from(STATUSES),
    _NUMBERS,
    st.sampled_from(["", "noindex", "noindex, nofollow"]),
    st.just(PLAIN) | TERMS,
)
HOSTS = _all_of(
    HostEntry,
    st.none() | _NUMBERS,
    *[st.booleans()] * 2,
    *[_MAYBE] * 3,
    _TEXTS,
    _MAYBE,
    *[_TEXTS] * 3,
)
