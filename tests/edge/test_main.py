"""`python -m edge`, as the operator sees it who starts it with settings that it can't work with."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge.spool import SEGMENT_BYTES


@pytest.fixture
def taken_port() -> Iterator[int]:
    """So that nothing of it begins to work, whatever it thinks of its settings."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening.getsockname()[1]


def refusal(home: Path, port: int, **environment: str) -> str:
    """What is said by a start that fails; it must be one sentence, status 1, and nothing left behind."""
    told = subprocess.run(
        [sys.executable, "-m", "edge"],
        cwd=home,
        env={
            **os.environ,
            "LINKWIRE_HOME": str(home),
            "LINKWIRE_EDGE_PORT": str(port),
            "REDIS_URL": "redis://127.0.0.1:1",
            **environment,
        },
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (told.returncode, told.stdout) == (1, ""), told
    assert list(home.iterdir()) == []
    [said] = told.stderr.splitlines()
    return said


@pytest.mark.parametrize(
    ("workers", "max_bytes"),
    [
        pytest.param(1, str(2 * SEGMENT_BYTES - 1), id="of one process"),
        pytest.param(3, str(6 * SEGMENT_BYTES - 1), id="of three processes"),
        pytest.param(65, "", id="of more processes than the default is for"),
    ],
)
def test_less_room_than_the_spools_begin_with_is_refused_with_how_much_they_need(
    tmp_path: Path, taken_port: int, workers: int, max_bytes: str
) -> None:
    """Two segments each; otherwise some of them would drop every click."""
    said = refusal(tmp_path, taken_port, LINKWIRE_EDGE_WORKERS=str(workers), LINKWIRE_SPOOL_MAX_BYTES=max_bytes)
    assert said.startswith("LINKWIRE_SPOOL_MAX_BYTES: ")
    assert str(2 * workers * SEGMENT_BYTES) in said


def test_as_much_room_as_the_spools_begin_with_is_enough(tmp_path: Path, taken_port: int) -> None:
    """It goes on to what it can't have either."""
    said = refusal(tmp_path, taken_port, LINKWIRE_EDGE_WORKERS="3", LINKWIRE_SPOOL_MAX_BYTES=str(6 * SEGMENT_BYTES))
    assert said.startswith(f"the edge can't listen on 127.0.0.1:{taken_port} ")
