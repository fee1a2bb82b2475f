"""Bodies: whatever bytes arrive become exactly the fields that were sent, or one clear refusal."""

import contextlib
import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.types import Message

from admin.errors import Detail, Invalid, PayloadTooLarge
from admin.http.bodies import MAX_BODY_BYTES, body_bytes, body_of, fields_of
from admin.settings import AdminSettings
from shared.settings import load

JSON = "application/json"
FORM = "application/x-www-form-urlencoded"

TEXTS = st.text(st.characters(exclude_characters="\0", codec="utf-8"))
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXTS
)
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(TEXTS, inner))


def refusal(content_type: str, content: bytes) -> list[Detail]:
    with pytest.raises(Invalid) as refused:
        fields_of(content_type, content)
    return refused.value.details


def nested(depth: int) -> bytes:
    return b'{"a":' + b"[" * depth + b"]" * depth + b"}"


REPEATED = "The field 'b' is given twice."
TOO_DEEP = "It is nested more than 64 deep."
TOO_LARGE = "A whole number in it does not fit into 64 bits."
NO_NUL = "It must not contain the character NUL."
NOT_JSON = "It is not JSON: "

REFUSED: list[tuple[str, str, bytes, str, str]] = [
    ("nothing", JSON, b"", "body", "It is empty."),
    ("100,000 lists that never end", JSON, b'{"a":' + b"[" * 100_000, "body", NOT_JSON),
    ("100,000 lists", JSON, nested(100_000), "body", NOT_JSON),
    ("100,000 objects", JSON, b'{"a":' * 100_000 + b"1" + b"}" * 100_000, "body", NOT_JSON),
    ("as many lists as orjson takes", JSON, nested(1023), "body", TOO_DEEP),
    ("lists that lose to an equal key", JSON, nested(1023)[:-1] + b',"a":1}', "body", TOO_DEEP),
    ("65 lists", JSON, nested(65), "a", TOO_DEEP),
    ("a field twice", JSON, b'{"b":1,"b":1}', "body", REPEATED),
    ("a field twice after another", JSON, b'{"a":1,"b":1,"b":1}', "body", REPEATED),
    ("a field twice, spelt differently", JSON, b'{"b":1,"\\u0062":2}', "body", REPEATED),
    ("a field twice in an object", JSON, b'{"a":{"b":1,"c":2,"b":3}}', "body", REPEATED),
    ("a field twice in a list", JSON, b'{"a":[1,[{"b":1,"b":{}}]]}', "body", REPEATED),
    ("a field twice in a value that loses", JSON, b'{"a":{"b":1,"b":2},"a":1}', "body", REPEATED),
    ("a field twice in a form", FORM, b"b=1&a=2&b=1", "body", REPEATED),
    ("a field with NUL twice", JSON, b'{"\\u0000":1,"\\u0000":2}', "body", r"The field '\x00' is given twice."),
    ("NaN", JSON, b'{"a":NaN}', "body", NOT_JSON),
    ("Infinity", JSON, b'{"a":[Infinity]}', "body", NOT_JSON),
    ("-Infinity", JSON, b'{"a":-Infinity}', "body", NOT_JSON),
    ("1e400", JSON, b'{"a":1e400}', "body", NOT_JSON),
    ("-1e400", JSON, b'{"a":-1e400}', "body", NOT_JSON),
    ("10,000 digits", JSON, b'{"a":' + b"9" * 10_000 + b"}", "body", NOT_JSON),
    ("300 digits", JSON, b'{"a":-' + b"9" * 300 + b"}", "body", TOO_LARGE),
    ("2^64", JSON, b'{"a":18446744073709551616}', "body", TOO_LARGE),
    ("2^63", JSON, b'{"a":[{"b":9223372036854775808}]}', "body", TOO_LARGE),
    ("-2^63 - 1", JSON, b'{"a":-9223372036854775809}', "body", TOO_LARGE),
    ("invalid UTF-8", JSON, b'{"a":"\xff"}', "body", NOT_JSON),
    ("a surrogate in UTF-8", JSON, b'{"a":"\xed\xa0\x80"}', "body", NOT_JSON),
    ("UTF-16", JSON, '{"a":1}'.encode("utf-16"), "body", NOT_JSON),
    ("a high surrogate alone", JSON, b'{"a":"\\ud800"}', "body", NOT_JSON),
    ("a low surrogate alone", JSON, b'{"a":"\\udc00"}', "body", NOT_JSON),
    ("a surrogate in a key", JSON, b'{"\\ud800":1}', "body", NOT_JSON),
    ("a raw NUL", JSON, b'{"a":"\0"}', "body", NOT_JSON),
    ("NUL", JSON, b'{"a":"x\\u0000"}', "a", NO_NUL),
    ("NUL in a list", JSON, b'{"a":[[1,"\\u0000"]]}', "a", NO_NUL),
    ("NUL in an object", JSON, b'{"a":{"b":{"c":"\\u0000"}}}', "a", NO_NUL),
    ("NUL in a key of an object", JSON, b'{"a":{"b":{"\\u0000":1}}}', "a", NO_NUL),
    ("NUL in a field's name", JSON, b'{"a\\u0000":1}', "body", NO_NUL),
    ("NUL in a form", FORM, b"a=%00", "a", NO_NUL),
    ("a raw NUL in a form", FORM, b"a=x\0", "a", NO_NUL),
    ("NUL in a field's name in a form", FORM, b"%00=1", "body", NO_NUL),
    ("a surrogate in a form", FORM, b"a=%ED%A0%80", "body", "It is not a form in UTF-8 with at most 200 fields."),
]


