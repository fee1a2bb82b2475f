"""Clicks and batches survive the way to disk, to Redis and back; anything else is refused as promised."""

from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from shared.clicks import CLOSED, REPORTS_KEY, STREAM, Batch, Click, SpoolReport
from shared.redis import Redis

_TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
_CLICKS = st.builds(
    Click,
    at_ms=st.integers(0, 253_402_300_799_999),
    link_id=st.integers(0, 2**31 - 1),
    organization_id=st.integers(0, 2**63 - 1),
    method=st.sampled_from(["GET", "HEAD"]),
    address=st.ip_addresses().map(str) | st.just(""),
    user_agent=_TEXTS,
    referrer=_TEXTS,
    rule_id=st.just(0) | st.integers(0, 2**31 - 1),
    variant_id=st.just(0) | st.integers(0, 2**31 - 1),
    is_use=st.booleans(),
    is_scan=st.booleans(),
    has_id=st.booleans(),
    accept_language=_TEXTS,
    campaign=_TEXTS,
    is_prefetch=st.booleans(),
    has_opted_out=st.booleans(),
)
_RECORDS = st.binary(max_size=30).map(lambda record: record.replace(b"\n", b""))
_BATCHES = st.builds(
    Batch,
    st.from_regex(r"[0-9a-f]{16}", fullmatch=True),
    st.integers(0, 2**63 - 1),
    st.lists(_RECORDS, min_size=1, max_size=10),
)
_NUMBERS = st.integers(0, 2**63 - 1)
_REPORTS = st.builds(
    SpoolReport,
    at_ms=_NUMBERS,
    host=_TEXTS,
    served=_NUMBERS,
    recorded=_NUMBERS,
    dropped=_NUMBERS,
    earliest=_NUMBERS,
    is_finished=st.booleans(),
    is_removed=st.booleans(),
)
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | _TEXTS,
    lambda inner: st.lists(inner, max_size=8) | st.dictionaries(_TEXTS, inner, max_size=3),
)
CLICK = Click(1_700_000_000_000, 7, 3, "GET", "203.0.113.7", "Mozilla/5.0", "https://news.example/")


@given(_CLICKS)
def test_a_click_is_read_as_it_was_recorded(click: Click) -> None:
    assert Click.from_bytes(click.to_bytes()) == click


@given(_CLICKS)
def test_a_record_is_one_line_whatever_the_visitor_sent(click: Click) -> None:
    assert b"\n" not in click.to_bytes()
    assert click.to_bytes().splitlines() == [click.to_bytes()]


