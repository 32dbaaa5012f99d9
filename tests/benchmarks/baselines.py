"""What lesson 7 would take too long to run: baselines on CartPole with 200 steps, 32 seeds that no choice was made on.

python tests/benchmarks/baselines.py rates        # the mean taken off or not, at two learning rates
python tests/benchmarks/baselines.py collapse     # 160 epochs: who reaches 195, and later falls below 150
python tests/benchmarks/baselines.py normalize    # minus the mean and over the spread, of a batch and of an episode
python tests/benchmarks/baselines.py noise        # the gradient's noise of 16 agents, with a mean and with a network

--first-seed gives other seeds. Shares have Wilson's 95 % interval. What was expected of a row stands beside it, and
was written before these seeds were run.
"""

import argparse

import numpy as np
import torch
from torch import nn

import vpg_helpers as vpg
from vpg_lab import companion
from vpg_lab.intervals import share_interval


def minus_mean(episodes):
    """Lesson 7's recipe: the episode's return minus the mean return of the batch."""
    return np.repeat(episodes.returns - episodes.returns.mean(), episodes.lengths)


def to_go_minus_mean(episodes):
    """Reward-to-go minus its mean over the batch's steps."""
    weights = vpg.rewards_to_go(episodes)
    return weights - weights.mean()


def normalized(episodes):
    """Reward-to-go minus its mean over the batch's steps, over their standard deviation."""
    weights = to_go_minus_mean(episodes)
    return weights / (weights.std() + 1e-8)


def count_down(rewards):
    """Rewards-to-go of one episode whose rewards are all 1."""
    return np.arange(len(rewards), 0.0, -1)


within_an_episode = vpg.per_episode(lambda rewards: count_down(rewards) - count_down(rewards).mean())
over_its_spread = vpg.per_episode(
    lambda rewards: (count_down(rewards) - count_down(rewards).mean()) / (count_down(rewards).std() + 1e-8)
)

RATES = [  # recipe, learning rate, expected seeds of 32 whose last five of forty epochs average 180
    ("whole return", vpg.whole_return, 1e-2, "fewer than ten"),
    ("whole return - mean", minus_mean, 1e-2, "about half"),
    ("whole return", vpg.whole_return, 2e-2, "about two thirds"),
    ("whole return - mean", minus_mean, 2e-2, "28 or more"),
    ("reward-to-go", vpg.rewards_to_go, 2e-2, "28 or more"),
    ("reward-to-go - mean", to_go_minus_mean, 1e-2, "as many as without its mean"),  # by normalize: 24
    ("reward-to-go - mean", to_go_minus_mean, 2e-2, "28 or more"),
]
COLLAPSE = [  # recipe, learning rate, expected seeds of 32 that reach 195 and later fall below 150
    ("whole return", vpg.whole_return, 1e-2, "a few"),
    ("whole return", vpg.whole_return, 2e-2, "a third"),
    ("reward-to-go", vpg.rewards_to_go, 2e-2, "a third"),
    ("reward-to-go - mean", to_go_minus_mean, 2e-2, "one or two"),
    ("whole return - mean", minus_mean, 2e-2, "none"),
]
NORMALIZE = [  # recipe, learning rate, expected seeds of 32 whose last five of forty epochs average 180
    ("reward-to-go", vpg.rewards_to_go, 1e-2, "two thirds"),
    ("over the batch", normalized, 1e-2, "half"),
    ("within an episode", within_an_episode, 1e-2, "half"),
    ("and over its spread", over_its_spread, 1e-2, "half"),
    # If dividing by the spread only makes steps shorter as returns grow, twice the rate makes up for it.
    ("over the batch", normalized, 2e-2, "28 or more"),
    # A referee's control, and his results on the same seeds: 30 and 31.
    ("within an episode", within_an_episode, 2e-2, "30"),
    ("and over its spread", over_its_spread, 2e-2, "31"),
]


def describe_share(successes, trials):
    """Write a count with its interval."""
    low, high = share_interval(successes, trials)
    return f"{successes:2d} of {trials} ({low:.0%} to {high:.0%})"


def train_rows(rows, seeds, epochs):
    """Yield name, learning rate, expectation and mean returns, (seeds, epochs), of every row."""
    for name, weigh, learning_rate, expected in rows:
        history = vpg.train_seeds(seeds, epochs, learning_rate=learning_rate, number_of_environments=25, weigh=weigh)
        yield f"{name:20} {learning_rate:g}", expected, history.mean_returns


