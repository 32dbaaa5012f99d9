"""What lesson 8 would take too long to run.

python tests/benchmarks/companion.py ablation    # at the lesson's budget, and at that of the first look
python tests/benchmarks/companion.py units       # V in units of 30 and of 1, on the way to 500 steps
"""

import argparse
import functools

import numpy as np
import torch
from goals import make_network, make_poles

import vpg_helpers as vpg
from vpg_lab import companion

FRESH_SEEDS = range(100, 116)
# Settings, and the difference to the whole that was expected before these seeds were run; "none" is an interval
# that holds 0.
LEFT_OUT = {
    "whole": ({}, ""),
    "no bootstrapping": ({"bootstrap": False}, "better"),
    "V in units of 1": ({"value_unit": 1.0}, "better"),
    "lambda = 0": ({"lam": 0.0}, "worse: an advantage is one reward, and the rest is V"),
}
LEFT_OUT_TOO = {
    "lambda = 1": ({"lam": 1.0}, "none: in paths of 16 steps it is nearly 0.97"),
    "not normalized": ({"normalize": False}, "worse: a wrong V shifts all advantages of a batch alike"),
}
UNITS = {
    "V in units of 30": ({}, ""),
    "V in units of 1": ({"value_unit": 1.0}, "worse: V needs twenty epochs to grow"),
}


def compare(rows, whole, number, limit):
    """Print, row by row, what fresh episodes return after training, and the difference to the first row."""
    poles, scores, random = make_poles(number, limit), [], np.random.default_rng(0)
    for name, (changes, expected) in rows.items():
        settings = [whole._replace(seed=seed, **changes) for seed in FRESH_SEEDS]
        scores.append([fresh_mean(train(poles, each), limit) for each in settings])
        difference = np.subtract(scores[-1], scores[0])
        means = difference[random.integers(len(difference), size=(2_000, len(difference)))].mean(axis=1)
        low, high = np.percentile(means, [2.5, 97.5])
        print(f"{name:16} {np.mean(scores[-1]):4.0f}, {difference.mean():+4.0f} ({low:+.0f} to {high:+.0f})", end="; ")
        print(f"expected: {expected}", flush=True)


def train(poles, settings):
    """Return a model that the seed of the settings made and trained."""
    torch.manual_seed(settings.seed)
    model, value_model = make_network(2), make_network(1)
    companion.train_vpg(poles, model, value_model, settings)
    return model


def fresh_mean(model, limit=500):
    """Return the mean return of 128 fresh episodes, whatever was drawn before."""
    with torch.random.fork_rng(devices=[]):
        policy = functools.partial(vpg.get_policy, model)
        return next(companion.play_on(make_poles(128, limit), policy, limit, seed=10_000))[1].mean()


def main():
    """Read what to measure, and measure it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["ablation", "units"])
    if parser.parse_args().what == "ablation":
        compare(LEFT_OUT, companion.Settings(epochs=12, steps=8), 64, 200)
        compare(LEFT_OUT | LEFT_OUT_TOO, companion.Settings(epochs=30, steps=16), 32, 200)
    else:
        compare(UNITS, companion.Settings(epochs=48), 64, 500)


if __name__ == "__main__":
    main()
