"""Child processes, real ones: what keeps them running, and what ends them."""

import contextlib
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from shared.processes import Command, Supervisor
from tests.houses import wait_for
from tests.shared.waiting import until


def is_running(pid: int) -> bool:
    """Whether there is such a process; one that has ended and was not collected by its parent does not run."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def shell(name: str, script: str, *, directory: Path, **options: object) -> Command:
    """A child that runs this script where the test can see its files."""
    return Command(name, ["sh", "-c", script], directory=directory, **options)  # type: ignore[arg-type]


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def pids(directory: Path) -> list[int]:
    """The processes that scripts have noted with `echo $$ >> pids`."""
    return [int(line) for line in lines(directory / "pids")]


_WAIT = "while :; do sleep 0.02; done"
_SLEEP = "echo $$ >> pids; exec sleep 60"


# Started again.


async def test_a_child_that_was_killed_is_started_again_and_the_reason_is_said(tmp_path: Path) -> None:
    said: list[str] = []
    async with Supervisor(said.append) as children:
        await children.start(shell("sleeper", _SLEEP, directory=tmp_path))
        await until(lambda: len(pids(tmp_path)) == 1)
        [first] = pids(tmp_path)
        assert said == []
        os.kill(first, signal.SIGKILL)
        await until(lambda: len(pids(tmp_path)) == 2)
        assert said == [f"sleeper (pid {first}) was killed by SIGKILL; again in 0.5 s"]
        assert is_running(pids(tmp_path)[1])
    assert not any(is_running(pid) for pid in pids(tmp_path))


async def test_a_child_that_exits_is_started_again_and_its_last_words_are_said(tmp_path: Path) -> None:
    said: list[str] = []
    async with Supervisor(said.append) as children:
        script = "echo $$ >> pids; echo all is well; echo 'the port is taken' >&2; echo; exit 3"
        await children.start(shell("short", script, directory=tmp_path, log=tmp_path / "short.log"))
        await until(lambda: len(pids(tmp_path)) == 2)
    assert said[0] == f"short (pid {pids(tmp_path)[0]}) exited with status 3 (the port is taken); again in 0.5 s"


async def test_a_child_that_ends_without_an_error_is_started_again_too(tmp_path: Path) -> None:
    said: list[str] = []
    async with Supervisor(said.append) as children:
        await children.start(shell("done", "echo $$ >> pids", directory=tmp_path))
        await until(lambda: len(pids(tmp_path)) == 2)
    assert said[0] == f"done (pid {pids(tmp_path)[0]}) exited with status 0; again in 0.5 s"


async def test_the_others_are_left_alone_when_one_child_ends(tmp_path: Path) -> None:
    async with Supervisor(lambda _: None) as children:
        await children.start(shell("stays", "echo $$ > stays; exec sleep 60", directory=tmp_path))
        await children.start(shell("goes", _SLEEP, directory=tmp_path))
        await until(lambda: lines(tmp_path / "stays") and pids(tmp_path))
        os.kill(pids(tmp_path)[0], signal.SIGKILL)
        await until(lambda: len(pids(tmp_path)) == 2)
        [pid] = lines(tmp_path / "stays")
        assert is_running(int(pid))


async def test_the_delay_doubles_up_to_the_longest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shared.processes._FIRST_DELAY_S", 0.02)
    monkeypatch.setattr("shared.processes._LONGEST_DELAY_S", 0.1)
    said: list[str] = []
    async with Supervisor(said.append) as children:
        await children.start(Command("failing", ["false"]))
        await until(lambda: len(said) == 5)
    assert [sentence.rpartition(" in ")[2] for sentence in said] == ["0.02 s", "0.04 s", "0.08 s", "0.1 s", "0.1 s"]


async def test_a_child_that_ran_for_long_begins_at_the_shortest_delay_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shared.processes._FIRST_DELAY_S", 0.02)
    monkeypatch.setattr("shared.processes._LONGEST_DELAY_S", 0.1)
    said: list[str] = []
    script = "echo $$ >> pids; if [ $(wc -l < pids) = 4 ]; then exec sleep 0.3; fi; exit 1"
    async with Supervisor(said.append) as children:
        await children.start(shell("recovering", script, directory=tmp_path))
        await until(lambda: len(said) == 5)
    assert [sentence.rpartition(" in ")[2] for sentence in said] == ["0.02 s", "0.04 s", "0.08 s", "0.02 s", "0.04 s"]


# Started at all.


async def test_a_child_that_can_not_be_started_raises_and_the_earlier_ones_are_stopped(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        async with Supervisor(lambda _: None) as children:
            await children.start(shell("first", _SLEEP, directory=tmp_path))
            await until(lambda: pids(tmp_path))
            await children.start(Command("second", [str(tmp_path / "nothing")]))
    assert not is_running(pids(tmp_path)[0])


async def test_a_child_whose_program_is_gone_is_said_to_be_so(tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.write_text(f"#!/bin/sh\ncd {tmp_path}\n{_SLEEP}\n")
    program.chmod(0o700)
    said: list[str] = []
    async with Supervisor(said.append) as children:
        await children.start(Command("program", [str(program)]))
        await until(lambda: pids(tmp_path))
        program.unlink()
        os.kill(pids(tmp_path)[0], signal.SIGTERM)
        await until(lambda: len(said) == 2)
    assert said[0].startswith(f"program (pid {pids(tmp_path)[0]}) was killed by SIGTERM")
    assert said[1].startswith("program can't be started again yet: ")


async def test_a_child_gets_its_environment_its_descriptors_its_directory_and_its_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OF_THE_PARENT", "inherited")
    monkeypatch.setenv("OF_BOTH", "inherited")
    reading, writing = os.pipe()
    script = f"echo $OF_THE_PARENT $OF_BOTH $OF_THE_CHILD $(pwd) >/proc/self/fd/{writing}; echo 1; echo 2 >&2; {_SLEEP}"
    try:
        async with Supervisor(lambda _: None) as children:
            environment = {"OF_THE_CHILD": "given", "OF_BOTH": "given"}
            log = tmp_path / "log"
            log.write_text("from an earlier start\n")
            await children.start(
                shell("child", script, directory=tmp_path, environment=environment, log=log, pass_fds=[writing])
            )
            await until(lambda: pids(tmp_path))
            assert os.read(reading, 1000).decode() == f"inherited given given {tmp_path}\n"
            assert lines(log) == ["from an earlier start", "1", "2"]
    finally:
        os.close(reading)
        os.close(writing)


async def test_a_child_has_a_session_of_its_own_so_that_ctrl_c_does_not_reach_it(tmp_path: Path) -> None:
    async with Supervisor(lambda _: None) as children:
        await children.start(shell("sleeper", _SLEEP, directory=tmp_path))
        await until(lambda: pids(tmp_path))
        [pid] = pids(tmp_path)
        assert os.getpgid(pid) == os.getsid(pid) == pid


# Stopped.


async def test_leaving_stops_the_children_one_after_the_other_in_reverse_order(tmp_path: Path) -> None:
    """The one that was started last takes its time, and no other is told to stop meanwhile."""
    async with Supervisor(lambda _: None) as children:
        for name, last_words in (("a", "echo a"), ("b", "echo b"), ("c", "sleep 0.2; echo c")):
            script = f"trap '({last_words}) >> order; exit 0' TERM; echo $$ >> pids; {_WAIT}"
            await children.start(shell(name, script, directory=tmp_path))
        await until(lambda: len(pids(tmp_path)) == 3)
    assert lines(tmp_path / "order") == ["c", "b", "a"]
    assert not any(is_running(pid) for pid in pids(tmp_path))


async def test_children_are_stopped_also_when_the_supervisor_is_left_by_an_error(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        async with Supervisor(lambda _: None) as children:
            await children.start(shell("sleeper", _SLEEP, directory=tmp_path))
            await until(lambda: pids(tmp_path))
            raise ZeroDivisionError
    assert not is_running(pids(tmp_path)[0])


def test_a_child_is_stopped_also_when_the_supervisor_is_left_at_once() -> None:
    """As the edge does when it is told to stop while it starts. In a process of its own, which takes it along."""
    left = subprocess.run([sys.executable, "-c", _LEAVES_AT_ONCE], capture_output=True, text=True, timeout=30)
    assert (left.returncode, left.stdout) == (0, "children left: 0\n"), left.stderr


_LEAVES_AT_ONCE = textwrap.dedent("""
    import asyncio
    from pathlib import Path
    from shared.processes import Command, Supervisor

    async def main():
        async with Supervisor(print) as children:
            await children.start(Command("sleeper", ["sleep", "60"]))
        left = [pid for task in Path("/proc/self/task").iterdir() for pid in (task / "children").read_text().split()]
        print("children left:", len(left))

    asyncio.run(main())
