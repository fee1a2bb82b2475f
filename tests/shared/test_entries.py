"""What Redis holds for an address and a host survives the way there and back, and nothing else is believed."""

import pytest
from hypothesis import given

from shared.entries import Entry, HostEntry, Preview, Rule, Terms, Variant
from tests.shared.entries import ENTRIES, HOSTS

ENTRY = Entry(7, 1, "https://example.com/")


@given(ENTRIES)
def test_an_entry_is_read_as_it_was_written(entry: Entry) -> None:
    assert Entry.from_bytes(entry.to_bytes()) == entry


@given(HOSTS)
def test_a_host_is_read_as_it_was_written(host: HostEntry) -> None:
    assert HostEntry.from_bytes(host.to_bytes()) == host


@pytest.mark.parametrize(
    ("entry", "value"),
    [
        (ENTRY, b'{"id":7,"org":1,"to":"https://example.com/"}'),
        (
            ENTRY._replace(status=301, cache_s=60, robots="noindex"),
            b'{"id":7,"org":1,"to":"https://example.com/","status":301,"cache_s":60,"robots":"noindex"}',
        ),
        (
            ENTRY._replace(
                terms=Terms(
                    state="archived",
                    rules=(Rule(1, {"country": ["DE"]}, "https://example.de/"),),
                    variants=(Variant(2, 50, "https://example.com/b"),),
                    preview=Preview("Spring"),
                )
            ),
            b'{"id":7,"org":1,"to":"https://example.com/","terms":{"state":"archived",'
            b'"rules":[[1,{"country":["DE"]},"https://example.de/"]],"variants":[[2,50,"https://example.com/b"]],'
            b'"preview":{"title":"Spring"}}}',
        ),
    ],
    ids=["plain", "plain with other headers", "with terms"],
)
def test_the_format_is_what_it_was_and_has_no_defaults_in_it(entry: Entry, value: bytes) -> None:
    """Edge and admin may be of different versions for a while, and Redis holds a million of them."""
    assert entry.to_bytes() == value
    assert Entry.from_bytes(value) == entry


@pytest.mark.parametrize(
    "more",
    [
        b'"other":1',
        b'"status":303',
        b'"status":"302"',
        b'"cache_s":"60"',
        b'"robots":"noindex\\r\\nset-cookie: a=b"',
        b'"terms":[]',
        b'"terms":{"other":1}',
        b'"terms":{"state":"gone"}',
        b'"terms":{"query_policy":"all"}',
        b'"terms":{"click_limit":"7"}',
        b'"terms":{"click_limit":true}',
        b'"terms":{"expires_at_ms":null}',
        b'"terms":{"fallback":"https://example.com/\\r\\nset-cookie: a=b"}',
        b'"terms":{"click_id_key":"0"}',
        b'"terms":{"rules":{}}',
        b'"terms":{"rules":[[1,{}]]}',
        b'"terms":{"rules":[[1,{},""]]}',
        b'"terms":{"rules":[[1,[],"https://example.com/"]]}',
        b'"terms":{"variants":[[1,{},"https://example.com/"]]}',
        b'"terms":{"variants":[[1,2,"https://example.com/ "]]}',
        b'"terms":{"preview":[]}',
        b'"terms":{"preview":{"other":""}}',
        b'"terms":{"preview":{"title":1}}',
    ],
)
def test_what_is_none_of_it_is_refused(more: bytes) -> None:
    value = ENTRY.to_bytes()
    assert Entry.from_bytes(value) == ENTRY
    with pytest.raises(ValueError, match=r"\w"):
        Entry.from_bytes(value[:-1] + b"," + more + b"}")


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"[]",
        b"null",
        b'{"other":1}',
        b'{"organization_id":"1"}',
        b'{"folds_case":1}',
        b'{"root":7}',
        b'{"root":"https://example.com/\\n"}',
        b'{"favicon":"a b"}',
    ],
)
def test_what_is_no_host_is_refused(value: bytes) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        HostEntry.from_bytes(value)
