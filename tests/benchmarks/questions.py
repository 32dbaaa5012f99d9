"""What lesson 4 and the map quote and would take a lesson too long to run, or too much room.

python tests/benchmarks/questions.py steps    # 41 gradient steps on one batch and on fresh ones, 64 seeds
python tests/benchmarks/questions.py fall     # a reward of -1 at the fall and no other, 32 seeds
python tests/benchmarks/questions.py divisor  # the mean over the steps of a batch, of so many episodes or steps; exact
python tests/benchmarks/questions.py within   # the mean within one episode, taken off in lesson 4's world; exact
python tests/benchmarks/questions.py targets  # targets for V with a lambda of their own, in lesson 4's world; exact
python tests/benchmarks/questions.py detached # a critic that the policy's loss reaches, by the unit of V
python tests/benchmarks/questions.py discount # a choice that comes again: with and without gamma ** t; exact
python tests/benchmarks/questions.py narrow   # the noise of a Gaussian policy, by its width; integrals
python tests/benchmarks/questions.py bounds   # a Gaussian action behind a bound: its width, its density; integrals
"""

import argparse
import copy

import numpy as np
import torch

import vpg_helpers as vpg
from vpg_lab import companion, small_world
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


# ---- The map, "What learners ask beyond that" ------------------------------------------------------------------------


def take_off_within_episodes():
    """Print what reward-to-go minus its episode's mean, and over its spread, leave of the gradient."""
    policy = torch.tensor([[0.0, 0.5], [0.5, 0.0]], dtype=torch.float64).softmax(-1).numpy()
    trajectories, chances = small_world.list_trajectories()

    def mean_gradient(weigh):
        gradient = np.zeros((2, 2))
        for trajectory, chance in zip(trajectories, chances, strict=True):
            taken = np.prod([policy[state, action] for state, action, _ in trajectory])
            weights = weigh(np.arange(len(trajectory), 0.0, -1))
            for (state, action, _), weight in zip(trajectory, weights, strict=True):
                gradient[state] += chance * taken * weight * (np.eye(2)[action] - policy[state])
        return gradient

    exact = mean_gradient(lambda to_go: to_go)
    for name, weigh in {
        "minus the episode's mean": lambda to_go: to_go - to_go.mean(),
        "over its spread, too": lambda to_go: (to_go - to_go.mean()) / (to_go.std() + 1e-8),
    }.items():
        mean = mean_gradient(weigh)
        length, cosine = np.linalg.norm(mean), (mean * exact).sum()
        print(f"{name}: length {length / np.linalg.norm(exact):.3f}", end=", ")
        print(f"cosine {cosine / length / np.linalg.norm(exact):.3f}")


def compare_targets():
    """Print mean and variance of the first step's target, advantage + V, upright at the start, by V and lambda."""
    policy = torch.tensor([[0.0, 0.5], [0.5, 0.0]], dtype=torch.float64).softmax(-1).numpy()
    true = np.zeros((5, 3))
    for time in (3, 2, 1, 0):
        true[time, :2] = (policy * (1 + small_world.DYNAMICS @ true[time + 1])).sum(axis=1)
    paths, chances = small_world.list_trajectories()
    upright = [number for number, path in enumerate(paths) if path[0][0] == 0]
    taken = [np.prod([policy[state, action] for state, action, _ in paths[number]]) for number in upright]
    shares = chances[upright] * taken / (chances[upright] @ taken)
    for name, value in (("true V", true), ("half of V", true / 2)):
        for lam in (1, 0.97, 0.5, 0):
            targets = []
            for number in upright:
                values = np.array([value[time, state] for time, (state, _, _) in enumerate(paths[number])])
                targets.append(companion.gae(np.ones(len(values)), np.append(values, 0), 1.0, lam)[0] + values[0])
            mean = shares @ targets
            print(f"{name}, lambda {lam}: mean {mean:.2f}, variance {shares @ (targets - mean) ** 2:.2f}")


def leave_attached(seed=0):
    """Print where V settles on one batch when nobody detaches it from the policy's loss."""
    torch.manual_seed(seed)
    agent, poles = vpg.create_model(4, 2), vpg.make_cartpoles(32)
    (episodes,) = vpg.collect_episodes(poles, [agent], [np.random.default_rng(seed)], max_timesteps=500)
    observations, targets = torch.as_tensor(episodes.observations), torch.as_tensor(vpg.rewards_to_go(episodes)).float()
    with torch.no_grad():
        noted = vpg.get_policy(agent, observations).log_prob(torch.as_tensor(episodes.actions))
    for unit in (1, 50):
        critic = vpg.create_model(4, 1)
        optimizer = torch.optim.Adam(critic.parameters(), 4e-2)
        for _ in range(1_000):
            values = critic(observations)[:, 0]
            loss = -(noted * (targets - unit * values)).mean() + ((values - targets / unit) ** 2).mean()
            companion.descend(optimizer, loss)
        print(f"V in units of {unit:2}: {unit * values.mean():4.0f}, mean target {targets.mean():.0f}", end="; ")
        # The slope of both losses by V is 0 where |log p| = 2 (V - target) / unit².
        print(f"by hand {targets.mean() - unit**2 * noted.mean() / 2:.0f}")


