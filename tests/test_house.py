"""The house as a whole: what the docs, the compose file and the layout say is what the code does."""

import ast
import importlib
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from admin import errors
from admin.__main__ import linkwire
from admin.app import build
from admin.settings import AdminSettings
from edge.settings import EdgeSettings
from shared.settings import CommonSettings, Setting, declared, load

ROOT = Path(__file__).parent.parent
SETTINGS = {setting.name: setting for cls in (CommonSettings, EdgeSettings, AdminSettings) for setting in declared(cls)}
TRACKED = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True).stdout.split()
FILES = TRACKED or [
    str(path.relative_to(ROOT)) for path in ROOT.rglob("*") if path.is_file() and ".venv" not in str(path)
]
MODULES = [file for file in FILES if re.match(r"(shared|edge|admin)/.*\.py$", file)]


def text(file: str) -> str:
    return (ROOT / file).read_text()


@pytest.mark.parametrize("setting", SETTINGS.values(), ids=SETTINGS.keys())
def test_settings_are_documented_as_they_are(setting: Setting) -> None:
    default = "unset" if setting.default is None else f"`{setting.default}`"
    assert f"| `{setting.name}` | {default} | {setting.help} |" in text("docs/settings.md")


def test_documented_settings_exist() -> None:
    named = set(re.findall(r"^\| `([A-Z_]+)`", text("docs/settings.md"), re.MULTILINE))
    assert named == set(SETTINGS)
    for file in ("README.md", "docs/operations.md", "docs/architecture.md", "docs/api.md"):
        for name in re.findall(r"`(LINKWIRE_[A-Z_]+)`", text(file)):
            assert name in SETTINGS, f"{file}: {name}"


def test_every_error_code_is_documented_with_its_status() -> None:
    documented = dict(re.findall(r"^\| `([A-Z_]+)` \| (\d{3}) \|", text("docs/api.md"), re.MULTILINE))
    assert documented == {error.code: str(error.status) for error in errors.ApiError.__subclasses__()}
    for error in errors.ApiError.__subclasses__():
        assert f"{error.__name__} " in (errors.__doc__ or "")


def test_every_route_is_documented() -> None:
    settings = load(AdminSettings, {"DATABASE_URL": "postgresql://x", "REDIS_URL": "redis://x"})
    paths = build(settings).openapi()["paths"]
    routes = {f"{method.upper()} {path}" for path, methods in paths.items() for method in methods}
    assert routes == set(
        re.findall(r"^\| `((?:GET|POST|PUT|PATCH|DELETE) /v1/\S+)` \|", text("docs/api.md"), re.MULTILINE)
    )


def test_every_command_is_documented() -> None:
    documented = set(re.findall(r"^\| `linkwire (\w+)` \|", text("docs/operations.md"), re.MULTILINE))
    assert documented == set(linkwire.commands)


def test_every_metric_is_documented() -> None:
    made = {
        name if kind == "Gauge" else f"{name}_total"
        for file in MODULES
        for kind, name in re.findall(r"(Counter|Metric|Gauge)\(\s*\"(linkwire_\w+)\"", text(file))
    }
    assert made
    assert made == set(re.findall(r"^\| `(linkwire_\w+)", text("docs/operations.md"), re.MULTILINE))


def test_every_link_in_the_docs_leads_somewhere() -> None:
    for file in [name for name in FILES if name.endswith(".md")]:
        for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", text(file)):
            if "://" not in target:
                assert ((ROOT / file).parent / target).exists(), f"{file}: {target}"


def test_every_room_of_the_architecture_exists_and_every_module_is_in_it() -> None:
    rooms = text("docs/architecture.md").partition("## The rooms")[2].partition("## The way")[0]
    for folder in ("shared", "edge", "admin"):
        part = rooms.partition(f"    {folder}/")[2].partition("\n\n")[0]
        for file in (ROOT / folder).glob("*.py"):
            if file.name != "__init__.py":
                assert file.name in part, f"{folder}/{file.name}"
        for name in re.findall(r"\b(\w+\.py)\b", part):
            assert (ROOT / folder / name).exists(), f"{folder}/{name}"


@pytest.mark.parametrize("file", MODULES)
def test_every_module_says_what_it_owns_and_stays_small(file: str) -> None:
    assert ast.get_docstring(ast.parse(text(file))), file
    assert text(file).count("\n") <= 400