def test_the_format_of_a_record_is_what_it_was() -> None:
    """Spools wait on disk while the worker is replaced by another version."""
    record = b'[1700000000000,7,3,"GET","203.0.113.7","Mozilla/5.0","https://news.example/"'
    assert CLICK.to_bytes() == record + b',0,0,false,false,false,""]'
    assert Click.from_bytes(record + b"]") == CLICK
    ruled = CLICK._replace(rule_id=2, is_use=True)
    assert Click.from_bytes(record + b",2,0,true,false,false]") == ruled
    asked_ahead = ruled._replace(accept_language="pt", is_prefetch=True)
    assert asked_ahead.to_bytes() == record + b',2,0,true,false,false,"pt","",true,false]'


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param(list(CLICK)[:6], id="a field too few"),
        pytest.param([*CLICK, ""], id="a field more than there are"),
        pytest.param({**CLICK._asdict()}, id="an object"),
        pytest.param(["now", *CLICK[1:]], id="a time that is text"),
        pytest.param([1.5, *CLICK[1:]], id="a time that is no whole number"),
        pytest.param([True, *CLICK[1:]], id="a time that is a truth value"),
        pytest.param([None, *CLICK[1:]], id="no time"),
        pytest.param([-1, *CLICK[1:]], id="a time before 1970"),
        pytest.param([253_402_300_800_000, *CLICK[1:]], id="a time after the year 9999"),
        pytest.param([CLICK[0], -1, *CLICK[2:]], id="a negative link"),
        pytest.param([CLICK[0], 2**31, *CLICK[2:]], id="a link beyond what packs count"),
        pytest.param([*CLICK[:2], -1, *CLICK[3:]], id="a negative organization"),
        pytest.param([*CLICK[:2], 2**63, *CLICK[3:]], id="an organization beyond what Postgres counts to"),
        pytest.param([*CLICK[:3], 1, *CLICK[4:]], id="a method that is a number"),
        pytest.param([*CLICK[:6], None, *CLICK[7:]], id="no referrer"),
        pytest.param([*CLICK[:5], "x" * 513, *CLICK[6:]], id="an agent that is too long"),
        pytest.param([*CLICK[:6], "x" * 2049, *CLICK[7:]], id="a referrer that is too long"),
        pytest.param([*CLICK[:12], "x" * 65, *CLICK[13:]], id="languages that are too long"),
        pytest.param([*CLICK[:13], "x" * 1025, *CLICK[14:]], id="a campaign that is too long"),
        pytest.param([*CLICK[:5], ["a"], *CLICK[6:]], id="an agent that is a list"),
        pytest.param([*CLICK[:7], 2**31, *CLICK[8:]], id="a rule beyond what Postgres counts to"),
        pytest.param([*CLICK[:7], -1, *CLICK[8:]], id="a negative rule"),
        pytest.param([*CLICK[:9], 1, *CLICK[10:]], id="a truth value that is a number"),
    ],
)
def test_a_record_that_is_no_click_is_refused(fields: object) -> None:
    with pytest.raises(ValueError):
        Click.from_bytes(orjson.dumps(fields))


@given(st.binary(max_size=60) | _JSON.map(orjson.dumps))
@example(b"[" * 2000)
@example(b'[1e400,7,3,"","","",""]')
@example(b"\xff")
def test_any_other_record_is_refused_with_the_error_that_is_promised(record: bytes) -> None:
    try:
        click = Click.from_bytes(record)
    except ValueError:
        return
    assert Click.from_bytes(click.to_bytes()) == click


@given(_BATCHES)
def test_a_batch_ends_where_the_next_one_begins(batch: Batch) -> None:
    assert batch.end == batch.first + len(batch.records)
    assert batch._replace(records=[]).end == batch.first


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(batch=_BATCHES)
async def test_a_batch_is_read_from_the_stream_as_it_was_put_there(redis: Redis, batch: Batch) -> None:
    entry_id = await redis.xadd(STREAM, batch.to_fields())  # type: ignore[arg-type]
    [(_, fields)] = await _entries(redis, entry_id)
    assert Batch.from_fields(fields) == batch


async def _entries(redis: Redis, entry_id: Any) -> Any:
    return await redis.xrange(STREAM, entry_id, entry_id)


@pytest.mark.parametrize(
    ("spool", "first"),
    [
        pytest.param(b"a", b"-1", id="a number before the first"),
        pytest.param(b"a", b"9223372036854775808", id="a number beyond what Postgres counts to"),
        pytest.param(b"a", b"one", id="a number that is none"),
        pytest.param(b"a\0b", b"0", id="a spool with a NUL in its name"),
        pytest.param(b"a\nb", b"0", id="a spool with a newline in its name"),
        pytest.param("ä".encode(), b"0", id="a spool with a name beyond ASCII"),
    ],
)
def test_a_batch_whose_place_is_none_is_refused(spool: bytes, first: bytes) -> None:
    with pytest.raises(ValueError):
        Batch.from_fields({b"spool": spool, b"first": first, b"records": b""})


