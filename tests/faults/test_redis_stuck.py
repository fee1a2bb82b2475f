"""Redis that does not answer: the API works, remembered links redirect, and everything is made up for afterwards."""

import os
import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from tests.houses import House, wait_for


def test_the_api_works_and_publishes_later(new_house: Callable[..., House]) -> None:
    house = new_house()
    house.start()
    house.wait_until_ready()
    known = house.link(path="/known")
    assert house.visit("/known").status_code == 302
    [valkey] = house.pids("valkey-server")
    os.kill(valkey, signal.SIGSTOP)
    try:
        with ThreadPoolExecutor(32) as many:
            made = list(many.map(lambda number: house.link(path=f"/made-{number}"), range(60)))
        assert house.visit("/known").status_code == 302
        cold = house.visit("/made-1")
        assert (cold.status_code, cold.headers["retry-after"]) == (503, "1")
    finally:
        os.kill(valkey, signal.SIGCONT)
    for link in made:
        wait_for(lambda path=link["path"]: house.visit(path).status_code == 302)  # type: ignore[misc]
    wait_for(lambda: house.stats(known["id"])["total"] == 2)
    assert house.stop() == 0