def test_nothing_in_the_repository_says_where_packages_come_from() -> None:
    hosts = re.compile("|".join(("pypi" + r"\.org", "python" + "hosted", "npm" + r"js\.", "deb" + r"\.debian")))
    for file in FILES:
        assert not hosts.search((ROOT / file).read_text(errors="replace")), file


COMPOSE: dict[str, Any] = yaml.safe_load(text("docker-compose.yml"))
OURS = {name: service for name, service in COMPOSE["services"].items() if service.get("image") == "linkwire"}


def test_the_compose_file_has_every_part_with_a_health_check() -> None:
    assert set(OURS) == {"edge", "admin", "worker", "migrate"}
    assert COMPOSE["services"]["postgres"]["image"].startswith("postgres:18")
    assert COMPOSE["services"]["valkey"]["image"].startswith("valkey/valkey:9")
    for name, service in COMPOSE["services"].items():
        assert "restart" in service, name
        assert name == "migrate" or "healthcheck" in service, name
    for name in ("postgres", "valkey", "edge"):
        kept = [volume.partition(":")[0] for volume in COMPOSE["services"][name]["volumes"] if "secrets" not in volume]
        assert kept and set(kept) <= set(COMPOSE["volumes"])


@pytest.mark.parametrize(("name", "service"), OURS.items(), ids=OURS.keys())
def test_commands_variables_and_ports_of_the_compose_file_exist(name: str, service: dict[str, Any]) -> None:
    command = service["command"]
    if command[0] == "linkwire":
        assert command[1] in linkwire.commands
    else:
        assert command[:2] == ["python", "-m"]
        assert importlib.util.find_spec(f"{command[2]}.__main__")
        assert len(command) == 3 or command[3] in linkwire.commands
    environment = service["environment"]
    for variable in environment:
        known = SETTINGS.get(variable.removesuffix("_FILE"))
        assert known and (known.secret or not variable.endswith("_FILE")), variable
    values = {variable: re.sub(r"\$\{\w+:-(.*)\}", r"\1", value) for variable, value in environment.items()}
    values["DATABASE_URL"] = values["DATABASE_URL_FILE"] = ""
    settings = load(EdgeSettings if name == "edge" else AdminSettings, values)
    ports = {settings.metrics_port, settings.edge_port, getattr(settings, "port", None)}
    for mapping in service.get("ports", []):
        assert int(mapping.rpartition(":")[2]) in ports
    for port in re.findall(r"127\.0\.0\.1:(\d+)/", str(service.get("healthcheck", ""))):
        assert int(port) in ports


HERE = {"LINKWIRE_HOME", "LINKWIRE_EDGE_HOST", "LINKWIRE_EDGE_PORT", "LINKWIRE_SPOOL_SILENCE_S"}


def test_the_compose_file_hands_on_whatever_an_operator_may_set() -> None:
    environment = COMPOSE["services"]["admin"]["environment"]
    assert {setting.name for setting in declared(AdminSettings)} - set(environment) == HERE
    assert {name for name, value in environment.items() if value == f"${{{name}:-}}"} >= {
        "LINKWIRE_TRUSTED_PROXIES",
        "LINKWIRE_OPEN_REGISTRATION",
        "LINKWIRE_CORS_ORIGINS",
        "LINKWIRE_ENTERPRISE_PER_MINUTE",
        "LINKWIRE_DEVELOPMENT",
    }
    assert "LINKWIRE_TRUSTED_PROXIES" in COMPOSE["services"]["edge"]["environment"]


def test_the_image_holds_what_the_commands_need_and_is_not_root() -> None:
    dockerfile = text("Dockerfile")
    for source in re.findall(r"^COPY (.+) \S+$", dockerfile, re.MULTILINE):
        for name in source.split():
            assert (ROOT / name).exists(), name
    for folder in ("shared", "edge", "admin"):
        assert f"COPY {folder} ./{folder}" in dockerfile
    assert re.findall(r"^USER (.+)$", dockerfile, re.MULTILINE) == ["linkwire"]
    assert dockerfile.index("USER linkwire") < dockerfile.index("CMD")
    ports = {int(port) for port in re.findall(r"\d+", dockerfile.partition("EXPOSE")[2].partition("\n")[0])}
    assert ports == {8000, 8001, 9000}


def test_the_workflow_and_ci_run_the_readmes_test_command() -> None:
    assert "make test" in text("README.md")
    assert "exec make test" in text(".ci/run")
    steps = yaml.safe_load(text(".github/workflows/test.yml"))["jobs"]["test"]["steps"]
    assert [step["run"] for step in steps if "run" in step] == [".ci/run"]
