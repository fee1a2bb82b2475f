"""Mail, handed in to a real SMTP server: what arrives, what is tried again, what is given up, what nobody may read."""

import asyncio
import datetime
import email
import ipaddress
import logging
import re
import signal
import ssl
import subprocess
import sys
import textwrap
import threading
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, ExitStack
from email.message import EmailMessage
from email.policy import SMTPUTF8
from pathlib import Path
from typing import Any, NamedTuple

import asyncpg
import idna
import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from admin import mail, worker
from admin.database import Connection
from admin.embedded import free_port
from admin.identity import letters
from admin.mail import Mail
from admin.sealing import Sealer
from admin.settings import AdminSettings
from shared.redis import Redis
from shared.settings import SettingsError, load
from tests.admin.conftest import founded
from tests.conftest import Servers
from tests.shared.waiting import until

SECRET = "0123456789abcdef0123456789abcdef"
SEALER = Sealer(SECRET)
TOKEN = "token-5f3a9c7d"
MAIL = Mail("ann@example.com", "Choose a new password", f"Follow this link:\nhttps://app.example/reset?token={TOKEN}\n")

HEADERS = [
    "Auto-Submitted",
    "Content-Transfer-Encoding",
    "Content-Type",
    "Date",
    "From",
    "MIME-Version",
    "Message-ID",
    "Subject",
    "To",
]


def configured(smtp_url: str = "", **values: str) -> AdminSettings:
    return load(
        AdminSettings,
        {
            "LINKWIRE_SECRET": SECRET,
            "LINKWIRE_SMTP_URL": smtp_url,
            "LINKWIRE_MAIL_FROM": "Linkwire <no-reply@links.example>",
            **values,
        },
    )


class Received(NamedTuple):
    sender: str
    recipients: list[str]
    content: bytes
    tls: bool
    peer: object
    login: object

    @property
    def message(self) -> EmailMessage:
        message = email.message_from_string(self.content.decode(), policy=SMTPUTF8)
        assert isinstance(message, EmailMessage)
        return message

    @property
    def text(self) -> str:
        return str(self.message.get_content()).replace("\r\n", "\n")


