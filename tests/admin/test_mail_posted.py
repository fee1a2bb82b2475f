"""What may be posted: anything that arrives as it was, and nothing else."""

import re
import unicodedata

import idna
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from admin import mail
from admin.database import Connection
from admin.mail import Mail
from tests.admin.mailbox import HEADERS, MAIL, SEALER, Post, configured, rows


@pytest.mark.parametrize(
    "recipient",
    [
        "",
        "ann",
        "ann@",
        "@example.com",
        "ann@example.com, eve@example.com",
        "ann@example.com,eve@example.com",
        "Ann <ann@example.com>",
        "<ann@example.com>",
        "ann@example.com\n",
        "ann@example.com\r\nBcc: eve@example.com",
        "ann@example.com>\r\nRCPT TO:<eve@example.com",
        "ann@example.com SIZE=1",
        "ann@example.com(eve)",
        '"ann eve"@example.com',
        "ann..eve@example.com",
        "=?utf-8?q?eve?=@example.com",
        "ann@example.com\0",
        "ann\ud800@example.com",
    ],
)
async def test_a_recipient_is_one_address(connection: Connection, recipient: str) -> None:
    with pytest.raises(ValueError, match="one address"):
        await mail.post(connection, SEALER, MAIL._replace(recipient=recipient))
    assert await rows(connection) == []


LINE_ENDS = re.compile(r"\r\n|\r|\n")
BREAKS = [
    "\r",
    "\n",
    "\r\n",
    "\n.\n",
    "\r\n.\r\n",
    "\r\nBcc: eve@example.com\r\n",
    "\n\n",
    "\x0b",
    "\x85",
    "\u2028",
    "\0",
]
PIECES = [
    *BREAKS,
    "=?utf-8?q?a?=",
    "é" * 60,
    "x" * 1500,
    "日本語の会社名",
    "👨‍👩‍👧",
    " ",
    "  ",
    "\t",
    ".",
    "From ",
    "=",
    "Acme",
    "\ud800",
]
ANY_TEXT = st.text(max_size=200) | st.lists(st.sampled_from(PIECES), max_size=15).map("".join)
A_LINE = ANY_TEXT.map(lambda text: re.sub(r"[\s\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]", " ", text))


def has(text: str, *categories: str) -> bool:
    return any(unicodedata.category(character) in categories for character in text)


def lines(text: str) -> list[str]:
    """A mail ends with the end of a line, whether its text does or not."""
    return LINE_ENDS.sub("\n", text).removesuffix("\n").split("\n")


@settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(subject=ANY_TEXT | A_LINE, text=ANY_TEXT)
@example(subject="日本語の会社名 " * 9 + "x", text="a")
@example(subject="you are invited " * 4 + "x" * 6, text="a")
@example(subject="=?utf-8?q?a?=", text="a")
@example(subject="a\r\nBcc: eve@example.com", text="a")
@example(subject="a\n", text="a")
@example(subject="a\r\n\r\nb", text="a")
@example(subject="a", text="b\r\n.\r\nQUIT\r\n")
async def test_any_mail_arrives_as_it_was_or_is_refused_when_posted(
    connection: Connection, post: Post, subject: str, text: str
) -> None:
    post.received.clear()
    is_refused = has(subject, "Cc", "Cs", "Zl", "Zp") or has(re.sub(r"[\t\r\n]", "", text), "Cc", "Cs")
    try:
        await mail.post(connection, SEALER, Mail("ann@example.com", subject, text))
    except ValueError:
        assert is_refused
        return
    assert not is_refused
    await mail.step(connection, SEALER, configured(post.url()))
    [received] = post.received
    assert received.recipients == ["ann@example.com"]
    assert received.content.isascii()
    assert received.message["Subject"] == subject
    assert lines(received.text) == lines(text)
    assert sorted(received.message.keys()) == HEADERS
    assert max(map(len, received.content.split(b"\r\n"))) <= 78


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text("ab.@,;:<>()[]\"\\ =?\n\r\t\0é%!'", max_size=12) | st.from_regex(r"[a-é.=?ज]{1,9}@[a-éा.]{1,9}"))
async def test_any_recipient_is_the_only_one_or_is_refused_when_posted(
    connection: Connection, post: Post, recipient: str
) -> None:
    post.received.clear()
    try:
        await mail.post(connection, SEALER, MAIL._replace(recipient=recipient))
    except ValueError:
        return
    await mail.step(connection, SEALER, configured(post.url()))
    [received] = post.received
    name, _at, host = recipient.rpartition("@")
    sent_to = f"{name}@{idna.encode(host).decode()}" if name.isascii() and not host.isascii() else recipient
    assert received.recipients == [sent_to]
    assert [address.addr_spec for address in received.message["To"].addresses] == [sent_to]
    assert sorted(received.message.keys()) == HEADERS
