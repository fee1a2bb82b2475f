"""Mail to people: posted with the change that asks for it, sent by the worker. The row is the job.

Rules of this file:

1. A mail is posted in the caller's transaction: it is sent if that commits, and else it never was. Subject and text are
   sealed, because most mail carries a token, and no log line and no error ever holds them.
2. A step claims mails with a lease, commits that, and only then talks to the server; what died with its worker is sent
   by another when the lease is over. A mail is deleted once the server has accepted it. A crash in between sends it
   twice, with the same Message-ID, by which mailboxes can tell.
3. What fails is tried again after growing pauses. A recipient or a message that is refused for good is given up, and so
   is what is older than a day, also where nothing sends mail: deleted, with a line in the log.
4. A server that has read the text may quote it (filters quote links). Of what it says then only the codes are kept.
5. Certificates are verified, against the system's authorities. Not those of a server on this machine: nobody is on the
   way to it, and none has a certificate for `localhost`. TLS is turned to where it is offered; where a password goes
   to another machine it is required, or somebody on the way could take the offer out and read the password.
6. What can't arrive as it is, is refused when it is posted. So is whatever could make a second header or recipient.
"""

import asyncio
import contextlib
import hashlib
import json
import logging
import re
from email import message_from_string
from email.header import Header
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import parseaddr
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

import aiosmtplib
import asyncpg
import idna

from admin.database import Connection
from admin.sealing import CannotOpen, Sealer
from admin.settings import AdminSettings
from shared.settings import SettingsError

log = logging.getLogger(__name__)

_BATCH = 5
_ANSWER_S = 10.0
_MAIL_S = 30.0
_LEASE_S = 180.0
"""Longer than a batch may take, which is `_BATCH` times `_MAIL_S`."""
_PAUSES_S = (60.0, 300.0, 1800.0, 7200.0)
"""After the first failure, the second, and so on; the last for all that follow."""
_DAY_S = 86400.0
_LONGEST_REASON = 300

_ON_THIS_MACHINE = ("localhost", "127.0.0.1", "::1")
_FAILURES = (aiosmtplib.SMTPException, OSError, ValueError)
_BEFORE_THE_TEXT = (
    aiosmtplib.SMTPConnectResponseError,
    aiosmtplib.SMTPHeloError,
    aiosmtplib.SMTPAuthenticationError,
    aiosmtplib.SMTPSenderRefused,
    aiosmtplib.SMTPRecipientRefused,
)

# Seven bits, so that a mail is the same bytes for every server.
_POLICY = SMTP.clone(cte_type="7bit")
_ATOM = r"[^\s\x00-\x1f\x7f-\x9f\ud800-\udfff\"(),.:;<>@\[\\\]]+"
_ATOMS = rf"{_ATOM}(\.{_ATOM})*"
# No comments, quotes and lists: `email` reads, and other programs read, more than one thing in them.
_ADDRESS = re.compile(rf"{_ATOMS}@{_ATOMS}")
# Control characters but tab and line ends, and halves of characters.
_NO_TEXT = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")
# Also what `email` takes for the end of a line.
_NO_SUBJECT = re.compile(rf"{_NO_TEXT.pattern}|[\t\r\n\u2028\u2029]")
_LONGEST_PLAIN_SUBJECT = 69  # with its name, a line of 78
_STATUS = re.compile(r"[245]\.\d{1,3}\.\d{1,3}(?!\S)")


class Mail(NamedTuple):
    """One mail to one person, in plain text."""

    recipient: str
    subject: str
    text: str


async def post(connection: Connection, sealer: Sealer, mail: Mail) -> None:
    """Have this mail sent. Raises `ValueError` for one that can't be."""
    _message(mail)
    await connection.execute(
        "/* mail.post */ insert into mails (recipient, sealed) values ($1, $2)",
        mail.recipient,
        sealer.seal(json.dumps({"subject": mail.subject, "text": mail.text}).encode()),
    )


