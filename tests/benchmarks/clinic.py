"""How often is lesson 10's `diagnose` right? Print, for each recipe, what it says of fresh runs, and CPU seconds.

    python tests/benchmarks/clinic.py              # 8 runs of each bug, 20 of each sound recipe
    python tests/benchmarks/clinic.py --seed 5000  # other runs

The lesson's thresholds were set with runs of seeds below 1,000.
"""

import argparse
import collections
import sys
import time
from pathlib import Path

TESTS = Path(__file__).parents[1]
sys.path[:0] = [str(TESTS), str(TESTS.parent / "notebooks")]

from catalogue import Stage  # noqa: E402

from vpg_lab.intervals import share_interval  # noqa: E402


def main():
    """Diagnose fresh runs and count."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=1_000, help="the first of the seeds")
    seed, lesson = parser.parse_args().seed, Stage("diagnose").open()
    named, accused, bugs, sound = 0, 0, 0, 0
    for name, recipe in lesson["RECIPES"].items():
        is_sound = name in ("healthy", "slow")
        start = time.process_time()
        runs = lesson["make_runs"](recipe, range(seed, seed + (20 if is_sound else 8)))
        seconds = (time.process_time() - start) / len(runs)
        said = collections.Counter(map(lesson["diagnose"], runs))
        print(f"{name:20} {seconds:5.2f} s a run  {dict(said)}")
        if is_sound:
            sound, accused = sound + len(runs), accused + len(runs) - said["healthy"]
        else:
            bugs, named = bugs + len(runs), named + said[name]
    for what, count, total in [("sick runs named", named, bugs), ("sound runs accused", accused, sound)]:
        low, high = share_interval(count, total)
        print(f"{what}: {count} of {total} ({low:.1%} to {high:.1%})")


if __name__ == "__main__":
    main()