""")


async def test_leaving_does_not_wait_for_a_child_that_waits_to_be_started_again(tmp_path: Path) -> None:
    said: list[str] = []
    async with Supervisor(said.append) as children:
        await children.start(Command("failing", ["false"]))
        await until(lambda: len(said) == 2)  # the next start is a second away
        left_at = time.monotonic()
    assert time.monotonic() - left_at < 0.5


async def test_a_child_is_stopped_with_its_own_signal(tmp_path: Path) -> None:
    script = f"trap 'echo TERM >> order; exit 0' TERM; trap 'echo INT >> order; exit 0' INT; echo $$ >> pids; {_WAIT}"
    async with Supervisor(lambda _: None) as children:
        await children.start(shell("child", script, directory=tmp_path, stop_signal=signal.SIGINT))
        await until(lambda: pids(tmp_path))
    assert lines(tmp_path / "order") == ["INT"]


async def test_a_child_that_does_not_stop_in_its_time_is_killed(tmp_path: Path) -> None:
    async with Supervisor(lambda _: None) as children:
        script = f"trap '' TERM; echo $$ >> pids; {_WAIT}"
        await children.start(shell("stubborn", script, directory=tmp_path, stop_within_s=0.3))
        await until(lambda: pids(tmp_path))
        left_at = time.monotonic()
    assert 0.3 <= time.monotonic() - left_at < 2
    assert not is_running(pids(tmp_path)[0])


# The parent's death.

_PARENT = textwrap.dedent("""
    import asyncio, signal, sys
    from pathlib import Path
    from shared.processes import Command, Supervisor

    async def main():
        async with Supervisor(print) as children:
            for script in sys.argv[2:]:
                await children.start(Command("child", ["sh", "-c", script], directory=Path(sys.argv[1])))
            await asyncio.Event().wait()

    asyncio.run(main())
""")


def test_children_end_when_their_parent_is_killed(tmp_path: Path) -> None:
    graceful = f"trap 'echo told >> order; exit 0' TERM; echo $$ >> pids; {_WAIT}"
    parent = subprocess.Popen([sys.executable, "-c", _PARENT, str(tmp_path), _SLEEP, graceful])
    try:
        wait_for(lambda: len(pids(tmp_path)) == 2)
        assert all(is_running(pid) for pid in pids(tmp_path))
        parent.send_signal(signal.SIGKILL)
        parent.wait()
        wait_for(lambda: not any(is_running(pid) for pid in pids(tmp_path)))
        assert lines(tmp_path / "order") == ["told"]  # with its stop signal, so that it can end well
    finally:
        parent.kill()
        parent.wait()
        for pid in pids(tmp_path):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