async def step(connection: Connection, sealer: Sealer, settings: AdminSettings) -> int:
    """Send some of the mails that are due, or try to; how many. In development they may be printed instead.

    Not in a transaction: what is claimed must be committed before anything is sent. Raises `SettingsError` for a server
    or a sender that can't be understood.
    """
    sender = _sender(settings.mail_from)
    client = _client(settings.smtp_url) if settings.smtp_url else None
    await _give_up_old(connection)
    rows = await _claim(connection) if settings.sends_mail else []
    try:
        for row in rows:
            await _deal_with(connection, sealer, sender, client, row)
        if client and client.is_connected:
            with contextlib.suppress(*_FAILURES):
                await client.quit()
    finally:
        if client:
            client.close()
    return len(rows)


async def _give_up_old(connection: Connection) -> None:
    rows = await connection.fetch(
        """
        /* mail.give_up_old */
        delete from mails where due_at <= now() and created_at <= now() - make_interval(secs => $1)
        returning recipient, attempts, last_error""",
        _DAY_S,
    )
    for row in rows:
        log.warning(
            "mail to %s is given up: it was not sent in a day, in %d attempts: %s",
            row["recipient"],
            row["attempts"],
            row["last_error"] or "nothing was said",
        )


async def _claim(connection: Connection) -> list[asyncpg.Record]:
    # An array, because Postgres might run a plain subquery again for each row, and claim more than the limit.
    return await connection.fetch(
        """
        /* mail.claim */
        update mails set due_at = now() + make_interval(secs => $1), attempts = attempts + 1
         where id = any(array(
            select id from mails where due_at <= now() order by due_at limit $2 for update skip locked))
        returning id, recipient, sealed, created_at, attempts""",
        _LEASE_S,
        _BATCH,
    )


async def _deal_with(
    connection: Connection, sealer: Sealer, sender: Address, client: aiosmtplib.SMTP | None, row: asyncpg.Record
) -> None:
    recipient = row["recipient"]
    try:
        opened = json.loads(sealer.open(row["sealed"]))
        mail = Mail(recipient, opened["subject"], opened["text"])
        if client is None:
            log.info("mail to %s: %s\n\n%s", *mail)
        else:
            await _hand_in(client, _addressed(mail, sender, row))
    except CannotOpen as error:
        log.error("mail to %s is given up: %s", recipient, error)
        await _delete(connection, row)
    except _FAILURES as error:
        if _is_final(error):
            log.warning("mail to %s is given up: %s", recipient, _reason(error))
            await _delete(connection, row)
        else:
            pause_s = _PAUSES_S[min(row["attempts"], len(_PAUSES_S)) - 1]
            log.warning("mail to %s waits for %d s: %s", recipient, pause_s, _reason(error))
            await _postpone(connection, row, pause_s, _reason(error))
    else:
        await _delete(connection, row)


async def _hand_in(client: aiosmtplib.SMTP, message: EmailMessage) -> None:
    """Raises one of `_FAILURES`."""
    try:
        async with asyncio.timeout(_MAIL_S):
            if not client.is_connected:
                await client.connect()
            await client.send_message(message)
    except BaseException:
        client.close()  # what the server says next would be taken for the answer to something else
        raise


async def _delete(connection: Connection, row: asyncpg.Record) -> None:
    await connection.execute("/* mail.delete */ delete from mails where id = $1", row["id"])


async def _postpone(connection: Connection, row: asyncpg.Record, pause_s: float, reason: str) -> None:
    await connection.execute(
        """
        /* mail.postpone */
        update mails
           set due_at = least(now() + make_interval(secs => $2), created_at + make_interval(secs => $3)),
               last_error = $4
         where id = $1""",
        row["id"],
        pause_s,
        _DAY_S,
        reason,
    )


def _is_final(error: Exception) -> bool:
    """Whether this mail will never be taken. What is wrong with the server or with our account there, may pass."""
    match error:
        case aiosmtplib.SMTPRecipientsRefused():
            return all(refused.code >= 500 for refused in error.recipients)
        case aiosmtplib.SMTPDataError():
            return error.code >= 500
        case _:  # the address is not ASCII, and the server takes no other
            return isinstance(error, aiosmtplib.SMTPNotSupported)


