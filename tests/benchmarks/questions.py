"""What lesson 4 quotes and would take it too long to run, or too much room.

python tests/benchmarks/questions.py steps    # 41 gradient steps on one batch and on fresh ones, 64 seeds
python tests/benchmarks/questions.py fall     # a reward of -1 at the fall and no other, 32 seeds
python tests/benchmarks/questions.py divisor  # the mean over the steps of a batch, of so many episodes or steps; exact
"""

import argparse
import copy

import numpy as np
import torch

import vpg_helpers as vpg
from vpg_lab import small_world
from vpg_lab.intervals import share_interval

# What the lesson asserts was settled with seeds below 400; none of these had been run before.
STEPS_SEEDS, FALL_SEEDS = range(400, 464), range(500, 532)


def mean_with_interval(values: np.ndarray) -> str:
    """Return a mean and its 95 % interval from resampled means, as text."""
    random = np.random.default_rng(0)
    means = np.mean(random.choice(values, (10_000, len(values))), axis=1)
    low, high = np.percentile(means, [2.5, 97.5])
    return f"{np.mean(values):.1f} ({low:.1f} to {high:.1f})"


# ---- Lesson 4, "Many gradient steps on one batch?" -------------------------------------------------------------------


def minus_mean(episodes: vpg.Episodes) -> np.ndarray:
    """Weigh every step with the return of its episode, less the mean of these weights."""
    weights = vpg.whole_return(episodes)
    return weights - weights.mean()


def keep_training(agents, seeds, weigh, fresh):
    """Take 41 gradient steps; return mean returns, (11, seeds), of other episodes before every fourth of them."""
    env, agents, mean_returns = vpg.make_cartpoles(16 * len(seeds)), copy.deepcopy(agents), []
    optimizers = [torch.optim.Adam(agent.parameters(), lr=1e-2) for agent in agents]

    def play(generation):
        generators = [np.random.default_rng((seed, generation)) for seed in seeds]
        return vpg.collect_episodes(env, agents, generators, max_timesteps=2_500)

    for number in range(41):
        if number == 0 or fresh:
            batches = play(number)
        if number % 4 == 0:
            mean_returns.append([episodes.lengths.mean() for episodes in play(1_000)])
        for agent, optimizer, episodes in zip(agents, optimizers, batches, strict=True):
            vpg.take_gradient_step(agent, optimizer, episodes, weigh)
    return np.array(mean_returns)


def take_many_steps():
    """Compare one batch and fresh ones, weights as they are and without their mean; also in sets of eight seeds."""
    agents = vpg.train_seeds(STEPS_SEEDS, epochs=25).models
    for fresh in (False, True):
        for name, weigh in (("weights as they are", vpg.whole_return), ("mean off", minus_mean)):
            mean_returns = keep_training(agents, STEPS_SEEDS, weigh, fresh)
            first, last, lowest = mean_returns[0], mean_returns[-1], mean_returns.min(axis=0)
            collapsed = lowest < first / 2
            low, high = share_interval(collapsed.sum(), len(first))
            print(f"{'fresh batches' if fresh else 'one batch'}, {name}: {first.mean():.1f} -> {last.mean():.1f}")
            print(f"  gain {mean_with_interval(last - first)}, in sets of eight", end=" ")
            print((last - first).reshape(-1, 8).mean(axis=1).round().astype(int).tolist())
            print(f"  lowest / first {(lowest / first).min():.2f} to {(lowest / first).max():.2f}, in sets", end=" ")
            print((lowest.reshape(-1, 8).mean(axis=1) / first.reshape(-1, 8).mean(axis=1)).round(2).tolist())
            print(f"  lost more than half {collapsed.sum()} of {len(first)} ({low:.0%} to {high:.0%})", end=", ")
            print("in sets of eight", collapsed.reshape(-1, 8).sum(axis=1).tolist(), end=", ")
            print(f"at the end {(last < first / 2).sum()}", flush=True)