@pytest.mark.parametrize(
    ("content_type", "content", "field", "message"), [case[1:] for case in REFUSED], ids=[case[0] for case in REFUSED]
)
def test_what_no_field_takes_is_refused_with_its_reason(
    content_type: str, content: bytes, field: str, message: str
) -> None:
    [detail] = refusal(content_type, content)
    assert detail.field == field
    assert detail.message.startswith(message)
    assert detail.message.endswith(".")


def test_every_field_with_nul_is_named() -> None:
    assert refusal(JSON, b'{"a":"\\u0000","b":1,"c":["\\u0000"]}') == [Detail("a", NO_NUL), Detail("c", NO_NUL)]


@pytest.mark.parametrize("number", [-(2**63), 2**63 - 1, 0, 2**53 + 1])
def test_numbers_of_64_bits_are_exact(number: int) -> None:
    assert fields_of(JSON, b'{"a":%d}' % number) == {"a": number}


def test_64_levels_are_read() -> None:
    assert json.dumps(fields_of(JSON, nested(64))).encode() == nested(64).replace(b":", b": ")


def test_what_looks_like_an_escaped_nul_is_text() -> None:
    assert fields_of(JSON, rb'{"a":"\\u0000"}') == {"a": r"\u0000"}


@given(VALUES, st.booleans())
def test_any_value_is_read_as_it_was_sent(value: Any, is_escaped: bool) -> None:
    sent = json.dumps({"a": value}, ensure_ascii=is_escaped)
    # As text, because Python thinks that True is 1 and 1 is 1.0.
    assert json.dumps(fields_of(JSON, sent.encode()), ensure_ascii=is_escaped) == sent


@given(
    VALUES,
    st.sampled_from(['"\\u0000"', '{"\\u0000":1}', '{"b":1,"b":1}', "[NaN]", '"\\ud800"', '"\0"'])
    | st.integers(min_value=2**63).map(str)
    | st.integers(max_value=-(2**63) - 1).map(str),
    st.booleans(),
)
def test_no_flaw_hides_beside_any_value(value: Any, flaw: str, is_first: bool) -> None:
    values = [flaw, json.dumps(value)] if is_first else [json.dumps(value), flaw]
    refusal(JSON, b'{"a":[{"b":[%s]}]}' % ",".join(values).encode())


@given(
    st.sampled_from([JSON, FORM, "", "application/problem+json", "text/plain"]),
    st.binary()
    | st.text('{}[]":,\\u0dfe19-.+=&% \0ab').map(str.encode)
    | st.tuples(VALUES, st.integers(0, 50), st.binary(max_size=3)).map(
        lambda made: json.dumps({"a": made[0]}).encode()[: made[1]] + made[2]
    ),
)
@example(JSON, b'{"a":' * 500 + b"1" + b"}" * 500)
@example(JSON, b'{"a":-' + b"1" * 5000 + b"}")
@example(JSON, b"[" * 1000 + b"]" * 1000)
@example("", b"[")
@example(FORM, b"&".join(b"%d=" % number for number in range(201)))
def test_any_bytes_are_fields_or_refused(content_type: str, content: bytes) -> None:
    with contextlib.suppress(Invalid):
        json.dumps(fields_of(content_type, content), allow_nan=False).encode()


