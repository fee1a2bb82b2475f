"""Mail: what is posted arrives as it was, and is readable by nobody on its way."""

import logging
import re
from collections.abc import Callable

import pytest

from admin import mail
from admin.database import Connection
from admin.mail import Mail
from tests.admin.mailbox import HEADERS, MAIL, SEALER, TOKEN, Post, configured, pass_time, rows


async def test_a_mail_arrives_as_it_was_posted(connection: Connection, post: Post) -> None:
    await mail.post(connection, SEALER, MAIL)
    [row] = await rows(connection)
    assert await mail.step(connection, SEALER, configured(post.url())) == 1
    [received] = post.received
    assert received.sender == "no-reply@links.example"
    assert received.recipients == [MAIL.recipient]
    assert received.text == MAIL.text
    message = received.message
    assert message["From"] == "Linkwire <no-reply@links.example>"
    assert message["To"] == MAIL.recipient
    assert message["Subject"] == MAIL.subject
    assert message["Date"].datetime == row["created_at"].replace(microsecond=0)
    assert message["Auto-Submitted"] == "auto-generated"
    assert re.fullmatch(r"<[0-9a-f]{32}@links\.example>", message["Message-ID"])
    assert message.get_content_type() == "text/plain"
    assert sorted(message.keys()) == HEADERS
    assert await rows(connection) == []
    assert await mail.step(connection, SEALER, configured(post.url())) == 0


async def test_so_does_one_that_is_not_ascii(connection: Connection, post: Post) -> None:
    posted = Mail(
        "ann@example.com",
        "Grüße an 日本語の会社名 株式会社 のチーム 👋 " * 3,
        "Schöne Grüße\n日本語\n" + "ä" * 500 + "\n",
    )
    posted = posted._replace(subject=posted.subject.strip())
    await mail.post(connection, SEALER, posted)
    await mail.step(connection, SEALER, configured(post.url(), LINKWIRE_MAIL_FROM="Büro <no-reply@links.example>"))
    [received] = post.received
    assert received.message["Subject"] == posted.subject
    assert received.message["From"].addresses[0].display_name == "Büro"
    assert received.text == posted.text


async def test_a_host_that_is_not_ascii_needs_no_such_server(
    connection: Connection, new_post: Callable[..., Post]
) -> None:
    post = new_post(enable_SMTPUTF8=False)
    await mail.post(connection, SEALER, MAIL._replace(recipient="ann@bücher.example"))
    await mail.step(connection, SEALER, configured(post.url()))
    [received] = post.received
    assert received.recipients == ["ann@xn--bcher-kva.example"]
    assert received.message["To"] == "ann@xn--bcher-kva.example"


@pytest.mark.parametrize("recipient", ["änn@bücher.example", "अजय@डाटा.भारत"])
async def test_an_address_that_is_not_ascii_needs_a_server_that_takes_it(
    connection: Connection, new_post: Callable[..., Post], caplog: pytest.LogCaptureFixture, recipient: str
) -> None:
    posted = MAIL._replace(recipient=recipient)
    for takes_it in (True, False):
        post = new_post(enable_SMTPUTF8=takes_it)
        await mail.post(connection, SEALER, posted)
        await mail.step(connection, SEALER, configured(post.url()))
        assert [received.recipients for received in post.received] == [[posted.recipient]] * takes_it
        assert await rows(connection) == []
    assert f"mail to {recipient} is given up" in caplog.text


async def test_a_mail_is_posted_with_the_change_or_not_at_all(connection: Connection, post: Post) -> None:
    with pytest.raises(LookupError):
        async with connection.transaction():
            await mail.post(connection, SEALER, MAIL)
            raise LookupError
    assert await mail.step(connection, SEALER, configured(post.url())) == 0


async def test_nothing_of_it_is_readable_in_the_database(connection: Connection, post: Post) -> None:
    await mail.post(connection, SEALER, MAIL)
    post.data[MAIL.recipient] = f"451 4.7.1 no links such as https://app.example/reset?token={TOKEN} today"
    await mail.step(connection, SEALER, configured(post.url()))
    [row] = await rows(connection)
    assert row["last_error"] == "451 4.7.1"
    everything = str(dict(row)).encode() + row["sealed"]
    for secret in (TOKEN, MAIL.subject, "Follow", "app.example"):
        assert secret.encode() not in everything


# Where no server is configured.


async def test_in_development_mail_is_printed(connection: Connection, caplog: pytest.LogCaptureFixture) -> None:
    await mail.post(connection, SEALER, MAIL)
    with caplog.at_level(logging.INFO, "admin"):
        assert await mail.step(connection, SEALER, configured(LINKWIRE_DEVELOPMENT="1")) == 1
    [line] = [record.getMessage() for record in caplog.records if record.name == "admin.mail"]
    assert line == f"mail to {MAIL.recipient}: {MAIL.subject}\n\n{MAIL.text}"
    assert await rows(connection) == []


async def test_but_not_where_a_server_is_configured(
    connection: Connection, post: Post, caplog: pytest.LogCaptureFixture
) -> None:
    await mail.post(connection, SEALER, MAIL)
    with caplog.at_level(logging.DEBUG, "admin"):
        await mail.step(connection, SEALER, configured(post.url(), LINKWIRE_DEVELOPMENT="1"))
    assert len(post.received) == 1
    assert TOKEN not in "".join(record.getMessage() for record in caplog.records if record.name == "admin.mail")


async def test_where_nothing_sends_it_mail_waits_for_a_day(
    connection: Connection, caplog: pytest.LogCaptureFixture
) -> None:
    await mail.post(connection, SEALER, MAIL)
    await pass_time(connection, seconds=86_000)
    assert await mail.step(connection, SEALER, configured()) == 0
    [row] = await rows(connection)
    assert row["attempts"] == 0
    await pass_time(connection, seconds=1_000)
    assert await mail.step(connection, SEALER, configured()) == 0
    assert await rows(connection) == []
    assert "mail to ann@example.com is given up: it was not sent in a day, in 0 attempts" in caplog.text