# ---- Lesson 4, "Mean over what?" -------------------------------------------------------------------------------------


def only_the_fall(discount: float) -> vpg.Recipe:
    """Weigh a step with the discounted rewards from it on, where the only reward is -1 at a fall."""

    def weigh(episodes):
        last = np.repeat(np.cumsum(episodes.lengths) - 1, episodes.lengths)
        return np.repeat(-1.0 * episodes.terminated, episodes.lengths) * discount ** (last - np.arange(len(last)))

    return weigh


def reward_the_fall():
    """Train with three kinds of reward; print the mean return, in steps, of the first epoch and the last five."""
    recipes = {
        "1 a step": vpg.whole_return,
        "-1 at the fall": only_the_fall(1.0),
        "-1 at the fall, discount 0.9": only_the_fall(0.9),
    }
    for name, weigh in recipes.items():
        mean_returns = vpg.train_seeds(FALL_SEEDS, weigh=weigh).mean_returns
        last = mean_returns[:, -5:].mean(axis=1)
        print(f"{name}: first epoch {mean_returns[:, 0].mean():.1f}, last five {mean_with_interval(last)}", end=", ")
        print(f"seeds {last.min():.1f} to {last.max():.1f}", flush=True)


# ---- Lesson 4, "A divisor that is luck as well" ----------------------------------------------------------------------


def divide_by_luck():
    """Print how much of ∇J/E[T] the mean over steps keeps, for so many episodes and for so many steps a batch."""
    policy = torch.tensor([[0.0, 0.5], [0.5, 0.0]], dtype=torch.float64).softmax(-1).numpy()
    trajectories, chances = small_world.list_trajectories()
    chance_of_length, gradient_of_length = np.zeros(5), np.zeros((5, 2, 2))
    for trajectory, chance in zip(trajectories, chances, strict=True):
        log_gradient = np.zeros((2, 2))
        for state, action, _ in trajectory:
            chance = chance * policy[state, action]
            log_gradient[state] += np.eye(2)[action] - policy[state]
        chance_of_length[len(trajectory)] += chance
        gradient_of_length[len(trajectory)] += chance * len(trajectory) * log_gradient
    exact, mean_length = gradient_of_length.sum(axis=0), chance_of_length @ np.arange(5)

    def print_share(batch, one_over_steps):
        # one_over_steps[length]: the mean of 1 / steps of the batch, summed over its episodes of that length
        expected = np.einsum("t, tsa -> sa", one_over_steps, gradient_of_length)
        print(f"{batch}: {abs((expected * exact).sum() / (exact**2).sum() * mean_length):.3f} of ∇J/E[T]")

    chance_of_others = np.ones(1)
    for number in range(1, 251):
        if number in (1, 2, 5, 10, 250):
            steps = np.arange(len(chance_of_others)) + np.arange(1, 5)[:, np.newaxis]
            print_share(f"{number} episodes", [0, *(number * (chance_of_others / steps).sum(axis=1))])
        chance_of_others = np.convolve(chance_of_others, chance_of_length)
    for budget in (3, 6, 30):
        begins = np.eye(1, budget + 4)[0]  # chance that an episode begins after so many steps
        for total in range(budget):
            begins[total + 1 : total + 5] += begins[total] * chance_of_length[1:]
        divided = 1 / np.maximum(np.arange(budget + 4), 1)  # mean of 1 / steps of the batch, so many steps into it
        for total in reversed(range(budget)):
            divided[total] = chance_of_length[1:] @ divided[total + 1 : total + 5]
        print_share(f"a budget of {budget} steps", [begins[:budget] @ divided[own : budget + own] for own in range(5)])


def main():
    """Read what to measure, and measure it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    measurements = {
        "steps": take_many_steps,
        "fall": reward_the_fall,
        "divisor": divide_by_luck,
    }
    parser.add_argument("what", choices=measurements)
    measurements[parser.parse_args().what]()


if __name__ == "__main__":
    main()
