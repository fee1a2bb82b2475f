"""The settings of admin and worker: what must be set, and what must not be set without something else."""

import pytest

from admin.settings import AdminSettings
from shared.settings import SettingsError, load

ENOUGH = {
    "DATABASE_URL": "postgresql://localhost/linkwire",
    "REDIS_URL": "redis://localhost",
    "LINKWIRE_SECRET": "0123456789abcdef0123456789abcdef",
}
SENDS_MAIL = [{"LINKWIRE_SMTP_URL": "smtp://localhost"}, {"LINKWIRE_DEVELOPMENT": "1"}]


def settings(**more: str) -> AdminSettings:
    return load(AdminSettings, {**ENOUGH, **more})


@pytest.mark.parametrize("name", ENOUGH)
def test_what_a_process_cannot_do_without(name: str) -> None:
    settings().require_all()
    with pytest.raises(SettingsError, match=f"{name} is not set"):
        settings(**{name: ""}).require_all()


def test_nobody_registers_where_no_address_could_be_confirmed() -> None:
    with pytest.raises(SettingsError, match=r"LINKWIRE_OPEN_REGISTRATION: nothing sends mail.*LINKWIRE_SMTP_URL"):
        settings(LINKWIRE_OPEN_REGISTRATION="1").require_all()


@pytest.mark.parametrize("mail", SENDS_MAIL, ids=str)
def test_with_mail_anybody_may_register(mail: dict[str, str]) -> None:
    settings(LINKWIRE_OPEN_REGISTRATION="1", **mail).require_all()
