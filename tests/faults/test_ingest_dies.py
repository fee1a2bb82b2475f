"""The worker killed at the two moments that decide whether a click counts once: around its commit."""

import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable

import pytest

from tests.faults.visitors import Visitors, assert_counted
from tests.houses import House, wait_for

_DIES = textwrap.dedent("""
    import os, signal, sys
    from admin.stats import ingest, sources

    left = int(sys.argv.pop(1))
    moment = sys.argv.pop(1)
    owner, name = {"before the commit": (ingest._Storing, "store"), "after the commit": (sources, "tell")}[moment]
    whole = getattr(owner, name)

    async def and_die(*arguments):
        global left
        done = await whole(*arguments) if moment == "before the commit" else None
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return await whole(*arguments) if moment == "after the commit" else done

    asked = ingest.lease

    async def and_say_so(connection):
        is_mine = await asked(connection)
        if not is_mine:
            os.write(1, b"stands by\\n")
        return is_mine

    ingest.lease = and_say_so
    setattr(owner, name, and_die)
    from admin.__main__ import linkwire
    linkwire()
""")


@pytest.mark.parametrize("moment", ["before the commit", "after the commit"])
def test_a_click_counts_once(new_house: Callable[..., House], moment: str) -> None:
    house = new_house()
    house.start()
    house.wait_until_ready()
    link = house.link()
    [steady] = house.pids("-m admin work")
    with Visitors(house, link["path"]) as visitors:
        for number in (1, 3):
            visitors.wait_for_more(1000)
            mortal = subprocess.Popen(
                [sys.executable, "-c", _DIES, str(number), moment, "work"],
                env={**os.environ, **house.environment, **house.servers, "LINKWIRE_METRICS_PORT": ""},
                stdout=subprocess.PIPE,
            )
            assert mortal.stdout is not None
            # It stands by, and whoever is started later comes too late; or it was the first to ask, and has died.
            if mortal.stdout.readline():
                os.kill(steady, signal.SIGSTOP)  # it holds the lease until it is gone
                os.kill(steady, signal.SIGKILL)
                wait_for(lambda: house.pids("-m admin work") not in ([], [steady]), 20)  # noqa: B023
            assert mortal.wait(30) == -signal.SIGKILL
            mortal.stdout.close()
            [steady] = house.pids("-m admin work")
        visitors.wait_for_more(1000)
    assert_counted(house, link["id"], visitors)
    assert house.stop() == 0
