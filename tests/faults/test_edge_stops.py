"""The edge told to stop under load, started again beside what it left, and without room on the disk."""

import os
import resource
import signal
from collections.abc import Callable

from tests.faults.visitors import Visitors, assert_counted, assert_equations
from tests.houses import House, wait_for


def test_a_worker_that_is_told_to_stop_fails_no_request(new_house: Callable[..., House]) -> None:
    house = new_house(LINKWIRE_EDGE_WORKERS="2")
    house.start()
    house.wait_until_ready()
    link = house.link()
    with (
        Visitors(house, link["path"]) as staying,
        Visitors(house, link["path"], threads=2, keep_alive=False) as coming,
    ):
        for _ in range(2):
            staying.wait_for_more(1000)
            workers = set(house.pids("--socket"))
            os.kill(min(workers), signal.SIGTERM)
            wait_for(lambda: len(set(house.pids("--socket")) - workers) == 1, 20)  # noqa: B023
        staying.wait_for_more(1000)
    for visitors in (staying, coming):
        assert (visitors.cut_off, visitors.failed) == (0, {})
    assert_counted(house, link["id"], staying, before=coming.redirects)
    assert house.stop() == 0


def test_the_edge_that_is_told_to_stop_answers_what_it_was_asked_and_leaves_nothing_behind(
    new_house: Callable[..., House],
) -> None:
    house = new_house()
    house.start()
    house.wait_until_ready()
    link = house.link()
    with Visitors(house, link["path"]) as visitors:
        visitors.wait_for_more(2000)
        [parent] = [pid for pid in house.pids("-m edge") if pid not in house.pids("edge.shipper", "--socket")]
        os.kill(parent, signal.SIGTERM)
        wait_for(lambda: parent not in house.processes(), 20)
        left = [path.name for path in (house.home / "spool").iterdir()]
        visitors.wait_for_more(1000)  # by the one that was started instead
    assert (visitors.cut_off, visitors.failed, left) == (0, {}, [])
    assert_counted(house, link["id"], visitors)
    assert house.stop() == 0
    assert list((house.home / "spool").iterdir()) == []


def test_a_full_disk_costs_clicks_and_no_redirect_and_is_counted(new_house: Callable[..., House]) -> None:
    house = new_house(LINKWIRE_SPOOL_MAX_BYTES=str(64 * 1024 * 1024))
    house.start()
    house.wait_until_ready()
    link = house.link()
    [shipper] = house.pids("edge.shipper")
    with Visitors(house, link["path"], padding=10_000) as visitors:
        visitors.wait_for_more(1000)
        [worker] = house.pids("--socket")
        resource.prlimit(worker, resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))
        os.kill(shipper, signal.SIGSTOP)
        # Two segments are there already; without more of them nothing can be recorded.
        wait_for(lambda: dropped(house) > 1000, 60)
        resource.prlimit(worker, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        os.kill(shipper, signal.SIGCONT)
        wait_for(lambda: house.pipeline()["total"]["dropped"] > 1000, 20)
        before = house.pipeline()["total"]["recorded"]
        wait_for(lambda: house.pipeline()["total"]["recorded"] > before, 20)
    assert (visitors.cut_off, visitors.failed) == (0, {})

    def is_settled() -> bool:
        total = house.pipeline()["total"]
        return bool(total["served"] == visitors.redirects and total["inSpool"] == 0)

    wait_for(is_settled, 40)
    total = house.pipeline()["total"]
    assert_equations(total)
    assert total["dropped"] > 1000
    assert house.stats(link["id"])["total"] == total["stored"] == total["recorded"]
    assert house.stop() == 0


def dropped(house: House) -> int:
    """As the worker counts it, in the file that the shipper reads."""
    [counts] = (house.home / "spool").glob("*.spool")
    return int.from_bytes(counts.read_bytes()[16:24], "little")