def _reason(error: Exception) -> str:
    """What may be kept and logged of a failure."""
    match error:
        case aiosmtplib.SMTPRecipientsRefused():
            return _reason(error.recipients[0])
        case aiosmtplib.SMTPResponseException():
            status = _STATUS.match(error.message)
            said = error.message if isinstance(error, _BEFORE_THE_TEXT) else status and status[0]
            reason = f"{error.code} {said or ''}"
        case _:
            reason = str(error) or type(error).__name__
    return "".join(character if character.isprintable() else " " for character in reason)[:_LONGEST_REASON].strip()


def _client(url: str) -> aiosmtplib.SMTP:
    """Not connected yet. Raises `SettingsError`."""
    parts = urlsplit(url)
    if not parts.hostname:
        raise SettingsError("LINKWIRE_SMTP_URL: it names no host.")
    begins_with_tls, is_here = parts.scheme == "smtps", parts.hostname in _ON_THIS_MACHINE
    return aiosmtplib.SMTP(
        hostname=parts.hostname,
        port=parts.port,
        username=unquote(parts.username) if parts.username else None,
        password=unquote(parts.password) if parts.password else None,
        use_tls=begins_with_tls,
        start_tls=True if parts.password and not is_here and not begins_with_tls else None,  # None: where it is offered
        validate_certs=not is_here,
        timeout=_ANSWER_S,
    )


def _sender(mail_from: str) -> Address:
    """Raises `SettingsError`."""
    name, address = parseaddr(mail_from)
    if not mail_from.isprintable() or not _ADDRESS.fullmatch(address):
        raise SettingsError("LINKWIRE_MAIL_FROM: it must look like Linkwire <no-reply@links.example>.")
    return Address(name, addr_spec=address)


def _addressed(mail: Mail, sender: Address, row: asyncpg.Record) -> EmailMessage:
    """The mail of a row, the same at each attempt. Raises `ValueError`."""
    message = _message(mail)
    message["From"] = sender
    message["Date"] = row["created_at"]
    # Sealing gives other bytes each time, so no other mail has this id, whichever database it was in.
    message["Message-ID"] = f"<{hashlib.sha256(row['sealed']).hexdigest()[:32]}@{sender.domain}>"
    message["Auto-Submitted"] = "auto-generated"  # nobody's holiday answers it
    return message


def _message(mail: Mail) -> EmailMessage:
    """What of a mail its poster decides. Raises `ValueError`."""
    if not _ADDRESS.fullmatch(mail.recipient) or "=?" in mail.recipient:
        raise ValueError("The recipient must be one address.")
    if _NO_SUBJECT.search(mail.subject) or _NO_TEXT.search(mail.text):
        raise ValueError("A mail must be text, and its subject a single line.")
    message = _with_subject(mail.subject)
    message["To"] = _for_any_server(mail.recipient)
    message.set_content(mail.text)
    return message


def _for_any_server(address: str) -> str:
    """With the host in ASCII, where that makes all of it ASCII. Raises `ValueError`."""
    name, _at, host = address.rpartition("@")
    return f"{name}@{idna.encode(host).decode()}" if name.isascii() and not host.isascii() else address


def _with_subject(subject: str) -> EmailMessage:
    """Encodes it where it has to be, and not by itself: `email` loses blanks where it folds what is not ASCII."""
    is_plain = subject.isascii() and len(subject) <= _LONGEST_PLAIN_SUBJECT
    if is_plain and "=?" not in subject and subject == subject.strip():
        message = EmailMessage(_POLICY)
        message["Subject"] = subject
        return message
    encoded = Header(subject, "utf-8", header_name="Subject").encode()
    # A header that was read is kept as it stands.
    return message_from_string(f"Subject: {encoded}\n\n", policy=_POLICY)
