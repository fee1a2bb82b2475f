"""The spool: what is on disk after an append, and what a disk that fails costs."""

import itertools
import os
import signal
import stat
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import REGISTRY

from edge.spool import SUFFIX, Spool, is_finished
from tests.houses import wait_for


def spools(directory: Path) -> list[Path]:
    """The spools that the shipper would find, oldest first."""
    return sorted(directory.glob("*" + SUFFIX), key=lambda path: path.stat().st_ctime_ns)


def records(path: Path) -> list[bytes]:
    """The complete records of a spool."""
    return path.read_bytes().split(b"\n")[:-1]


def counted(name: str) -> float:
    return REGISTRY.get_sample_value(f"linkwire_clicks_{name}_total") or 0.0


def test_records_are_in_the_file_one_per_line_as_soon_as_they_are_appended(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    for number in range(1, 4):
        spool.append(b"record %d" % number)
        [path] = spools(tmp_path)  # not closed, and read through another descriptor
        assert path.read_bytes() == b"".join(b"record %d\n" % earlier for earlier in range(1, number + 1))
    spool.close()


@given(texts=st.lists(st.binary(max_size=200).map(lambda text: text.replace(b"\n", b"")), max_size=30))
def test_whatever_is_appended_is_read_back_in_order_across_all_spools(
    tmp_path_factory: pytest.TempPathFactory, texts: list[bytes]
) -> None:
    directory = tmp_path_factory.mktemp("spool")
    appended = [b"%03d %s" % (number, text) for number, text in enumerate(texts)]
    spool = Spool(directory, segment_bytes=300)
    for record in appended:
        spool.append(record)
    spool.close()
    in_order = sorted(records(path) for path in spools(directory))  # by their first records, which are numbered
    assert list(itertools.chain(*in_order)) == appended


def test_nothing_is_on_disk_before_the_first_record(tmp_path: Path) -> None:
    Spool(tmp_path).close()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_only_the_owner_may_read_a_spool_whatever_the_umask(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        spool = Spool(tmp_path)
        spool.append(b"one")
    finally:
        os.umask(before)
    [path] = spools(tmp_path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    spool.close()


def test_a_spool_that_has_grown_to_its_size_is_followed_by_another(tmp_path: Path) -> None:
    spool = Spool(tmp_path, segment_bytes=10)
    spool.append(b"1234")
    spool.append(b"5678")  # now it has its ten bytes
    [first] = spools(tmp_path)
    spool.append(b"9")
    spool.append(b"10")
    [second] = [path for path in spools(tmp_path) if path != first]
    assert (records(first), records(second)) == ([b"1234", b"5678"], [b"9", b"10"])
    assert is_finished(first)
    assert not is_finished(second)
    spool.close()


def test_an_id_is_never_used_twice(tmp_path: Path) -> None:
    spool = Spool(tmp_path, segment_bytes=1)
    for _ in range(50):
        spool.append(b"x")
    spool.close()
    assert len(spools(tmp_path)) == 50
    assert all(len(path.stem) == 16 and set(path.stem) <= set("0123456789abcdef") for path in spools(tmp_path))


def test_a_spool_is_finished_when_its_writer_has_closed_it_and_not_before(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    spool.append(b"one")
    [path] = spools(tmp_path)
    assert not is_finished(path)
    spool.close()
    assert is_finished(path)


def test_asking_whether_a_spool_is_finished_does_not_finish_it(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    spool.append(b"one")
    [path] = spools(tmp_path)
    assert [is_finished(path) for _ in range(3)] == [False] * 3
    spool.append(b"two")
    assert records(path) == [b"one", b"two"]
    spool.close()


def test_after_a_close_the_next_record_opens_another_spool(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    spool.append(b"one")
    spool.close()
    spool.close()  # harmless
    spool.append(b"two")
    spool.close()
    assert sorted(map(records, spools(tmp_path))) == [[b"one"], [b"two"]]


def test_what_was_appended_survives_the_death_of_the_process_and_the_spool_is_finished_then(tmp_path: Path) -> None:
    writer = subprocess.Popen(
        [sys.executable, "-c", _WRITES_AND_WAITS, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"written\n"
        [path] = spools(tmp_path)
        assert not is_finished(path)
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        assert records(path) == [b"one", b"two"]
        wait_for(lambda: is_finished(path))
    finally:
        writer.kill()
        writer.communicate()


_WRITES_AND_WAITS = textwrap.dedent("""
    import sys
    from pathlib import Path
    from edge.spool import Spool

    spool = Spool(Path(sys.argv[1]))
    spool.append(b"one")
    spool.append(b"two")
    print("written", flush=True)
    sys.stdin.read()
""")


def test_records_are_counted(tmp_path: Path) -> None:
    recorded, dropped = counted("recorded"), counted("dropped")
    spool = Spool(tmp_path)
    spool.append(b"one")
    spool.append(b"two")
    spool.close()
    assert (counted("recorded") - recorded, counted("dropped") - dropped) == (2, 0)


def test_without_its_directory_records_are_dropped_and_counted_and_with_it_they_are_written_again(
    tmp_path: Path,
) -> None:
    directory = tmp_path / "spool"
    spool = Spool(directory)
    recorded, dropped = counted("recorded"), counted("dropped")
    spool.append(b"one")
    spool.append(b"two")
    assert (counted("recorded") - recorded, counted("dropped") - dropped) == (0, 2)
    directory.mkdir()
    spool.append(b"three")
    spool.close()
    assert [records(path) for path in spools(directory)] == [[b"three"]]
    assert (counted("recorded") - recorded, counted("dropped") - dropped) == (1, 2)


def test_where_another_spool_can_not_be_opened_the_old_one_ends_and_records_are_dropped(tmp_path: Path) -> None:
    directory = tmp_path / "spool"
    directory.mkdir()
    spool = Spool(directory, segment_bytes=1)
    spool.append(b"one")
    directory.rename(tmp_path / "away")
    dropped = counted("dropped")
    spool.append(b"two")
    assert counted("dropped") - dropped == 1
    (tmp_path / "away").rename(directory)
    [path] = spools(directory)
    assert is_finished(path)
    spool.append(b"three")
    spool.close()
    assert sorted(map(records, spools(directory))) == [[b"one"], [b"three"]]


def test_a_full_disk_costs_the_record_that_it_tears_and_the_next_one_begins_another_spool(tmp_path: Path) -> None:
    """The limit on file sizes makes write(2) take a part of a line, as the last block of a disk does."""
    told = subprocess.run(
        [sys.executable, "-c", _WRITES_UP_TO_A_LIMIT, str(tmp_path)], capture_output=True, text=True, timeout=30
    )
    assert (told.returncode, told.stdout) == (0, "recorded 3, dropped 1\n"), told.stderr
    assert "clicks are dropped" in told.stderr
    whole, after = sorted(spools(tmp_path), key=lambda path: -path.stat().st_size)
    assert whole.read_bytes() == b"1" * 40 + b"\n" + b"2" * 40 + b"\n" + b"3" * 18
    assert after.read_bytes() == b"4" * 40 + b"\n"


_WRITES_UP_TO_A_LIMIT = textwrap.dedent("""
    import logging, resource, sys
    from pathlib import Path
    from prometheus_client import REGISTRY
    from edge.spool import Spool

    logging.basicConfig()
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
    spool = Spool(Path(sys.argv[1]))
    for digit in b"1234":
        spool.append(bytes([digit]) * 40)
    recorded = REGISTRY.get_sample_value("linkwire_clicks_recorded_total")
    dropped = REGISTRY.get_sample_value("linkwire_clicks_dropped_total")
    print(f"recorded {recorded:g}, dropped {dropped:g}")
""")


def test_a_disk_that_takes_nothing_costs_records_and_leaves_the_spool_whole(tmp_path: Path) -> None:
    """At the limit itself write(2) fails and takes nothing, so the spool goes on when there is room again."""
    told = subprocess.run(
        [sys.executable, "-c", _WRITES_AT_A_LIMIT, str(tmp_path)], capture_output=True, text=True, timeout=30
    )
    assert (told.returncode, told.stdout) == (0, "recorded 3, dropped 1\n"), told.stderr
    [path] = spools(tmp_path)
    assert records(path) == [b"1" * 49, b"2" * 49, b"4" * 49]
    assert path.read_bytes().endswith(b"\n")


_WRITES_AT_A_LIMIT = textwrap.dedent("""
    import resource, sys
    from pathlib import Path
    from prometheus_client import REGISTRY
    from edge.spool import Spool

    spool = Spool(Path(sys.argv[1]))
    for digit in b"1234":
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000 if digit == ord("4") else 100, 1000))
        spool.append(bytes([digit]) * 49)
    recorded = REGISTRY.get_sample_value("linkwire_clicks_recorded_total")
    dropped = REGISTRY.get_sample_value("linkwire_clicks_dropped_total")
    print(f"recorded {recorded:g}, dropped {dropped:g}")
""")