class Post:
    """Takes mail, unless it is told to answer otherwise to RCPT or DATA, or not at all; each by recipient."""

    def __init__(self, host: str = "127.0.0.1", **options: Any) -> None:
        self._host, self.port, self._options = host, free_port(), options
        self._controller: Controller | None = None
        self.received: list[Received] = []
        self.rcpt: dict[str, str] = {}
        self.data: dict[str, str | None] = {}
        self.silent: set[str] = set()
        self.has_read = threading.Event()

    def url(self, scheme: str = "smtp", user: str = "") -> str:
        return f"{scheme}://{user}{self._host}:{self.port}"

    def open(self) -> "Post":
        options = {"server_hostname": "post.example", **self._options}
        self._controller = Controller(self, hostname=self._host, port=self.port, **options)
        self._controller.start()
        return self

    def close(self) -> None:
        if self._controller is not None:
            self._controller.stop()
            self._controller = None

    # What the server asks, in a thread of its own.

    async def handle_RCPT(
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        if address in self.rcpt:
            return self.rcpt[address]
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        [recipient] = envelope.rcpt_tos
        self.has_read.set()
        while recipient in self.silent:
            await asyncio.sleep(0.01)
        answer = self.data.get(recipient, "250 OK")
        if answer is None:
            assert server.transport is not None
            server.transport.close()
            return "421 never arrives"
        assert isinstance(envelope.content, bytes) and envelope.mail_from is not None
        if answer.startswith("250"):
            self.received.append(
                Received(
                    envelope.mail_from,
                    envelope.rcpt_tos,
                    envelope.content,
                    session.ssl is not None,
                    session.peer,
                    session.auth_data,
                )
            )
        return answer


@pytest.fixture
def new_post() -> Iterator[Callable[..., Post]]:
    with ExitStack() as opened:

        def make(host: str = "127.0.0.1", **options: Any) -> Post:
            post = Post(host, **options).open()
            opened.callback(post.close)
            return post

        yield make


@pytest.fixture
def post(new_post: Callable[..., Post]) -> Post:
    return new_post()


class Certificate(NamedTuple):
    file: Path
    context: ssl.SSLContext


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    """Signed by nobody but itself, for 127.0.0.2: an address here, but none that is known to be here."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "post.example")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.2"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    folder = tmp_path_factory.mktemp("certificate")
    (folder / "certificate.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "certificate.pem", folder / "key.pem")
    return Certificate(folder / "certificate.pem", context)


async def rows(connection: Connection) -> list[asyncpg.Record]:
    return await connection.fetch("select *, extract(epoch from due_at - now()) as pause_s from mails order by id")


async def pass_time(connection: Connection, **by: float) -> None:
    """Move all mails into the past, so that what was to come is due."""
    await connection.execute("update mails set due_at = least(due_at, now())")
    if by:
        await connection.execute("update mails set created_at = created_at - make_interval(secs => $1)", by["seconds"])


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


# What the server wants.


def guarded(context: ssl.SSLContext, user: bytes, password: bytes) -> dict[str, Any]:
    """Options of a server that takes mail from this user only, over TLS."""

    def authenticate(
        _server: SMTP, _session: Session, _envelope: Envelope, _mechanism: str, data: LoginPassword
    ) -> AuthResult:
        return AuthResult(success=(data.login, data.password) == (user, password), handled=False, auth_data=data.login)

    return {"tls_context": context, "require_starttls": True, "auth_required": True, "authenticator": authenticate}


async def test_it_logs_in_with_what_the_url_says(
    connection: Connection, new_post: Callable[..., Post], certificate: Certificate
) -> None:
    post = new_post(**guarded(certificate.context, b"ann@example.com", "p:a/s%s wörd".encode()))
    await mail.post(connection, SEALER, MAIL)
    user = "ann%40example.com:p%3Aa%2Fs%25s%20w%C3%B6rd@"
    await mail.step(connection, SEALER, configured(post.url(user=user)))
    [received] = post.received
    assert received.login == b"ann@example.com"


async def test_a_wrong_password_is_no_fault_of_the_mail(
    connection: Connection,
    new_post: Callable[..., Post],
    certificate: Certificate,
    caplog: pytest.LogCaptureFixture,
) -> None:
    post = new_post(**guarded(certificate.context, b"ann", b"right"))
    await mail.post(connection, SEALER, MAIL)
    await mail.step(connection, SEALER, configured(post.url(user="ann:mistaken@")))
    assert post.received == []
    [row] = await rows(connection)
    assert row["last_error"].startswith("535 ")
    assert "mistaken" not in caplog.text
    await pass_time(connection)
    await mail.step(connection, SEALER, configured(post.url(user="ann:right@")))
    assert len(post.received) == 1


async def test_it_turns_to_tls_where_that_is_offered(
    connection: Connection, new_post: Callable[..., Post], certificate: Certificate
) -> None:
    for options, tls in (({}, False), ({"tls_context": certificate.context}, True)):
        post = new_post(**options)
        await mail.post(connection, SEALER, MAIL)
        await mail.step(connection, SEALER, configured(post.url()))
        assert [received.tls for received in post.received] == [tls]


async def test_smtps_begins_with_tls(
    connection: Connection, new_post: Callable[..., Post], certificate: Certificate
) -> None:
    post = new_post(ssl_context=certificate.context)
    await mail.post(connection, SEALER, MAIL)
    await mail.step(connection, SEALER, configured(post.url("smtps")))
    assert len(post.received) == 1


@pytest.mark.parametrize(("scheme", "option"), [("smtp", "tls_context"), ("smtps", "ssl_context")])
async def test_certificates_of_other_machines_are_verified(
    connection: Connection,
    new_post: Callable[..., Post],
    certificate: Certificate,
    monkeypatch: pytest.MonkeyPatch,
    scheme: str,
    option: str,
) -> None:
    post = new_post("127.0.0.2", **{option: certificate.context})
    await mail.post(connection, SEALER, MAIL)
    await mail.step(connection, SEALER, configured(post.url(scheme)))
    [row] = await rows(connection)
    assert "CERTIFICATE_VERIFY_FAILED" in row["last_error"]
    assert post.received == []
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate.file))  # now the system knows it
    await pass_time(connection)
    await mail.step(connection, SEALER, configured(post.url(scheme)))
    assert len(post.received) == 1


# 127.0.0.2 is another machine to us.


def trusting(logins: list[bytes]) -> dict[str, Any]:
    """Options of a server that lets everybody log in, also without TLS."""

    def authenticate(
        _server: SMTP, _session: Session, _envelope: Envelope, _mechanism: str, data: LoginPassword
    ) -> AuthResult:
        logins.append(data.login)
        return AuthResult(success=True)

    return {"authenticator": authenticate, "auth_require_tls": False}


async def test_a_password_goes_to_another_machine_over_tls_only(
    connection: Connection, new_post: Callable[..., Post], certificate: Certificate, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where STARTTLS is not offered, somebody on the way may have taken the offer out."""
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate.file))
    logins: list[bytes] = []
    stripped = new_post("127.0.0.2", **trusting(logins))
    await mail.post(connection, SEALER, MAIL)
    await mail.step(connection, SEALER, configured(stripped.url(user="ann:secret@")))
    assert (logins, stripped.received) == ([], [])
    [row] = await rows(connection)
    assert "STARTTLS" in row["last_error"]
    for scheme, option in (("smtp", "tls_context"), ("smtps", "ssl_context")):
        await mail.post(connection, SEALER, MAIL)
        await pass_time(connection)
        honest = new_post("127.0.0.2", **trusting(logins), **{option: certificate.context})
        await mail.step(connection, SEALER, configured(honest.url(scheme, user="ann:secret@")))
        assert honest.received and logins.pop() == b"ann"


