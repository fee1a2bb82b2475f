"""`linkwire up`, as the person who types it sees it."""

import asyncio
import json
import os
import re
import signal
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

import asyncpg
import pytest

from admin.embedded import free_port
from tests.conftest import Servers
from tests.houses import House, wait_for

COMMANDS = ("-m edge", "-m edge.shipper", "-m admin serve", "-m admin work")


def nothing_runs(house: House) -> bool:
    return not house.processes()


def test_from_nothing_to_a_counted_click(new_house: Callable[..., House]) -> None:
    house = new_house()
    house.start()
    house.wait_until_ready()
    facts = house.credentials
    assert set(facts) == {"edgeUrl", "adminUrl", "apiKey", "email", "password"}
    assert (facts["edgeUrl"], facts["adminUrl"]) == (house.edge_url, house.admin_url)
    assert (house.home / "credentials.json").stat().st_mode & 0o777 == 0o600
    assert facts["apiKey"] in house.console and facts["password"] in house.console

    pasted = next(line.strip() for line in house.console.splitlines() if line.strip().startswith("curl "))
    made = subprocess.run(["sh", "-c", f"{pasted} -s"], capture_output=True, text=True, check=True)
    link = json.loads(made.stdout)["data"]
    assert link["shortUrl"].startswith(house.edge_url + "/")
    followed = house.visit(link["path"])
    assert (followed.status_code, followed.headers["location"]) == (302, "https://example.com/")
    wait_for(lambda: house.stats(link["id"])["humans"] == 1)

    for command in COMMANDS:
        assert house.pids(command), command
    assert "linkwire_clicks_ingested_total 1.0" in metrics_of(house)

    assert house.stop(signal.SIGINT) == 0
    assert nothing_runs(house)

    house.start()
    house.wait_until_ready()
    assert facts["apiKey"] not in house.console and facts["password"] not in house.console
    assert "credentials.json" in house.console
    assert house.credentials == facts
    assert house.visit(link["path"]).status_code == 302
    assert house.stats(link["id"])["total"] >= 1
    assert house.stop() == 0
    assert nothing_runs(house)


def metrics_of(house: House) -> str:
    import httpx2

    url = f"http://127.0.0.1:{house.environment['LINKWIRE_METRICS_PORT']}/metrics"
    return httpx2.get(url, trust_env=False).text


def test_a_killed_supervisor_leaves_nothing_and_the_next_start_works(new_house: Callable[..., House]) -> None:
    house = new_house()
    house.start()
    house.wait_until_ready()
    assert house.stop(signal.SIGKILL) == -signal.SIGKILL
    house.start()  # at once: it waits for the servers that are still going down
    house.wait_until_ready()
    first = set(house.processes())
    assert house.stop(signal.SIGKILL) == -signal.SIGKILL
    wait_for(lambda: nothing_runs(house))
    assert first


def test_a_process_that_dies_is_started_again_and_the_reason_is_said(house: House) -> None:
    link = house.link()
    for command, name in (("-m admin serve", "admin"), ("-m admin work", "worker"), ("postgres -D", "postgres")):
        [pid] = house.pids(command)
        os.kill(pid, signal.SIGKILL)
        wait_for(lambda name=name, pid=pid: f"{name} (pid {pid}) was killed by SIGKILL" in house.console)  # type: ignore[misc]
        wait_for(lambda command=command, pid=pid: house.pids(command) not in ([], [pid]))  # type: ignore[misc]
    edge = next(pid for pid in house.pids("-m edge") if "socket" not in house.processes()[pid])
    os.kill(edge, signal.SIGKILL)
    wait_for(lambda: edge_answers(house, link["path"]), 20)
    wait_for(lambda: api_answers(house), 20)


def edge_answers(house: House, path: str) -> bool:
    import httpx2

    try:
        return house.visit(path).status_code == 302
    except httpx2.HTTPError:
        return False


def api_answers(house: House) -> bool:
    import httpx2

    try:
        with house.api() as api:
            return api.get("/links").status_code == 200
    except httpx2.HTTPError:
        return False


def refusal(house: House) -> str:
    """What is said by a start that fails; it must be one sentence and status 1."""
    house.start()
    assert house.process is not None
    assert house.process.wait(30) == 1
    assert "Traceback" not in house.console
    assert nothing_runs(house)
    said = [line for line in house.console.splitlines() if line.startswith("linkwire: ")]
    assert len(said) == 1, house.console
    return said[0]


@pytest.mark.parametrize("setting", ["LINKWIRE_EDGE_PORT", "LINKWIRE_ADMIN_PORT", "LINKWIRE_METRICS_PORT"])
def test_a_taken_port(new_house: Callable[..., House], setting: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        house = new_house(**{setting: str(taken.getsockname()[1])})
        assert setting in refusal(house)


def test_a_home_that_cannot_be_written(new_house: Callable[..., House], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    house = new_house(LINKWIRE_HOME=str(tmp_path / "file" / "home"))
    assert "can't write" in refusal(house)


def test_a_second_linkwire_in_one_home(house: House, new_house: Callable[..., House]) -> None:
    second = new_house(LINKWIRE_HOME=str(house.home))
    second.start()
    assert second.process is not None
    assert second.process.wait(30) == 1
    assert "Another Linkwire is running" in second.console


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("LINKWIRE_EDGE_PORT", "http"),
        ("LINKWIRE_EDGE_PORT", "0"),
        ("REDIS_URL", "localhost:6379"),
        ("REDIS_URL", "redis://127.0.0.1:1"),
        ("LINKWIRE_OPEN_REGISTRATION", "1"),
        ("LINKWIRE_PUBLIC_URL", "http://localhost:99999"),
        ("LINKWIRE_PUBLIC_URL", "https://user:pw@links.example"),
    ],
)
def test_a_setting_that_makes_no_sense(new_house: Callable[..., House], name: str, value: str) -> None:
    assert name in refusal(new_house(**{name: value}))


