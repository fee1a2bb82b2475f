"""A mailbox for tests: a real SMTP server that keeps what it gets, and the mail that is posted to it."""

import asyncio
import datetime
import email
import ipaddress
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from email.message import EmailMessage
from email.policy import SMTPUTF8
from pathlib import Path
from typing import Any, NamedTuple

import asyncpg
import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, Envelope, Session
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from admin.database import Connection
from admin.embedded import free_port
from admin.mail import Mail
from admin.sealing import Sealer
from admin.settings import AdminSettings
from shared.settings import load

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
