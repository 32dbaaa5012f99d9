"""How much computing the whole VPG takes until a fresh evaluation of 128 episodes reaches 475 of 500 steps.

python tests/benchmarks/companion.py             # CartPole-v1, 8 seeds, the plain loop's speed beside it
"""

import functools
import statistics
import time

import gymnasium as gym
import torch
from torch import nn

import vpg_companion as companion
import vpg_helpers as vpg

SEEDS, GOAL, EVERY = range(8), 475, 4


def make_poles(number):
    """Make CartPole-v1 with its own 500 steps, many side by side."""
    return gym.make_vec("CartPole-v1", number, "vector_entry_point", max_episode_steps=500)


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
                with torch.random.fork_rng(devices=[]):
                    policy = functools.partial(vpg.get_policy, model)
                    _, returns = next(companion.play_on(make_poles(128), policy, 500, seed=10_000))
                spent["apart"] += time.process_time() - before
                if returns.mean() >= GOAL:
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


def main():
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
    main()