async def test_without_a_password_another_machine_need_not_offer_tls(
    connection: Connection, new_post: Callable[..., Post]
) -> None:
    post = new_post("127.0.0.2")
    await mail.post(connection, SEALER, MAIL)
    await mail.step(connection, SEALER, configured(post.url()))
    assert [received.tls for received in post.received] == [False]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("LINKWIRE_SMTP_URL", "smtp://:587"),
        ("LINKWIRE_MAIL_FROM", "Linkwire"),
        ("LINKWIRE_MAIL_FROM", "Linkwire <no-reply>"),
        ("LINKWIRE_MAIL_FROM", "Linkwire <no-reply@links.example>\nBcc: eve@example.com"),
    ],
)
async def test_settings_that_mean_nothing_stop_the_start(connection: Connection, name: str, value: str) -> None:
    await mail.post(connection, SEALER, MAIL)
    with pytest.raises(SettingsError, match=name):
        await mail.step(connection, SEALER, configured(**{"LINKWIRE_SMTP_URL": "smtp://127.0.0.1:1", name: value}))
    [row] = await rows(connection)
    assert row["attempts"] == 0


# What fails.


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


# Several workers, and dead ones.


async def test_two_workers_send_each_mail_once(connection: Connection, database_url: str, post: Post) -> None:
    people = [f"person{number}@example.com" for number in range(30)]
    for person in people:
        await mail.post(connection, SEALER, MAIL._replace(recipient=person))

    async def work(connection: Connection) -> int:
        count = 0
        while done := await mail.step(connection, SEALER, configured(post.url())):
            count += done
        return count

    async with AsyncExitStack() as connected:
        workers = []
        for _ in range(2):
            workers.append(await asyncpg.connect(database_url))
            connected.push_async_callback(workers[-1].close)
        counts = await asyncio.gather(*[work(each) for each in workers])
    assert sum(counts) == 30 and min(counts) > 0
    assert Counter(received.recipients[0] for received in post.received) == Counter(people)


async def test_a_worker_passes_over_what_another_is_claiming(
    connection: Connection, database_url: str, post: Post
) -> None:
    await mail.post(connection, SEALER, MAIL)
    other = await asyncpg.connect(database_url)
    async with other.transaction():
        assert len(await mail._claim(other)) == 1
        await mail.post(connection, SEALER, MAIL._replace(recipient="bob@example.com"))
        assert await asyncio.wait_for(mail.step(connection, SEALER, configured(post.url())), 10) == 1
    await other.close()
    assert [received.recipients for received in post.received] == [["bob@example.com"]]


