"""Child processes: started so that they die with their parent, watched, started again, and stopped in order.

Rules of this file:

1. A child has a process group of its own: Ctrl-C reaches only the parent, which then stops the children one by one.
2. A child dies with its parent, also when the parent is killed with SIGKILL (PR_SET_PDEATHSIG, Linux).
3. A child that dies is started again after a delay that doubles from half a second to thirty; a child that ran for
   thirty seconds begins at the shortest delay again. The reason is said each time.
"""

import asyncio
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from shared.tasks import end

_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None)  # loaded here, because little is safe between fork and exec
_FIRST_DELAY_S = 0.5
_LONGEST_DELAY_S = 30.0


@dataclass(frozen=True)
class Command:
    """How to run a child."""

    name: str
    argv: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)
    """Added to the parent's own environment."""
    stop_signal: signal.Signals = signal.SIGTERM
    stop_within_s: float = 10.0
    log: Path | None = None
    """Gets the child's output; None: the parent's own."""
    pass_fds: Sequence[int] = ()
    directory: Path | None = None


class Supervisor:
    """Keeps children running until it is left. `say` gets one sentence per event.

    Used as an async context manager: leaving it stops the children in the reverse order of their start.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._children: list[_Child] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        for child in reversed(self._children):
            await end(child.keeping)
            await _stop(child)

    async def start(self, command: Command) -> None:
        """Start a child and keep it running. Raises OSError when it can't be started at all."""
        child = _Child(command, await _spawn(command))
        child.keeping = asyncio.create_task(self._keep(child), name=command.name)
        self._children.append(child)

    async def _keep(self, child: "_Child") -> None:
        command, delay_s = child.command, _FIRST_DELAY_S
        while True:
            started_at = time.monotonic()
            status = await child.process.wait()
            if time.monotonic() - started_at > _LONGEST_DELAY_S:
                delay_s = _FIRST_DELAY_S
            self._say(f"{command.name} (pid {child.process.pid}) {_reason(command, status)}; again in {delay_s:g} s")
            await asyncio.sleep(delay_s)
            delay_s = min(delay_s * 2, _LONGEST_DELAY_S)
            while not await self._spawned_again(child):
                await asyncio.sleep(delay_s)
                delay_s = min(delay_s * 2, _LONGEST_DELAY_S)

    async def _spawned_again(self, child: "_Child") -> bool:
        try:
            child.process = await _spawn(child.command)
        except (OSError, subprocess.SubprocessError) as error:
            self._say(f"{child.command.name} can't be started again yet: {error}")
            return False
        return True


@dataclass
class _Child:
    command: Command
    process: asyncio.subprocess.Process
    """The one that runs, or the last one that did."""
    keeping: "asyncio.Task[None]" = field(init=False)


async def _spawn(command: Command) -> asyncio.subprocess.Process:
    log = command.log.open("ab") if command.log else None
    try:
        return await asyncio.create_subprocess_exec(
            *command.argv,
            env={**os.environ, **command.environment},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=command.directory,
            pass_fds=command.pass_fds,
            start_new_session=True,
            preexec_fn=die_with_parent(command.stop_signal),
        )
    finally:
        if log:
            log.close()


def die_with_parent(stop_signal: signal.Signals) -> Callable[[], None]:
    """For `preexec_fn`: the kernel sends the child `stop_signal` when the thread that started it ends."""
    parent = os.getpid()

    def ask() -> None:
        if sys.platform == "linux":
            _libc.prctl(_PR_SET_PDEATHSIG, int(stop_signal))
            if os.getppid() != parent:  # the parent died before the kernel was asked
                os._exit(1)

    return ask


async def _stop(child: _Child) -> None:
    command, process = child.command, child.process
    if process.returncode is not None:
        return
    process.send_signal(command.stop_signal)
    try:
        async with asyncio.timeout(command.stop_within_s):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()


def _reason(command: Command, status: int) -> str:
    said = _last_line(command.log)
    named = {number.value: number.name for number in signal.Signals}
    how = f"was killed by {named.get(-status, -status)}" if status < 0 else f"exited with status {status}"
    return f"{how} ({said})" if said else how


def _last_line(log: Path | None) -> str:
    if log is None or not log.exists():
        return ""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - 4096))
        lines = file.read().decode("utf-8", "replace").split("\n")
    return next((line.strip()[:200] for line in reversed(lines) if line.strip()), "")
