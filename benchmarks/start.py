"""How long does `linkwire up` take until everything answers?

Starts one home several times and prints the first start (which makes the databases) and the later ones. The promise is
five seconds for every start after the first, on two cores. Run it with `make bench-start`.
"""

import statistics
import tempfile
import time
from pathlib import Path

from tests.houses import House

LATER_STARTS = 5


def main() -> None:
    """Print the figures."""
    with tempfile.TemporaryDirectory() as directory:
        house = House(Path(directory) / "home")
        seconds = []
        for _ in range(1 + LATER_STARTS):
            began_at = time.monotonic()
            house.start()
            house.wait_until_ready()
            seconds.append(time.monotonic() - began_at)
            house.stop()
    later = seconds[1:]
    print(f"first start  {seconds[0]:.2f} s")
    print(
        f"later starts {statistics.median(later):.2f} s median, {max(later):.2f} s worst of {len(later)} (promise: 5 s)"
    )


if __name__ == "__main__":
    main()