def count_choices(gamma=0.9):
    """Print the slope of a world's value, and what a cut path estimates on average, by its last value.

    In A, to stay pays 1; to go, with probability 1/2, pays nothing and leads to B, which pays 1.2 for ever.
    """
    value_b = 1.2 / (1 - gamma)

    def value_a(logit):  # V(A) = (1 - go) * (1 + gamma * V(A)) + go * gamma * V(B), solved for V(A)
        go = 1 / (1 + np.exp(-logit))
        return (1 - go + go * gamma * value_b) / (1 - (1 - go) * gamma)

    def estimate(steps, part, count):
        mean = 0.0
        for stays in range(steps + 1):
            goes = stays < steps  # or the clock cuts first, in A
            rewards = [1.0] * stays + [0.0] * goes + [1.2] * (steps - stays - 1)
            log_gradients = np.array([-0.5] * stays + [0.5] * goes)
            last_value = part * (value_b if goes else value_a(0.0))
            to_come = companion.discount_cumsum(np.array([*rewards, last_value]), gamma)[: len(log_gradients)]
            mean += 0.5 ** len(to_come) * (log_gradients @ (count ** np.arange(len(to_come)) * to_come))
        return mean

    print(f"true slope {(value_a(1e-5) - value_a(-1e-5)) / 2e-5:+.4f}")
    for name, count in (("gamma ** t", gamma), ("1", 1.0)):
        for steps in (3, 4, 5, 20):
            slopes = [f"{estimate(steps, part, count):+.4f}" for part in (0, 1, 0.5)]
            print(f"a choice counts {name}, cut at {steps:2}: last value 0, V, half of V:", *slopes)


def narrow_the_policy():
    """Print the variance of one estimate where an episode is one action with the return -(a - 2)², at a mean of 0."""
    grid = torch.linspace(-12, 12, 240_001, dtype=torch.float64)
    for std in (1.0, 0.3, 0.1, 0.03):
        density = torch.distributions.Normal(torch.zeros((), dtype=torch.float64), std).log_prob(grid).exp()
        variances = []
        for baseline in (0.0, -(4 + std**2)):
            estimate = (-((grid - 2) ** 2) - baseline) * grid / std**2
            mean = torch.trapezoid(density * estimate, grid)
            variances.append(torch.trapezoid(density * (estimate - mean) ** 2, grid).item())
        # Luck of the return with a variance of 1 adds the mean square of the score, 1 / std².
        print(f"std {std:4}: mean {mean:.3f}, variance {variances[0]:.0f}, with the mean return as a baseline", end=" ")
        print(f"{variances[1]:.0f}, and with luck {variances[1] + 1 / std**2:.0f}")


def put_behind_a_bound():
    """Print the slope of the mean action by log sigma, clipped to ±1; areas and entropies of tanh u."""
    grid = torch.linspace(-40, 40, 800_001, dtype=torch.float64)

    def density(mean, std):
        return torch.distributions.Normal(torch.tensor(mean, dtype=torch.float64), std).log_prob(grid).exp()

    for mean in (-1.5, -0.5, 0.0, 0.5):
        score = {std: ((grid - mean) / std) ** 2 - 1 for std in (1.0, 3.0, 9.0)}
        slopes = [torch.trapezoid(density(mean, std) * grid.clamp(-1, 1) * score[std], grid).item() for std in score]
        print(f"mean {mean:4}: slope by log sigma at 1, 3 and 9", *(f"{round(slope, 3) + 0:+.3f}" for slope in slopes))
    drawn, slope = density(0.5, 1.0), 1 - grid.tanh() ** 2
    areas = torch.trapezoid(drawn * slope, grid), torch.trapezoid(drawn, grid)  # d tanh u = slope * du
    print("area over tanh u of u's density {:.3f}, of that over the Jacobian {:.3f}".format(*areas))
    entropy = -torch.trapezoid(torch.xlogy(drawn, drawn), grid)
    # log(1 - tanh² u), which underflows far out
    logarithm = 2 * (np.log(2) - grid - torch.nn.functional.softplus(-2 * grid))
    print(f"entropy of u {entropy:.3f}, of tanh u {entropy + torch.trapezoid(drawn * logarithm, grid):.3f}")


def main():
    """Read what to measure, and measure it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    measurements = {
        "steps": take_many_steps,
        "fall": reward_the_fall,
        "divisor": divide_by_luck,
        "within": take_off_within_episodes,
        "targets": compare_targets,
        "detached": leave_attached,
        "discount": count_choices,
        "narrow": narrow_the_policy,
        "bounds": put_behind_a_bound,
    }
    parser.add_argument("what", choices=measurements)
    measurements[parser.parse_args().what]()


if __name__ == "__main__":
    main()