# Read as a model.


class Made(BaseModel):
    """A model of two words, as routes have them."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="forbid")

    created_at: str
    is_kept: bool = False
    title: str = ""


def request_of(content_type: str, *messages: Message) -> Request:
    coming = iter(messages)

    async def receive() -> Message:
        return next(coming)

    app = Starlette()
    app.state.settings = load(AdminSettings, {})
    return Request({"type": "http", "app": app, "headers": [(b"content-type", content_type.encode())]}, receive)


def chunk(content: bytes, *, more: bool = False) -> Message:
    return {"type": "http.request", "body": content, "more_body": more}


async def read(content: bytes, content_type: str = JSON) -> Made:
    return await body_of(Made, or_form=True)(request_of(content_type, chunk(content)))


@pytest.mark.parametrize(
    ("content_type", "content"),
    [
        (JSON, b'{"created_at":"now","is_kept":true}'),
        (JSON, b'{"createdAt":"now","isKept":true}'),
        (JSON, b'{"createdAt":"now","is_kept":true}'),
        (FORM, b"created_at=now&isKept=true"),
    ],
)
async def test_a_field_is_taken_in_either_spelling(content_type: str, content: bytes) -> None:
    assert await read(content, content_type) == Made(created_at="now", is_kept=True)


@pytest.mark.parametrize(
    ("content_type", "content"),
    [(JSON, b'{"createdAt":"a","created_at":"b"}'), (FORM, b"created_at=a&createdAt=a")],
)
async def test_a_field_in_both_spellings_is_refused(content_type: str, content: bytes) -> None:
    with pytest.raises(Invalid) as refused:
        await read(content, content_type)
    assert refused.value.details == [Detail("createdAt", "It is given twice, as createdAt and as created_at.")]


async def test_each_field_in_both_spellings_is_named() -> None:
    with pytest.raises(Invalid) as refused:
        await read(b'{"createdAt":1,"created_at":2,"isKept":3,"is_kept":4,"title":5}')
    assert [detail.field for detail in refused.value.details] == ["createdAt", "isKept"]


@pytest.mark.parametrize("content_type", [FORM, ""])
async def test_a_form_is_refused_where_json_is_meant(content_type: str) -> None:
    with pytest.raises(Invalid):
        await body_of(Made)(request_of(content_type, chunk(b"createdAt=now")))


async def test_of_very_many_mistakes_a_hundred_are_named() -> None:
    with pytest.raises(Invalid) as refused:
        await read(json.dumps({str(number): 0 for number in range(1000)}).encode())
    assert len(refused.value.details) == 100
    with pytest.raises(Invalid) as refused:
        await read(json.dumps({str(number): "\0" for number in range(1000)}).encode())
    assert len(refused.value.details) == 100


async def test_a_body_may_be_as_large_as_the_limit_and_no_larger() -> None:
    content = b'{"createdAt":"%s"}' % (b"a" * (MAX_BODY_BYTES - 16))
    assert len((await read(content)).created_at) == MAX_BODY_BYTES - 16
    with pytest.raises(PayloadTooLarge):
        await read(content + b" ")


async def test_a_body_that_ends_early_is_refused() -> None:
    request = request_of(JSON, chunk(b'{"createdAt":"now"}', more=True), {"type": "http.disconnect"})
    with pytest.raises(Invalid) as refused:
        await body_of(Made)(request)
    assert refused.value.details == [Detail("body", "It ended early.")]


async def test_a_body_may_be_asked_for_more_than_once() -> None:
    request = request_of(JSON, chunk(b'{"createdAt":', more=True), chunk(b'"now"}'))
    assert await body_of(Made)(request) == Made(created_at="now")
    assert await body_bytes(request) == await body_bytes(request) == b'{"createdAt":"now"}'
