"""What lesson 8 would take too long to run.

python tests/benchmarks/companion.py             # computing until fresh episodes reach 475 of 500; the plain loop's
python tests/benchmarks/companion.py ablation    # at the lesson's budget, and at that of the first look
python tests/benchmarks/companion.py units       # V in units of 30 and of 1, on the way to 500 steps
"""

import functools
import statistics
import sys
import time

import gymnasium as gym
import numpy as np
import torch
from torch import nn

import vpg_companion as companion
import vpg_helpers as vpg

SEEDS, GOAL, EVERY = range(8), 475, 4
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


def make_poles(number, limit=500):
    """Make CartPole-v1, many side by side."""
    return gym.make_vec("CartPole-v1", number, "vector_entry_point", max_episode_steps=limit)


def make_network(outputs):
    """Make the network of lesson 8."""
    return nn.Sequential(nn.Linear(4, 32), nn.Tanh(), nn.Linear(32, outputs))


def reach_goal(seed):
    """Return epochs and CPU seconds until the goal, without those of the evaluations; infinity if never."""
    torch.manual_seed(seed)
    model, value_model = make_network(2), make_network(1)
    spent = {"epochs": 0, "apart": 0.0, "start": time.process_time()}

    def get_policy(model, seen):
        # The pass over a batch comes once an epoch; at every fourth, the model is evaluated before it is changed.
        if len(seen) > 64:
            spent["epochs"] += 1
            if spent["epochs"] % EVERY == 0:
                before = time.process_time()
                score = fresh_mean(model)
                spent["apart"] += time.process_time() - before
                if score >= GOAL:
                    raise StopIteration
        return vpg.get_policy(model, seen)

    try:
        companion.train_vpg(
            make_poles(64), model, value_model, companion.WHOLE._replace(epochs=160, seed=seed), get_policy
        )
    except StopIteration:
        return spent["epochs"], time.process_time() - spent["start"] - spent["apart"]
    return float("inf"), float("inf")


def plain_steps_a_second(steps=2_000):
    """Return the plain loop's speed, one epoch of this many steps."""
    env = gym.make("CartPole-v1", max_episode_steps=500)
    env.reset(seed=0)
    model = vpg.create_model(4, 2)
    start = time.process_time()
    vpg.train_one_epoch(env, model, torch.optim.Adam(model.parameters()), steps)
    return steps / (time.process_time() - start)


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


def reach_goals():
    """Measure and print, alternating."""
    torch.optim.Adam([torch.zeros(1, requires_grad=True)])  # the first one ever imports for two seconds
    runs, plain = [], []
    for seed in SEEDS:
        runs.append(reach_goal(seed))
        plain.append(plain_steps_a_second())
        steps = runs[-1][0] * 64 * 32
        print(f"seed {seed}: {runs[-1][0]} epochs, {runs[-1][1]:.2f} s for {steps:,} steps", end="; ")
        print(f"the plain loop takes {steps / plain[-1]:.1f} s for as many", flush=True)
    print("median", statistics.median(epochs for epochs, _ in runs), "epochs", end=", ")
    print(f"{statistics.median(seconds for _, seconds in runs):.2f} s", end=", ")
    print(f"plain loop {statistics.median(plain):,.0f} steps a second")


if __name__ == "__main__":
    if "ablation" in sys.argv:
        compare(LEFT_OUT, companion.Settings(epochs=12, steps=8), 64, 200)
        compare(LEFT_OUT | LEFT_OUT_TOO, companion.Settings(epochs=30, steps=16), 32, 200)
    elif "units" in sys.argv:
        compare(UNITS, companion.Settings(epochs=48), 64, 500)
    else:
        reach_goals()
