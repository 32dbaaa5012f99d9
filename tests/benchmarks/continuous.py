"""Is the whole VPG worth more than the same without V on lesson 9's task? Prints both, seed by seed, and what differs.

    python tests/benchmarks/continuous.py

The whole's settings were chosen on seeds 100 to 102. Without V (no values, no bootstrapping, lambda 1) the learning
rate is chosen anew, of four, on the same three seeds. Expected, before seeds 8000 to 8015 were run so: the whole ends
higher, on the mean, and not for every seed.
"""

import sys
from pathlib import Path

import numpy as np
from torch import nn

TESTS = Path(__file__).parents[1]
sys.path[:0] = [str(TESTS), str(TESTS.parent / "notebooks")]

from build.lessons import code_cells, has_tag, read  # noqa: E402
from clinic import mean_interval  # noqa: E402

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


def score(lesson, settings) -> float:
    """Train and return the mean return of 64 fresh episodes."""
    actor, value_model = lesson["make_models"](settings.seed)
    if not settings.value_steps:
        nn.init.zeros_(value_model[2].weight)
        nn.init.zeros_(value_model[2].bias)
    companion.train_vpg(lesson["make_poles"](64), actor, value_model, settings, lesson["ask"])
    return lesson["evaluate"](lesson["make_poles"](64), actor, 200)


def main():
    """Choose a learning rate for what has no V, train both, print."""
    lesson = open_lesson()
    whole = lesson["whole"]
    without_v = whole._replace(lam=1.0, value_steps=0, bootstrap=False)
    trials = {}
    for rate in RATES:
        trials[rate] = np.mean([score(lesson, without_v._replace(learning_rate=rate, seed=seed)) for seed in CHOICE])
        print(f"without V, learning rate {rate:g}: {trials[rate]:.0f} on seeds 100 to 102", flush=True)
    recipes = {"whole": whole, "without V": without_v._replace(learning_rate=max(trials, key=trials.get))}
    scores = {name: [] for name in recipes}
    for seed in SEEDS:
        for name, settings in recipes.items():
            scores[name].append(score(lesson, settings._replace(seed=seed)))
        print(f"seed {seed}: whole {scores['whole'][-1]:.0f}, without V {scores['without V'][-1]:.0f}", flush=True)
    scores["difference"] = np.subtract(scores["whole"], scores["without V"])
    for name, of in scores.items():
        low, high = mean_interval(of)
        print(f"{name:10} {np.mean(of):+.0f} ({low:+.0f} to {high:+.0f})")
    print("higher:", int((scores["difference"] > 0).sum()), "of", len(SEEDS))


if __name__ == "__main__":
    main()
