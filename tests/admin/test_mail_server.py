"""Mail and the server that takes it: logins, TLS, certificates."""

import ssl
from collections.abc import Callable
from typing import Any

import pytest
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session

from admin import mail
from admin.database import Connection
from shared.settings import SettingsError
from tests.admin.mailbox import MAIL, SEALER, Certificate, Post, configured, pass_time, rows


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
