"""The shipper tidies when it begins and each minute: what belongs to no spool goes, and what lives, or may, stays."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from shared.redis import Redis
from tests.conftest import Servers
from tests.edge.spools import Machine, append_heads, be_patient, edge_settings, has_next, make_machine, running, spools
from tests.houses import wait_for
from tests.shared.waiting import until

patience = pytest.fixture(scope="module", autouse=True)(be_patient)
machine = pytest.fixture(make_machine)

FIRST_SEGMENT, COUNTS, NEXT_SEGMENT = 1, 2, 3
"""What a worker allocates when it begins, in this order."""


def kill_a_worker(directory: Path, at: int) -> set[Path]:
    """The files that a worker leaves which is killed when it has allocated this one, before that gets its name."""
    before = set(directory.iterdir())
    killed = subprocess.run([sys.executable, "-c", _BEGINS, str(directory), str(at)], timeout=60)
    assert killed.returncode == -signal.SIGKILL
    return set(directory.iterdir()) - before


_BEGINS = textwrap.dedent("""
    import os, signal, sys
    from pathlib import Path
    import edge.spool

    edge.spool._LONGEST_WAIT_S = 30.0
    allocate, allocated = os.posix_fallocate, 0

    def allocate_and_die(file, offset, length):
        global allocated
        allocate(file, offset, length)
        allocated += 1
        if allocated == int(sys.argv[2]):
            os.kill(os.getpid(), signal.SIGKILL)

    os.posix_fallocate = allocate_and_die
    edge.spool.Spool(Path(sys.argv[1]), max_bytes=2**30, segment_bytes=4096)
    sys.stdin.read()
""")


def age(directory: Path, seconds: float) -> None:
    """Nobody has written to any file of it for so long."""
    at = time.time() - seconds
    for path in directory.iterdir():
        os.utime(path, (at, at))


@pytest.mark.parametrize(
    ("at", "suffixes"),
    [
        pytest.param(FIRST_SEGMENT, [".next"], id="its first segment"),
        pytest.param(COUNTS, [".next", ".spool.new"], id="its counts"),
    ],
)
async def test_what_a_worker_left_that_was_killed_while_it_made_its_first_files_goes_after_a_minute(
    machine: Machine, at: int, suffixes: list[str]
) -> None:
    """Before that it may be one that is just beginning."""
    left = kill_a_worker(machine.directory, at)
    assert sorted("." + path.name.strip(".").partition(".")[2] for path in left) == suffixes
    for seconds in (0, 50):
        age(machine.directory, seconds)
        machine.shipper.tidy()
        assert set(machine.directory.iterdir()) == left
    age(machine.directory, 61)
    machine.shipper.tidy()
    assert list(machine.directory.iterdir()) == []


async def test_what_belongs_to_a_spool_stays_however_old_it_is(machine: Machine) -> None:
    living = machine.new_spool(segment_bytes=256)
    append_heads(living, b"one")
    [dead] = [path.stem for path in kill_a_worker(machine.directory, NEXT_SEGMENT) if path.suffix == ".spool"]
    wait_for(lambda: has_next(machine.directory, living.id))
    (machine.directory / ".of somebody else").touch()
    before = set(machine.directory.iterdir())
    age(machine.directory, 24 * 3600)
    machine.shipper.tidy()
    assert set(machine.directory.iterdir()) == before
    assert spools(machine.directory) == {living.id, dead}
    append_heads(living, b"x" * 200)  # it enters the segment that waited for its turn
    assert (living.recorded, living.dropped) == (2, 0)
    living.close()


async def test_what_goes_while_it_is_looked_at_is_no_trouble(machine: Machine) -> None:
    """The links lead nowhere: they are found, and then they are not there."""
    kill_a_worker(machine.directory, COUNTS)
    age(machine.directory, 61)
    links = {machine.directory / name for name in (".0123456789abcdef.next", ".0123456789abcdef.spool.new")}
    for link in links:
        link.symlink_to("gone")
    machine.shipper.tidy()
    assert set(machine.directory.iterdir()) == links


async def test_the_shipper_begins_with_tidying(tmp_path: Path, servers: Servers, redis: Redis) -> None:
    directory = Machine(tmp_path / "spool", redis).directory
    kill_a_worker(directory, COUNTS)
    age(directory, 61)
    async with running(edge_settings(tmp_path, servers.redis_url)):
        await until(lambda: not any(directory.iterdir()))


async def test_it_tidies_again_what_was_too_young_when_it_began(
    tmp_path: Path, servers: Servers, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge.shipper._TIDY_EVERY_S", 0.1)
    directory = Machine(tmp_path / "spool", redis).directory
    async with running(edge_settings(tmp_path, servers.redis_url)):
        kill_a_worker(directory, COUNTS)
        age(directory, 61)
        await until(lambda: not any(directory.iterdir()))
