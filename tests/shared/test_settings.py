"""Settings: where a value comes from, and what is said when it is no good."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.settings import EdgeSettings
from shared.settings import (
    CommonSettings,
    Setting,
    SettingsError,
    declared,
    load,
    port,
    required,
    setting,
    whole_number,
)

REDIS = "redis://:secret@127.0.0.1:6379/0"


@dataclass(frozen=True)
class Own(CommonSettings):
    """Common settings and two more, as a process has them."""

    size: int = setting("OWN_SIZE", "A size.", default="5", parse=whole_number(1, 10))
    code: int | None = setting("OWN_CODE", "A code.", default=None, parse=whole_number(0, 9999), secret=True)


@pytest.fixture
def env_file(tmp_path: Path) -> Path:
    path = tmp_path / ".env"
    path.write_text('OWN_SIZE=7\n# a comment\nREDIS_URL="redis://from-file:6379/0"\n')
    return path


# Where a value comes from.


def test_without_anything_every_setting_has_its_default(tmp_path: Path) -> None:
    settings = load(Own, {}, tmp_path)
    assert (settings.edge_host, settings.edge_port, settings.size) == ("127.0.0.1", 8000, 5)
    assert (settings.redis_url, settings.metrics_port, settings.code) == (None, None, None)


def test_the_environment_comes_before_the_file_and_the_file_before_the_default(env_file: Path) -> None:
    directory = env_file.parent
    assert load(Own, {"OWN_SIZE": "9"}, directory).size == 9
    assert load(Own, {}, directory).size == 7
    assert load(Own, {}, directory).redis_url == "redis://from-file:6379/0"
    assert load(Own, {}, directory).edge_port == 8000


def test_an_empty_value_means_unset(tmp_path: Path) -> None:
    settings = load(Own, {"OWN_SIZE": "", "REDIS_URL": "", "OWN_CODE": "", "LINKWIRE_HOME": ""}, tmp_path)
    assert settings == load(Own, {}, tmp_path)


def test_an_empty_value_in_the_environment_hides_the_one_in_the_file(env_file: Path) -> None:
    assert load(Own, {"OWN_SIZE": ""}, env_file.parent).size == 5


def test_the_working_directory_is_where_the_file_is_looked_for(env_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(env_file.parent)
    assert load(Own, {}).size == 7


def test_the_environment_of_the_process_is_read_when_none_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shared.settings.environ", {"OWN_SIZE": "8"})
    assert load(Own, directory=tmp_path).size == 8


def test_a_directory_named_like_the_file_is_not_one(tmp_path: Path) -> None:
    (tmp_path / ".env").mkdir()
    assert load(Own, {}, tmp_path).size == 5


def test_home_is_absolute_and_may_begin_with_a_tilde(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    monkeypatch.chdir(tmp_path)
    assert load(CommonSettings, {"LINKWIRE_HOME": "~/linkwire"}).home == Path("/home/somebody/linkwire")
    assert load(CommonSettings, {}).home == tmp_path / "var"


# Secrets.


def test_a_secret_may_be_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "redis").write_text(REDIS + "\n")
    assert load(Own, {"REDIS_URL_FILE": str(tmp_path / "redis")}, tmp_path).redis_url == REDIS


def test_the_path_of_a_secret_may_be_in_the_env_file(tmp_path: Path) -> None:
    (tmp_path / "redis").write_text(REDIS)
    (tmp_path / ".env").write_text(f"REDIS_URL_FILE={tmp_path / 'redis'}\n")
    assert load(Own, {}, tmp_path).redis_url == REDIS


def test_the_file_of_a_secret_counts_before_its_value(tmp_path: Path) -> None:
    (tmp_path / "redis").write_text(REDIS)
    environment = {"REDIS_URL": "redis://other", "REDIS_URL_FILE": str(tmp_path / "redis")}
    assert load(Own, environment, tmp_path).redis_url == REDIS
    (tmp_path / "redis").write_text("\n")
    assert load(Own, environment, tmp_path).redis_url == "redis://other"


@pytest.mark.parametrize("url", ["localhost:6379", "http://localhost", "redis://localhost:port", "redis://h:99999"])
def test_a_url_of_another_kind_is_refused_without_being_shown(tmp_path: Path, url: str) -> None:
    with pytest.raises(SettingsError, match=r"^REDIS_URL: its value is not valid: "):
        load(Own, {"REDIS_URL": url}, tmp_path)


def test_an_empty_secret_is_looked_for_in_its_file(tmp_path: Path) -> None:
    (tmp_path / "redis").write_text(REDIS)
    environment = {"REDIS_URL": "", "REDIS_URL_FILE": str(tmp_path / "redis")}
    assert load(Own, environment, tmp_path).redis_url == REDIS


def test_only_secrets_are_read_from_files(tmp_path: Path) -> None:
    (tmp_path / "size").write_text("9")
    assert load(Own, {"OWN_SIZE_FILE": str(tmp_path / "size")}, tmp_path).size == 5


@pytest.mark.parametrize(
    "content", [pytest.param(None, id="a file that is missing"), pytest.param(b"\xff\xfe", id="a file of no text")]
)
def test_a_secret_whose_file_can_not_be_read_stops_the_start(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "redis"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SettingsError, match=rf"^REDIS_URL_FILE: can't read {path}: "):
        load(Own, {"REDIS_URL_FILE": str(path)}, tmp_path)


def test_the_value_of_a_secret_is_not_shown_when_it_is_no_good(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"^OWN_CODE: its value is not valid: it must be from 0 to 9999$"):
        load(Own, {"OWN_CODE": "123456789"}, tmp_path)


# What is no good.


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("OWN_SIZE", "0"),
        ("OWN_SIZE", "11"),
        ("OWN_SIZE", "many"),
        ("LINKWIRE_EDGE_PORT", "65536"),
        ("LINKWIRE_METRICS_PORT", "0"),
        ("LINKWIRE_EDGE_PORT", "8000.5"),
    ],
)
def test_a_value_that_is_no_good_stops_the_start_with_a_sentence_that_names_it(
    tmp_path: Path, name: str, value: str
) -> None:
    with pytest.raises(SettingsError, match=rf"^{name}: '{value}' is not valid: "):
        load(Own, {name: value}, tmp_path)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("LINKWIRE_TRUSTED_PROXIES", "proxy.example"),
        ("LINKWIRE_TRUSTED_PROXIES", "10.0.0.0/33"),
        ("LINKWIRE_EDGE_WORKERS", "0"),
        ("LINKWIRE_EDGE_MEMORY_ENTRIES", "-1"),
    ],
)
def test_the_edge_does_not_start_with_a_value_that_is_no_good(tmp_path: Path, name: str, value: str) -> None:
    with pytest.raises(SettingsError, match=rf"^{name}: '{value}' is not valid: "):
        load(EdgeSettings, {name: value}, tmp_path)


def test_a_setting_that_a_process_needs_and_nobody_gave_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="REDIS_URL is not set"):
        load(Own, {}, tmp_path).redis()
    with pytest.raises(SettingsError, match="DATABASE_URL is not set"):
        required("DATABASE_URL", None)
    assert load(Own, {"REDIS_URL": REDIS}, tmp_path).redis() == REDIS


@given(st.integers(), st.integers(), st.integers())
def test_a_whole_number_is_taken_within_its_bounds_and_refused_outside(low: int, high: int, number: int) -> None:
    parse = whole_number(low, high)
    if low <= number <= high:
        assert parse(str(number)) == number
    else:
        with pytest.raises(ValueError):
            parse(str(number))


@given(st.text(max_size=8))
def test_any_other_text_is_no_port(text: str) -> None:
    try:
        number = port(text)
    except ValueError:
        return
    assert 1 <= number <= 65535
    assert number == int(text)


# Declarations.


@pytest.mark.parametrize("cls", [CommonSettings, EdgeSettings, Own])
def test_each_setting_is_declared_once_and_in_the_order_of_the_class(cls: type[CommonSettings]) -> None:
    declarations = declared(cls)
    assert all(isinstance(declaration, Setting) for declaration in declarations)
    assert len({declaration.name for declaration in declarations}) == len(declarations)
    assert len(declarations) == len(dataclasses.fields(cls))
    assert declarations[: len(declared(CommonSettings))] == declared(CommonSettings)
    assert all(declaration.help.endswith(".") for declaration in declarations)


def test_settings_can_not_be_changed_after_the_start(tmp_path: Path) -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        load(Own, {}, tmp_path).size = 6  # type: ignore[misc]