@given(
    st.dictionaries(
        st.sampled_from([b"spool", b"first", b"records", b"other"]), st.binary(max_size=20) | st.just(b"12")
    )
)
@example({b"spool": b"\xff", b"first": b"0", b"records": b""})
@example({b"spool": b"a", b"first": b"9" * 5000, b"records": b""})
@example({b"spool": b"a", b"first": b"", b"records": b""})
@example({})
def test_any_other_entry_is_refused_with_the_errors_that_are_promised(fields: dict[bytes, bytes]) -> None:
    try:
        batch = Batch.from_fields(fields)
    except (ValueError, KeyError):
        return
    assert b"\n".join(batch.records) == fields[b"records"]
    assert batch.spool.encode() == fields[b"spool"]
    assert batch.first == int(fields[b"first"])


REPORT = SpoolReport(1_700_000_000_000, "edge-1", 9, 6, 3, 2, is_finished=True, is_removed=False)


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(report=_REPORTS)
async def test_a_report_of_a_spool_is_read_as_it_was_said(redis: Redis, report: SpoolReport) -> None:
    await redis.hset(REPORTS_KEY, "spool", report.to_bytes())
    said: Any = await redis.hget(REPORTS_KEY, "spool")
    assert SpoolReport.from_bytes(said) == report


def test_the_format_of_a_report_is_what_it_was() -> None:
    """Edges and workers are replaced one after the other."""
    said = (
        b'{"at_ms":1700000000000,"host":"edge-1","served":9,"recorded":6,"dropped":3,"earliest":2,'
        b'"is_finished":true,"is_removed":false}'
    )
    assert REPORT.to_bytes() == said
    assert SpoolReport.from_bytes(said) == REPORT


@pytest.mark.parametrize(
    "changed",
    [
        pytest.param({"at_ms": "now"}, id="a time that is text"),
        pytest.param({"at_ms": 1.5}, id="a time that is no whole number"),
        pytest.param({"at_ms": 2**63}, id="a time beyond what Postgres counts to"),
        pytest.param({"served": -1}, id="a negative number of redirects"),
        pytest.param({"recorded": None}, id="no number of records"),
        pytest.param({"recorded": 2**63}, id="a number of records beyond what Postgres counts to"),
        pytest.param({"dropped": True}, id="a number that is a truth value"),
        pytest.param({"earliest": -1}, id="a record before the first"),
        pytest.param({"earliest": "2"}, id="a record that is text"),
        pytest.param({"host": None}, id="no machine"),
        pytest.param({"host": 7}, id="a machine that is a number"),
        pytest.param({"is_finished": 1}, id="a truth value that is a number"),
        pytest.param({"is_removed": None}, id="no truth value"),
        pytest.param({"is_removed": "false"}, id="a truth value that is text"),
        pytest.param({"more": 1}, id="a field too many"),
    ],
)
def test_a_report_with_a_wrong_field_is_refused(changed: dict[str, object]) -> None:
    with pytest.raises(ValueError):
        SpoolReport.from_bytes(orjson.dumps(REPORT._asdict() | changed))


@pytest.mark.parametrize("missing", SpoolReport._fields)
def test_a_report_without_a_field_is_refused(missing: str) -> None:
    fields = {name: value for name, value in REPORT._asdict().items() if name != missing}
    with pytest.raises(ValueError):
        SpoolReport.from_bytes(orjson.dumps(fields))


@given(
    st.binary(max_size=60)
    | _JSON.map(orjson.dumps)
    | st.fixed_dictionaries(dict.fromkeys(SpoolReport._fields, _JSON)).map(orjson.dumps)
    | st.tuples(st.sampled_from(SpoolReport._fields), _JSON).map(
        lambda changed: orjson.dumps(REPORT._asdict() | dict([changed]))
    )
)
@example(orjson.dumps(list(REPORT)))
@example(CLOSED)
@example(b"{}")
@example(b"[" * 2000)
def test_any_other_report_is_refused_with_the_error_that_is_promised(said: bytes) -> None:
    try:
        report = SpoolReport.from_bytes(said)
    except ValueError:
        return
    assert SpoolReport.from_bytes(report.to_bytes()) == report
    assert all(type(value) is type(ours) for value, ours in zip(report, REPORT, strict=True))