def test_two_ports_that_are_one(new_house: Callable[..., House]) -> None:
    port = str(free_port())
    assert "LINKWIRE_ADMIN_PORT" in refusal(new_house(LINKWIRE_EDGE_PORT=port, LINKWIRE_ADMIN_PORT=port))
    assert "LINKWIRE_METRICS_PORT" in refusal(new_house(LINKWIRE_EDGE_PORT="65000", LINKWIRE_METRICS_PORT=""))


def test_a_home_with_a_space_behind_a_proxy(new_house: Callable[..., House]) -> None:
    proxy = "http://127.0.0.1:1"
    house = new_house("my home", HTTP_PROXY=proxy, http_proxy=proxy, ALL_PROXY=proxy)
    house.start()
    house.wait_until_ready()
    made = house.command("key", "another")
    assert re.fullmatch(r"lk_live_\w{38}\n", made.stdout), made.stderr
    assert "Every link is in Redis" in house.command("republish").stdout
    assert house.stop() == 0
    assert "DATABASE_URL is not set" in house.command("key").stderr


def test_a_database_that_is_not_there(new_house: Callable[..., House]) -> None:
    said = refusal(new_house(DATABASE_URL="postgresql://linkwire:secret@127.0.0.1:1/x"))
    assert "DATABASE_URL" in said and "secret" not in said


def test_postgres_of_another_major_version(new_house: Callable[..., House]) -> None:
    house = new_house()
    house.start()
    house.wait_until_ready()
    assert house.stop() == 0
    (house.home / "postgres" / "PG_VERSION").write_text("17\n")
    assert "PostgreSQL 17" in refusal(house)


def test_with_servers_of_ones_own_nothing_is_embedded(
    new_house: Callable[..., House], servers: Servers, database_url: str
) -> None:
    house = new_house(DATABASE_URL=database_url, REDIS_URL=servers.redis_url)
    house.start()
    house.wait_until_ready()
    assert not house.pids("postgres -D") and not house.pids("valkey-server")
    assert not (house.home / "postgres").exists()
    link = house.link()
    assert house.visit(link["path"]).status_code == 302
    assert re.search(r"lk_live_\w{38}", house.command("key", "another").stdout)
    assert "Every link is in Redis" in house.command("republish").stdout
    assert "up to date" in house.command("migrate").stdout
    assert house.stop() == 0


def test_the_edge_never_has_the_secret(new_house: Callable[..., House]) -> None:
    secret = "neither the edge nor its shipper has any use for this"
    house = new_house(LINKWIRE_SECRET=secret)
    house.start()
    house.wait_until_ready()

    def has_it(command: str) -> bool:
        [*pids] = house.pids(command)
        assert pids, command
        return any(secret.encode() in Path(f"/proc/{pid}/environ").read_bytes() for pid in pids)

    assert {command: has_it(command) for command in COMMANDS} == {
        "-m edge": False,
        "-m edge.shipper": False,
        "-m admin serve": True,
        "-m admin work": True,
    }


def test_the_api_believes_the_proxies_that_are_named_and_no_others(
    new_house: Callable[..., House], servers: Servers, database_url: str
) -> None:
    """The server under it would believe this machine, whatever the setting says."""
    house = new_house(DATABASE_URL=database_url, REDIS_URL=servers.redis_url, LINKWIRE_TRUSTED_PROXIES="192.0.2.0/24")
    house.start()
    house.wait_until_ready()
    with house.api() as api:
        made = api.post(
            "/links", json={"destination": "https://example.com/"}, headers={"X-Forwarded-For": "203.0.113.9"}
        )
        assert made.status_code == 201
        [entry] = api.get("/audit-log", params={"action": "link.created"}).json()["data"]
    assert entry["attributes"]["address"] in ("127.0.0.1", "::1")


def test_an_owner_and_a_tier_from_the_command_line(
    new_house: Callable[..., House], servers: Servers, database_url: str
) -> None:
    house = new_house(DATABASE_URL=database_url, REDIS_URL=servers.redis_url)
    for nonsense in ("nobody", "a@b@c.example", ""):
        refused = house.command("key", "--email", nonsense)
        assert refused.returncode == 2 and refused.stdout == ""
        assert "--email" in refused.stderr and "It is not an e-mail address" in refused.stderr
        assert "Traceback" not in refused.stderr
    assert "its owner is ann@example.com with" in house.command("key", "--email", "Ann@EXAMPLE.com").stderr
    [(public_id, email)] = asked(database_url, "select o.public_id, email from organizations o, users")
    assert email == "ann@example.com"
    for named, tier in ((f"org_{public_id}", "pro"), (public_id, "starter")):
        assert house.command("tier", named, tier).stdout == f"{named} is of the {tier} tier now.\n"
        assert asked(database_url, "select tier, plan from organizations") == [(tier, tier)]
    for unknown in ("org_0123456789abcdef", "org_", "Home", "\udcff"):
        refused = house.command("tier", unknown, "pro")
        assert refused.returncode == 1 and "Traceback" not in refused.stderr
        assert refused.stderr.startswith("linkwire: There is no organization ")
    assert house.command("tier", public_id, "gold").returncode == 2
    assert asked(database_url, "select tier, plan from organizations") == [("starter", "starter")]


def asked(database_url: str, statement: str) -> list[tuple[str, ...]]:
    async def ask() -> list[tuple[str, ...]]:
        connection = await asyncpg.connect(database_url)
        rows = await connection.fetch(statement)
        await connection.close()
        return [tuple(row) for row in rows]

    return asyncio.run(ask())