_SENDS = textwrap.dedent("""
    import asyncio, sys, asyncpg
    from admin import mail
    from admin.sealing import Sealer
    from admin.settings import AdminSettings
    from shared.settings import load

    async def send():
        settings = load(AdminSettings, {"LINKWIRE_SMTP_URL": sys.argv[2]})
        await mail.step(await asyncpg.connect(sys.argv[1]), Sealer(sys.argv[3]), settings)

    asyncio.run(send())
""")


async def test_what_a_killed_worker_was_at_is_sent_by_another(
    connection: Connection, database_url: str, post: Post
) -> None:
    post.silent.add(MAIL.recipient)
    await mail.post(connection, SEALER, MAIL)
    killed = subprocess.Popen([sys.executable, "-c", _SENDS, database_url, post.url(), SECRET])  # noqa: ASYNC220
    await until(post.has_read.is_set)
    assert await mail.step(connection, SEALER, configured(post.url())) == 0
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert await mail.step(connection, SEALER, configured(post.url())) == 0
    post.close()  # and what it holds of that mail is gone
    post.silent.clear()
    post.open()
    [row] = await rows(connection)
    assert 0 < row["pause_s"] <= mail._LEASE_S
    await pass_time(connection)
    assert await mail.step(connection, SEALER, configured(post.url())) == 1
    assert [received.text for received in post.received] == [MAIL.text]


def test_a_lease_is_longer_than_a_batch_may_take() -> None:
    assert mail._LEASE_S > mail._BATCH * mail._MAIL_S + mail._ANSWER_S  # the last is for saying goodbye


async def test_what_was_accepted_and_is_sent_again_can_be_told(
    connection: Connection, post: Post, monkeypatch: pytest.MonkeyPatch
) -> None:
    await mail.post(connection, SEALER, MAIL)
    await mail.post(connection, SEALER, MAIL)

    async def die(*_: object) -> None:
        raise ConnectionError

    with monkeypatch.context() as dying, pytest.raises(ConnectionError):
        dying.setattr(mail, "_delete", die)
        await mail.step(connection, SEALER, configured(post.url()))
    assert len(post.received) == 1
    await pass_time(connection)
    await mail.step(connection, SEALER, configured(post.url()))
    assert len(post.received) == 3
    contents = Counter(received.content for received in post.received)
    assert sorted(contents.values()) == [1, 2]
    assert len({received.message["Message-ID"] for received in post.received}) == 2


async def test_the_worker_sends_what_is_posted(
    connection: Connection, servers: Servers, database_url: str, redis: Redis, post: Post
) -> None:
    stop = asyncio.Event()
    settings = configured(post.url(), DATABASE_URL=database_url, REDIS_URL=servers.redis_url)
    working = asyncio.create_task(worker.run(settings, stop))
    try:
        for number in (1, 2):
            await mail.post(connection, SEALER, MAIL)
            await until(lambda: len(post.received) == number)  # noqa: B023
    finally:
        stop.set()
        await working


async def test_the_worker_writes_what_was_asked_for(
    connection: Connection, servers: Servers, database_url: str, redis: Redis, post: Post
) -> None:
    await founded(connection, "one")
    stop = asyncio.Event()
    settings = configured(post.url(), DATABASE_URL=database_url, REDIS_URL=servers.redis_url)
    working = asyncio.create_task(worker.run(settings, stop))
    try:
        await letters.ask_for_reset(connection, "one@example.com")
        await until(lambda: post.received)
    finally:
        stop.set()
        await working
    assert post.received[0].recipients == ["one@example.com"]


async def test_a_worker_without_a_sender_does_not_start(servers: Servers, database_url: str, redis: Redis) -> None:
    values = {"DATABASE_URL": database_url, "REDIS_URL": servers.redis_url, "LINKWIRE_MAIL_FROM": "nobody"}
    with pytest.raises(SettingsError, match="LINKWIRE_MAIL_FROM"):
        await asyncio.wait_for(worker.run(configured(**values), asyncio.Event()), 10)


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


# What may be posted.


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
