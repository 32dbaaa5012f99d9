"""Measure training speed: print one table and write nothing.

    python tests/benchmarks/speed.py             # about two minutes
    python tests/benchmarks/speed.py --repeats 1

Every rate is in counted environment steps: steps of episodes that enter a gradient, and no resets. All rows are
measured in one process, in turns, and given as medians; ratios are to the plain loop of lesson 05. Seconds are
CPU seconds of the one thread that computes, since a busy machine stretches those least. Times differ by machine
and by what else it does; ratios differ less.
"""

import argparse
import statistics
import sys
import time

import gymnasium as gym
import numpy as np
import torch

import vpg_helpers as vpg
from vpg_lab import poles

EPOCHS = 40


def measure(repeats, **runs):
    """Call every run in turns; return name -> (median seconds, median counted steps)."""
    results = {name: [] for name in runs}
    for _ in range(repeats):
        for name, run in runs.items():
            start = time.process_time()
            steps = run()
            results[name].append((time.process_time() - start, steps))
    return {name: tuple(map(statistics.median, zip(*pairs, strict=True))) for name, pairs in results.items()}


def plain_epoch(keep_graph=False):
    """Return a function that runs one epoch of the plain loop, or of its form that keeps every step's graph."""
    env = gym.make("CartPole-v1", max_episode_steps=200)
    env.reset(seed=0)
    torch.manual_seed(0)
    model = vpg.create_model(4, 2)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)

    def article_epoch():
        log_probabilities, weights = [], []
        while len(weights) < 5_000:
            observation, _ = env.reset()
            rewards, done = [], False
            while not done:
                action, log_probability = vpg.get_action(vpg.get_policy(model, observation))
                log_probabilities.append(log_probability)
                observation, reward, terminated, truncated, _ = env.step(action)
                rewards.append(reward)
                done = terminated or truncated
            weights += [sum(rewards)] * len(rewards)
        optimizer.zero_grad()
        vpg.calculate_loss(torch.stack(log_probabilities), torch.tensor(weights)).backward()
        optimizer.step()
        return len(weights)

    def lesson_epoch():
        vpg.train_one_epoch(env, model, optimizer)
        return 5_000  # and on average half an episode more

    return article_epoch if keep_graph else lesson_epoch


def seeds_run(number_of_seeds, **settings):
    """Return a function that trains that many seeds side by side and returns the steps counted."""
    return lambda: int(vpg.train_seeds(range(number_of_seeds), **settings).timesteps.sum())


def bare_environment_rate(number_of_environments, steps=2_000):
    """Steps per second of Gymnasium's vector environment with ready-made actions: the ceiling."""
    env, random = vpg.make_cartpoles(number_of_environments), np.random.default_rng(0)
    env.reset(seed=0)
    actions = random.integers(2, size=(100, number_of_environments))
    start = time.process_time()
    for step in range(steps):
        env.step(actions[step % 100])
    return steps * number_of_environments / (time.process_time() - start)


class Stopwatch:
    """Count the seconds spent inside functions, by wrapping them."""

    def __init__(self):
        self.seconds = 0.0

    def wrap(self, function):
        def timed(*arguments, **settings):
            start = time.process_time()
            try:
                return function(*arguments, **settings)
            finally:
                self.seconds += time.process_time() - start

        return timed


def split_of_time(number_of_seeds):
    """Train once with stopwatches inside; return name -> share of the time."""
    environment, policy, gradient, everything = (Stopwatch() for _ in range(4))
    originals = vpg.make_cartpoles, poles._stack_models, vpg.take_gradient_step

    def timed_cartpoles(number):
        env = originals[0](number)
        env.step = environment.wrap(env.step)
        return env

    vpg.make_cartpoles = timed_cartpoles
    poles._stack_models = lambda models: policy.wrap(originals[1](models))
    vpg.take_gradient_step = gradient.wrap(originals[2])
    try:
        everything.wrap(seeds_run(number_of_seeds))()
    finally:
        vpg.make_cartpoles, poles._stack_models, vpg.take_gradient_step = originals
    parts = {"environment": environment, "policy": policy, "gradient": gradient}
    shares = {name: watch.seconds / everything.seconds for name, watch in parts.items()}
    return {**shares, "bookkeeping": 1 - sum(shares.values())}


