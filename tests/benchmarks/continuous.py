"""Is the whole VPG worth more than the same without V on lesson 9's task? Prints both, seed by seed, and what differs.

    python tests/benchmarks/continuous.py
    python tests/benchmarks/continuous.py --limit 500    # the same with more steps to an episode

The whole's settings were chosen on seeds 100 to 102, with 200 steps. Without V (no values, no bootstrapping, lambda 1)
the learning rate is chosen anew, of four, on the same three seeds; with another limit that of the whole, too. Expected,
before seeds 8000 to 8015 were run so: the whole ends higher, on the mean, and not for every seed. With 500 steps, where
32 are a smaller piece, it ends higher by 50 to 250.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
from torch import nn

TESTS = Path(__file__).parents[1]
sys.path[:0] = [str(TESTS), str(TESTS.parent / "notebooks")]

from build.lessons import code_cells, has_tag, read  # noqa: E402
from clinic import mean_interval  # noqa: E402
from goals import make_poles  # noqa: E402

from vpg_lab import companion  # noqa: E402

LESSON = TESTS.parent / "notebooks/companion/09_continuous_actions.ipynb"
CHOICE, SEEDS = range(100, 103), range(8_000, 8_016)
RATES = 5e-3, 1e-2, 2e-2, 4e-2


def open_lesson() -> dict:
    """Return what the lesson defines up to its models, without its checks."""
    cells = code_cells(read(LESSON))
    (last,) = [place for place, cell in enumerate(cells) if "def make_models(" in cell.source]
    namespace = {"__name__": "__main__"}
    for cell in cells[: last + 1]:
        if not has_tag(cell, "check"):
            exec(cell.source, namespace)
    return namespace


def score(lesson, settings, limit) -> float:
    """Train and return the mean return of 64 fresh episodes of at most so many steps."""
    actor, value_model = lesson["make_models"](settings.seed)
    if not settings.value_steps:
        nn.init.zeros_(value_model[2].weight)
        nn.init.zeros_(value_model[2].bias)
    training, fresh = (companion.ContinuousForce(make_poles(64, limit)) for _ in range(2))
    companion.train_vpg(training, actor, value_model, settings, lesson["ask"])
    return lesson["evaluate"](fresh, actor, limit)


def main():
    """Choose a learning rate for what has none of its own yet, train both, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--limit", type=int, default=200)
    limit, lesson = parser.parse_args().limit, open_lesson()
    whole = lesson["whole"]
    recipes = {"whole": whole, "without V": whole._replace(lam=1.0, value_steps=0, bootstrap=False)}
    for name, settings in recipes.items():
        if name == "whole" and limit == 200:
            continue
        trials = {}
        for rate in RATES:
            tried = [settings._replace(learning_rate=rate, seed=seed) for seed in CHOICE]
            trials[rate] = np.mean([score(lesson, each, limit) for each in tried])
            print(f"{name}, learning rate {rate:g}: {trials[rate]:.0f} on seeds 100 to 102", flush=True)
        recipes[name] = settings._replace(learning_rate=max(trials, key=trials.get))
    scores = {name: [] for name in recipes}
    for seed in SEEDS:
        for name, settings in recipes.items():
            scores[name].append(score(lesson, settings._replace(seed=seed), limit))
        print(f"seed {seed}: whole {scores['whole'][-1]:.0f}, without V {scores['without V'][-1]:.0f}", flush=True)
    scores["difference"] = np.subtract(scores["whole"], scores["without V"])
    for name, of in scores.items():
        low, high = mean_interval(of)
        print(f"{name:10} {np.mean(of):+.0f} ({low:+.0f} to {high:+.0f})")
    print("higher:", int((scores["difference"] > 0).sum()), "of", len(SEEDS))


if __name__ == "__main__":
    main()