def compare_ends(rows, seeds):
    """Print how many seeds end at 180 or more."""
    for name, expected, returns in train_rows(rows, seeds, 40):
        ends = returns[:, -5:].mean(axis=1)
        share = describe_share(int((ends >= 180).sum()), len(ends))
        print(f"{name}: {share} at 180, worst {ends.min():.0f}, median {np.median(ends):.0f}; expected {expected}")


def compare_collapse(seeds):
    """Print how many seeds reach 195 and later fall below 150."""
    for name, expected, returns in train_rows(COLLAPSE, seeds, 160):
        reached = np.maximum.accumulate(returns, axis=1) >= 195
        fell = (reached & (returns < 150)).any(axis=1)
        print(
            f"{name}: {reached.any(axis=1).sum():2d} reach 195, {describe_share(int(fell.sum()), len(seeds))} fall "
            f"below 150 later, mean of the last five epochs {returns[:, -5:].mean():.0f}; expected {expected}"
        )


def compare_noise(seeds):
    """Print the gradient's noise of agents after 15 epochs, as shares of that of the whole return.

    Each plays one batch to fit its network, 80 gradient steps in units of 50, and 60 of 8 episodes to be measured.
    """
    agents = vpg.train_seeds(seeds, 15).models
    shares = []
    for agent in agents:
        poles = vpg.make_cartpoles(64)
        (batch,) = vpg.collect_episodes(poles, [agent], [np.random.default_rng(1)])
        torch.manual_seed(0)
        value_model = vpg.create_model(4, 1)
        optimizer = torch.optim.Adam(value_model.parameters(), lr=1e-2, foreach=False)
        observations, targets = map(torch.as_tensor, (batch.observations, vpg.rewards_to_go(batch) / 50))
        for _ in range(80):
            companion.descend(optimizer, nn.functional.mse_loss(value_model(observations)[:, 0], targets.float()))
        shares.append(noise_shares(agent, batch, value_model))
        print(" ".join(f"{name} {share:.2f}" for name, share in shares[-1].items()), flush=True)
    of = {name: np.array([each[name] for each in shares]) for name in shares[0]}
    for name, share in of.items():
        print(f"{name:13} mean share {share.mean():.2f}, from {share.min():.2f} to {share.max():.2f}")
    number, network = ((of[f"to-go - {what}"] < of["to-go"]).sum() for what in ("number", "network"))
    print(f"less noise than reward-to-go: the number for {number}, the network for {network} of {len(seeds)} agents")
    print(f"the network less than the number: for {(of['to-go - network'] < of['to-go - number']).sum()}")
    print("expected: the number for all, the network for most and not for all")
    print("expected of whole - number, before it was run: less than half of the whole return's noise, for all")


def noise_shares(agent, batch, value_model, batches=60):
    """Return the noise of five recipes, as shares of that of the whole return.

    All baselines come from another batch: the mean of the same few episodes would shorten the gradient, too.
    """

    def minus_network(episodes):
        with torch.no_grad():
            guesses = 50.0 * value_model(torch.as_tensor(episodes.observations)).squeeze(-1).numpy()
        return vpg.rewards_to_go(episodes) - guesses

    recipes = {
        "whole": vpg.whole_return,
        "whole - number": lambda episodes: vpg.whole_return(episodes) - batch.returns.mean(),
        "to-go": vpg.rewards_to_go,
        "to-go - number": lambda episodes: vpg.rewards_to_go(episodes) - vpg.rewards_to_go(batch).mean(),
        "to-go - network": minus_network,
    }
    generators = [np.random.default_rng((7, number)) for number in range(batches)]
    played = vpg.collect_episodes(vpg.make_cartpoles(8 * batches), [agent] * batches, generators, 200)
    frozen, noise = torch.optim.SGD(agent.parameters(), lr=0.0), {}
    for name, weigh in recipes.items():
        gradients = []
        for small in played:
            vpg.take_gradient_step(agent, frozen, small, weigh)
            gradients.append(torch.cat([parameter.grad.flatten() for parameter in agent.parameters()]))
        noise[name] = torch.stack(gradients).var(dim=0).sum().item()
    return {name: each / noise["whole"] for name, each in noise.items()}


def main():
    """Run what is asked for on 32 seeds (noise: 16)."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("question", choices=["rates", "collapse", "normalize", "noise"])
    parser.add_argument("--first-seed", type=int, default=6000)
    arguments = parser.parse_args()
    seeds = range(arguments.first_seed, arguments.first_seed + 32)
    jobs = {
        "rates": lambda: compare_ends(RATES, seeds),
        "collapse": lambda: compare_collapse(seeds),
        "normalize": lambda: compare_ends(NORMALIZE, seeds),
        "noise": lambda: compare_noise(seeds[:16]),
    }
    jobs[arguments.question]()


if __name__ == "__main__":
    main()
