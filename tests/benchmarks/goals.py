"""How much computing the whole VPG takes until fresh episodes reach a goal; evaluations, at every fourth epoch, apart.

python tests/benchmarks/goals.py cartpole    # to 475 of 500 steps, 8 seeds, the plain loop's speed beside it
python tests/benchmarks/goals.py lesson      # the same with the settings of lesson 8
python tests/benchmarks/goals.py force       # the same with a force that is chosen, 5 seeds
python tests/benchmarks/goals.py pendulum    # InvertedPendulum-v5 to 950 of 1,000, 4 seeds; needs .[mujoco]
python tests/benchmarks/goals.py plain       # the plain loop to 475 of 500, one seed; minutes
"""

import argparse
import functools
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import gymnasium as gym
import numpy as np
import torch
from torch import nn

TESTS = Path(__file__).parents[1]
sys.path[:0] = [str(TESTS), str(TESTS.parent / "notebooks")]

from catalogue import Stage  # noqa: E402

import vpg_helpers as vpg  # noqa: E402
from vpg_lab import companion  # noqa: E402

EVERY, NEVER = 4, (float("inf"), float("inf"))


class Task(NamedTuple):
    """What is trained: how environments and a policy are made, with what settings, and when it counts as learned.

    Settings were chosen on seeds from 100 on, and are measured on others; those of lesson 8 are its defaults.
    """

    make_env: Callable[[int], gym.vector.VectorEnv]
    make_model: Callable[[], nn.Module]
    get_policy: Callable
    settings: companion.Settings
    environments: int
    fresh: int  # episodes of an evaluation
    limit: int
    goal: float
    seeds: range


class GoalReachedError(Exception):
    """Ends a training."""


def make_network(outputs):
    """Make the network of lesson 8."""
    return nn.Sequential(nn.Linear(4, 32), nn.Tanh(), nn.Linear(32, outputs))


@functools.cache
def open_lesson_9():
    """Return what lesson 9 defines before it checks its actor."""
    return Stage("GaussianActor").open()


def make_actor():
    """Make the actor of lesson 9."""
    return open_lesson_9()["GaussianActor"](4, 1)


def make_poles(number, limit=500):
    """Make CartPole-v1, many side by side."""
    return gym.make_vec("CartPole-v1", number, "vector_entry_point", max_episode_steps=limit)


def make_pushed_poles(number):
    """Make the same under a force that is chosen."""
    return companion.ContinuousForce(make_poles(number))


def make_pendulums(number):
    """Make MuJoCo's pendulum, many one after the other."""
    return gym.make_vec("InvertedPendulum-v5", number, "sync")


def ask(actor, observations):
    """Ask an actor for its policy."""
    return actor(observations)


WHOLE = companion.WHOLE._replace(epochs=160)
FAST = companion.WHOLE._replace(epochs=160, learning_rate=3e-2, value_steps=3, gamma=0.98)
PUSHED = companion.WHOLE._replace(epochs=160, steps=64, gamma=0.97, value_steps=5)
TASKS = {
    "cartpole": Task(make_poles, functools.partial(make_network, 2), vpg.get_policy, FAST, 64, 128, 500, 475, range(8)),
    "lesson": Task(make_poles, functools.partial(make_network, 2), vpg.get_policy, WHOLE, 64, 128, 500, 475, range(8)),
    "force": Task(make_pushed_poles, make_actor, ask, PUSHED, 64, 128, 500, 475, range(300, 305)),
    "pendulum": Task(make_pendulums, make_actor, ask, FAST._replace(steps=64), 32, 16, 1_000, 950, range(200, 204)),
}


def evaluate(task, model):
    """Return the mean return of fresh episodes, the first of each environment; training's random numbers stay."""
    with torch.random.fork_rng(devices=[]):
        policy = functools.partial(task.get_policy, model)
        _, returns = next(companion.play_on(task.make_env(task.fresh), policy, task.limit, seed=10_000))
    return returns.mean()


def reach_goal(task, seed):
    """Return epochs and CPU seconds until the goal, without those of the evaluations; infinity if never."""
    task.make_model()  # the first one may open a lesson
    torch.manual_seed(seed)
    model, value_model, epochs, apart, start = task.make_model(), make_network(1), 0, 0.0, time.process_time()

    def get_policy(model, seen):
        nonlocal epochs, apart
        # The pass over a batch comes once an epoch; at every fourth, the model is evaluated before it is changed.
        if len(seen) > task.environments:
            epochs += 1
            before = time.process_time()
            if epochs % EVERY == 0 and evaluate(task, model) >= task.goal:
                apart += time.process_time() - before
                raise GoalReachedError
            apart += time.process_time() - before
        return task.get_policy(model, seen)

    try:
        env = task.make_env(task.environments)
        companion.train_vpg(env, model, value_model, task.settings._replace(seed=seed), get_policy)
    except GoalReachedError:
        return epochs, time.process_time() - start - apart
    return NEVER


def make_plain_loop(seed=0):
    """Return the plain loop's epoch, to be called with a budget of steps, and its model."""
    env = gym.make("CartPole-v1", max_episode_steps=500)
    env.reset(seed=seed)
    torch.manual_seed(seed)
    model = vpg.create_model(4, 2)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    return functools.partial(vpg.train_one_epoch, env, model, optimizer), model


def plain_steps_a_second(steps=2_000):
    """Return the plain loop's speed, one epoch of this many steps."""
    run_epoch, _ = make_plain_loop()
    start = time.process_time()
    run_epoch(steps)
    return steps / (time.process_time() - start)


def report(task):
    """Measure the seeds of a task and print, the plain loop's speed in between."""
    runs, plain = [], []
    for seed in task.seeds:
        epochs, seconds = reach_goal(task, seed)
        runs.append((epochs, seconds))
        plain.append(plain_steps_a_second())
        steps = epochs * task.environments * task.settings.steps
        print(f"seed {seed}: {epochs} epochs, {seconds:.2f} s for {steps:,} steps", end="; ")
        print(f"the plain loop takes {steps / plain[-1]:.1f} s for as many CartPole steps", flush=True)
    epochs, seconds = np.transpose(runs)
    print(
        f"{np.isfinite(epochs).sum()} of {len(runs)} reached {task.goal}: median {np.median(epochs):.0f} epochs", end=""
    )
    print(f", {np.median(seconds):.2f} s, longest {seconds.max():.2f} s", end="; ")
    print(f"plain loop {statistics.median(plain):,.0f} steps a second")


def report_plain_loop(epochs=120):
    """Train with the plain loop to the goal of CartPole and print an evaluation a line."""
    run_epoch, model = make_plain_loop()
    spent = 0.0
    for epoch in range(1, epochs + 1):
        start = time.process_time()
        run_epoch(5_000)
        spent += time.process_time() - start
        if epoch % EVERY == 0:
            fresh = evaluate(TASKS["cartpole"], model)
            print(f"epoch {epoch}: {fresh:.0f} of 500 after {spent:.0f} s", flush=True)
            if fresh >= TASKS["cartpole"].goal:
                break


def main():
    """Read what to measure, and measure it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=[*TASKS, "plain"], nargs="?", default="cartpole")
    what = parser.parse_args().what
    torch.optim.Adam([torch.zeros(1, requires_grad=True)])  # the first one ever imports for two seconds
    report_plain_loop() if what == "plain" else report(TASKS[what])


if __name__ == "__main__":
    main()
