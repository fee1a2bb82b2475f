"""Mail that can't be sent: what is tried again, what is given up, and what is said of it."""

import logging

import pytest

from admin import mail
from admin.database import Connection
from admin.sealing import Sealer
from tests.admin.mailbox import MAIL, SEALER, TOKEN, Post, configured, pass_time, rows


async def test_mail_waits_while_the_server_is_away(
    connection: Connection, post: Post, caplog: pytest.LogCaptureFixture
) -> None:
    post.close()
    await mail.post(connection, SEALER, MAIL)
    for attempt in (1, 2):
        assert await mail.step(connection, SEALER, configured(post.url())) == 1
        [row] = await rows(connection)
        assert row["attempts"] == attempt
        assert "Error connecting to 127.0.0.1" in row["last_error"]
        assert await mail.step(connection, SEALER, configured(post.url())) == 0
        await pass_time(connection)
    post.open()
    await mail.step(connection, SEALER, configured(post.url()))
    assert [received.text for received in post.received] == [MAIL.text]
    assert await rows(connection) == []
    assert caplog.text.count("mail to ann@example.com waits") == 2


async def test_a_server_that_does_not_answer_is_not_waited_for(
    connection: Connection, post: Post, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither for one answer nor, when each comes just in time, for all of them."""
    post.silent.add(MAIL.recipient)
    await mail.post(connection, SEALER, MAIL)
    for name, said in (("_ANSWER_S", "Timed out"), ("_MAIL_S", "TimeoutError")):
        with monkeypatch.context() as changed:
            changed.setattr(mail, name, 0.2)
            await mail.step(connection, SEALER, configured(post.url()))
        [row] = await rows(connection)
        assert said in row["last_error"]
        await pass_time(connection)
    post.silent.clear()
    await mail.step(connection, SEALER, configured(post.url()))
    assert [received.text for received in post.received] == [MAIL.text]


async def test_what_is_put_off_is_tried_again_after_growing_pauses(connection: Connection, post: Post) -> None:
    post.rcpt[MAIL.recipient] = "450 4.2.0 greylisted"
    await mail.post(connection, SEALER, MAIL)
    pauses_s = []
    for _ in range(6):
        await mail.step(connection, SEALER, configured(post.url()))
        [row] = await rows(connection)
        assert row["last_error"] == "450 4.2.0 greylisted"
        pauses_s.append(round(float(row["pause_s"]) / 60) * 60)
        await pass_time(connection)
    assert pauses_s == [60, 300, 1800, 7200, 7200, 7200]
    del post.rcpt[MAIL.recipient]
    await mail.step(connection, SEALER, configured(post.url()))
    assert len(post.received) == 1


async def test_but_for_no_longer_than_a_day(
    connection: Connection, post: Post, caplog: pytest.LogCaptureFixture
) -> None:
    post.rcpt[MAIL.recipient] = "450 4.2.0 mailbox full"
    await mail.post(connection, SEALER, MAIL)
    await connection.execute("update mails set created_at = now() - interval '23:59', attempts = 9")
    await mail.step(connection, SEALER, configured(post.url()))
    [row] = await rows(connection)
    assert 0 < row["pause_s"] <= 60
    await pass_time(connection, seconds=60)
    del post.rcpt[MAIL.recipient]
    assert await mail.step(connection, SEALER, configured(post.url())) == 0
    assert await rows(connection) == [] and post.received == []
    assert "mail to ann@example.com is given up: it was not sent in a day, in 10 attempts: 450 4.2.0 mailbox full" in (
        caplog.text
    )


async def test_a_recipient_that_is_refused_for_good_is_given_up(
    connection: Connection, post: Post, caplog: pytest.LogCaptureFixture
) -> None:
    post.rcpt[MAIL.recipient] = "550 5.1.1 nobody of that name"
    await mail.post(connection, SEALER, MAIL)
    await mail.step(connection, SEALER, configured(post.url()))
    assert await rows(connection) == []
    assert "mail to ann@example.com is given up: 550 5.1.1 nobody of that name" in caplog.text
    assert TOKEN not in caplog.text and MAIL.subject not in caplog.text


@pytest.mark.parametrize("status", ["5.7.1 ", ""])
async def test_so_is_a_message_and_what_the_server_quotes_of_it_is_not_logged(
    connection: Connection, post: Post, caplog: pytest.LogCaptureFixture, status: str
) -> None:
    post.data[MAIL.recipient] = f"554 {status}https://app.example/reset?token={TOKEN} is on a list"
    await mail.post(connection, SEALER, MAIL)
    with caplog.at_level(logging.DEBUG, "admin"):
        await mail.step(connection, SEALER, configured(post.url()))
    assert await rows(connection) == []
    [line] = [record.getMessage() for record in caplog.records if record.name == "admin.mail"]
    assert line == f"mail to ann@example.com is given up: 554 {status}".strip()


async def test_one_that_fails_does_not_keep_back_the_others(
    connection: Connection, post: Post, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever became of the session with the server."""
    monkeypatch.setattr(mail, "_BATCH", 6)
    monkeypatch.setattr(mail, "_MAIL_S", 2.0)
    post.rcpt["bob@example.com"] = "550 5.1.1 nobody"
    post.data["cid@example.com"] = None
    post.silent.add("dan@example.com")
    post.data["eve@example.com"] = "451 4.3.0 later"
    for name in ("ann", "bob", "cid", "dan", "eve", "fay"):
        await mail.post(connection, SEALER, MAIL._replace(recipient=f"{name}@example.com"))
    assert await mail.step(connection, SEALER, configured(post.url())) == 6
    assert {received.recipients[0] for received in post.received} == {"ann@example.com", "fay@example.com"}
    waiting = {row["recipient"]: row["last_error"] for row in await rows(connection)}
    assert set(waiting) == {"cid@example.com", "dan@example.com", "eve@example.com"}
    assert waiting["dan@example.com"] == "TimeoutError"


async def test_mails_share_a_session(connection: Connection, post: Post) -> None:
    for _ in range(3):
        await mail.post(connection, SEALER, MAIL)
    await mail.step(connection, SEALER, configured(post.url()))
    assert len(post.received) == 3
    assert len({received.peer for received in post.received}) == 1


async def test_what_cannot_be_opened_is_given_up_loudly(
    connection: Connection, post: Post, caplog: pytest.LogCaptureFixture
) -> None:
    await mail.post(connection, Sealer("another secret that nobody has any more"), MAIL)
    await mail.post(connection, SEALER, MAIL._replace(recipient="bob@example.com"))
    await mail.step(connection, SEALER, configured(post.url()))
    assert [received.recipients for received in post.received] == [["bob@example.com"]]
    assert await rows(connection) == []
    [line] = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert line.getMessage().startswith("mail to ann@example.com is given up: LINKWIRE_SECRET")