def weights_shares(repeats):
    """Return recipe -> share of a gradient step that its weights take, on a new model's batch: many short episodes."""
    model = vpg.create_model(4, 2)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-9)
    (episodes,) = vpg.collect_episodes(vpg.make_cartpoles(32), [model], [np.random.default_rng(0)])
    by_episode = vpg.per_episode(lambda rewards: np.cumsum(rewards[::-1])[::-1])

    def weights_and_step(weigh):
        watch, step = Stopwatch(), Stopwatch()
        for _ in range(20 * repeats):
            step.wrap(vpg.take_gradient_step)(model, optimizer, episodes, watch.wrap(weigh))
        return watch.seconds / step.seconds

    recipes = {"whole return": vpg.whole_return, "reward-to-go": vpg.rewards_to_go, "the same, per episode": by_episode}
    return {name: weights_and_step(weigh) for name, weigh in recipes.items()}


def peak_memory():
    """Return the process's peak resident memory in MiB, or nan where the system does not tell."""
    try:
        import resource
    except ImportError:  # Windows
        return float("nan")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1024**2 if sys.platform == "darwin" else peak / 1024


def exponent(sizes, seconds):
    """Return the slope of log time over log size: 1 is proportional, 0 is free."""
    return np.polyfit(np.log(sizes), np.log(seconds), 1)[0]


def main():
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Measure training speed.")
    parser.add_argument("--repeats", type=int, default=5)
    repeats = parser.parse_args().repeats
    seeds_run(1, epochs=1)()  # the first optimizer imports a good deal
    memory_before = peak_memory()

    rows = measure(repeats, **{"article's loop": plain_epoch(keep_graph=True), "plain loop": plain_epoch()})
    rows = {name: (EPOCHS * seconds, EPOCHS * steps) for name, (seconds, steps) in rows.items()}
    counts = (1, 8, 32)
    rows |= measure(repeats, **{f"{count:2d} seed{'s'[: count > 1]}": seeds_run(count) for count in counts})
    memory = peak_memory()
    ceilings = {count: statistics.median(bare_environment_rate(32 * count) for _ in range(repeats)) for count in counts}

    plain_rate = rows["plain loop"][1] / rows["plain loop"][0]
    print(f"{EPOCHS} epochs, medians of {repeats}; the first two rows from single epochs of 5,000 steps")
    print(f"{'':15s} {'seconds':>8s} {'steps/s':>10s} {'x plain':>8s} {'ceiling steps/s':>16s} {'share':>6s}")
    for name, (seconds, steps) in rows.items():
        line = f"{name:15s} {seconds:8.2f} {steps / seconds:10,.0f} {steps / seconds / plain_rate:8.1f}"
        if "seed" in name:
            ceiling = ceilings[int(name.split()[0])]
            line += f" {ceiling:16,.0f} {steps / seconds / ceiling:6.0%}"
        print(line)

    print("\nwhere the time goes")
    for count in counts:
        print(f"{count:2d} seeds: " + ", ".join(f"{name} {part:.0%}" for name, part in split_of_time(count).items()))

    for name, part in weights_shares(repeats).items():
        print(f"weights of a gradient step, {name}: {part:.1%}")

    print("\nhow the time grows (exponent; 1 is proportional, 0 is free)")
    print(f"with seeds, 1 to 32:          {exponent(counts, [rows[name][0] for name in list(rows)[2:]]):.2f}")
    for title, name, sizes in [
        ("with environments, 8 to 128: ", "number_of_environments", (8, 32, 128)),
        ("with the budget, 2k to 32k:  ", "max_timesteps", (2_000, 8_000, 32_000)),
    ]:
        timed = measure(repeats, **{str(size): seeds_run(4, epochs=10, **{name: size}) for size in sizes})
        print(f"{title} {exponent(sizes, [seconds for seconds, _ in timed.values()]):.2f}")
    print(f"\npeak memory: {memory:.0f} MiB with 32 seeds, {memory_before:.0f} MiB before")


if __name__ == "__main__":
    main()
