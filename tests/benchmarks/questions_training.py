"""What lessons 5 and 6 quote and would take too long to run: questions about training, each with seeds and intervals.

python tests/benchmarks/questions_training.py die             # sampled or argmax, at four stages of training
python tests/benchmarks/questions_training.py optimizers      # SGD and Adam, three learning rates each
python tests/benchmarks/questions_training.py models          # layers, units, tanh, scales of the observations
python tests/benchmarks/questions_training.py acrobot         # a second environment, four recipes
python tests/benchmarks/questions_training.py lake            # a third one, by the plain loop
python tests/benchmarks/questions_training.py mountain        # 512 random episodes
python tests/benchmarks/questions_training.py plain           # the plain loop, 80 epochs; many minutes
python tests/benchmarks/questions_training.py environments    # one by one, sync, async, vectorised

--first-seed gives other seeds. Intervals are 95 %: bootstrap over seeds for means, Wilson's for shares.
"""

import argparse
import copy
import functools
import time
from unittest.mock import patch

import gymnasium as gym
import numpy as np
import torch
from torch import nn

import vpg_helpers as vpg
from vpg_lab.intervals import share_interval

TYPICAL = [0.5, 0.5, 0.1, 0.5]  # sizes that position, velocity, angle and angular velocity come in


def mean_interval(values):
    """Return the bootstrap interval of a mean over seeds."""
    random = np.random.default_rng(0)
    return np.percentile(random.choice(values, (2_000, len(values))).mean(axis=1), [2.5, 97.5])


def describe(values):
    """Write a mean with its interval."""
    low, high = mean_interval(values)
    return f"{np.mean(values):.1f} ({low:.1f} to {high:.1f})"


def report(name, values, goal):
    """Print a mean over seeds, and how many of them reach the goal."""
    reached = int((values >= goal).sum())
    low, high = share_interval(reached, len(values))
    print(f"{name:24} {describe(values)}; {reached} of {len(values)} at {goal} ({low:.0%} to {high:.0%})", flush=True)


# ---- Sampled or argmax --------------------------------------------------------------------------


def without_the_die(model):
    """Return a copy whose logits are so far apart that sampling takes the likelier action."""
    sure = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in sure[-1].parameters():
            parameter.mul_(1e6)
    return sure


def fresh_means(models, episodes=64):
    """Return the mean return of each model's fresh episodes; every model has the same starts."""
    poles = vpg.make_cartpoles(episodes * len(models))
    generators = [np.random.default_rng(10_000) for _ in models]
    return np.array([batch.lengths.mean() for batch in vpg.collect_episodes(poles, models, generators, 1)])


def compare_die(seeds):
    """Print sampled and argmax at epochs 0, 20, 40 and 80."""
    stages = {0: [vpg._create_seeded_model(seed, 32) for seed in seeds]}

    def keep(models, mean_returns):
        if mean_returns.shape[1] in (20, 40, 80):
            stages[mean_returns.shape[1]] = copy.deepcopy(models)

    vpg.train_seeds(seeds, epochs=80, after_epoch=keep)
    for epoch, models in stages.items():
        sampled, argmax = fresh_means(models), fresh_means([*map(without_the_die, models)])
        better, down = int((argmax > sampled).sum()), int((argmax < 11).sum())
        print(f"epoch {epoch}: sampled {describe(sampled)}, argmax {describe(argmax)}", end="; ")
        print(f"difference {describe(argmax - sampled)}; argmax better in {better}, below 11 in {down} of {len(seeds)}")
    poles = vpg.make_cartpoles(1_000)
    for push in (-1e6, 1e6):
        model = nn.Linear(4, 2)
        model.weight.data.zero_()
        model.bias.data = torch.tensor([0.0, push])
        (episodes,) = vpg.collect_episodes(poles, [model], [np.random.default_rng(0)], 1)
        lengths = episodes.lengths
        print(f"one push for ever: {lengths.mean():.2f} steps, {lengths.min()} to {lengths.max()}", flush=True)


# ---- Optimizers and models ----------------------------------------------------------------------


def last_five(seeds, **settings):
    """Return the mean of the last five of 40 epochs, (seeds,)."""
    return vpg.train_seeds(seeds, **settings).mean_returns[:, -5:].mean(axis=1)


def compare_optimizers(seeds):
    """Print SGD and Adam at learning rates that suit them; whole return, as in lesson 5."""
    for name, rates in {"SGD": (0.01, 0.03, 0.1, 0.3), "Adam": (0.001, 0.01, 0.03, 0.1)}.items():
        with patch.object(torch.optim, "Adam", getattr(torch.optim, name)):
            for rate in rates:
                try:
                    report(f"{name} {rate:g}", last_five(seeds, learning_rate=rate), 180)
                except ValueError as error:
                    print(f"{name} {rate:g}: {error}", flush=True)


def make_layers(features, actions, _, hidden=(32,), activation=nn.ReLU, scale=None):
    """Build a network of any depth; scale, (features,), divides the observations first."""
    sizes, layers = [features, *hidden], []
    if scale is not None:
        divide = nn.Linear(features, features, bias=False)
        divide.weight.data = torch.diag(1 / torch.tensor(scale))
        layers.append(divide.requires_grad_(False))
    for inputs, outputs in zip(sizes, sizes[1:], strict=False):
        layers += [nn.Linear(inputs, outputs), activation()]
    return nn.Sequential(*layers, nn.Linear(sizes[-1], actions))


MODELS = {
    "no hidden layer": {"hidden": ()},
    "8 units": {"hidden": (8,)},
    "32 units": {},
    "128 units": {"hidden": (128,)},
    "32 and 32 units": {"hidden": (32, 32)},
    "128 and 128 units": {"hidden": (128, 128)},
    "32 units, tanh": {"activation": nn.Tanh},
    "divided by typical size": {"scale": TYPICAL},
    "times 100": {"scale": [0.01] * 4},
}


def compare_models(seeds):
    """Print networks, and observations on other scales, with reward-to-go."""
    for name, changes in MODELS.items():
        with patch.object(vpg, "create_model", functools.partial(make_layers, **changes)):
            report(name, last_five(seeds, weigh=vpg.rewards_to_go), 180)


# ---- Other environments -------------------------------------------------------------------------


def centered(recipe):
    """Return the recipe with the mean of the batch's weights taken off."""

    def weigh(episodes):
        weights = recipe(episodes)
        return weights - weights.mean()

    return weigh


RECIPES = {
    "whole return": vpg.whole_return,
    "reward-to-go": vpg.rewards_to_go,
    "whole return, centered": centered(vpg.whole_return),
    "reward-to-go, centered": centered(vpg.rewards_to_go),
}


def swing(env, states, actions):
    """Step many Acrobots, (4, ...), by the equations of Gymnasium's; return what follows, and whether the tip is up."""

    def slope(states):
        return np.stack(env._dsdt([*states, torque])[:4])

    torque = np.asarray(env.AVAIL_TORQUE, float)[actions]
    first = slope(states)
    second = slope(states + env.dt / 2 * first)
    third = slope(states + env.dt / 2 * second)
    states = states + env.dt / 6 * (first + 2 * second + 2 * third + slope(states + env.dt * third))
    states[:2] = (states[:2] + np.pi) % (2 * np.pi) - np.pi
    for row, fastest in ((2, env.MAX_VEL_1), (3, env.MAX_VEL_2)):
        states[row] = states[row].clip(-fastest, fastest)
    return states, -np.cos(states[0]) - np.cos(states[0] + states[1]) > 1


def check_swing(steps=300):
    """Raise AssertionError where Gymnasium's own Acrobot swings otherwise."""
    env, random = gym.make("Acrobot-v1").unwrapped, np.random.default_rng(0)
    env.reset(seed=0)
    for action in random.integers(3, size=steps):
        states, up = swing(env, np.array(env.state, float), action)
        *_, terminated, _, _ = env.step(action)
        assert np.allclose(states, env.state, atol=1e-9) and up == terminated


def play_acrobots(models, generators, budget=5_000, each=10, limit=500):
    """Play whole episodes of every model, side by side; every episode that was started is finished and counted."""
    env = gym.make("Acrobot-v1").unwrapped
    weight, bias, last_weight, last_bias = (
        np.stack([parameter.detach().numpy() for parameter in parameters])
        for parameters in zip(*(model.parameters() for model in models), strict=True)
    )

    def draw(function, *size):
        return np.stack([function(generator, size) for generator in generators])

    def start():
        return draw(lambda generator, size: generator.uniform(-0.1, 0.1, size), 4, each).swapaxes(0, 1)

    states, age, steps, record = start(), np.zeros((len(models), each), int), np.zeros(len(models), int), []
    playing = np.ones_like(age, bool)
    while playing.any():
        angles = states[0], states[1]
        seen = np.stack([*(f(angle) for angle in angles for f in (np.cos, np.sin)), *states[2:]], axis=-1)
        seen = seen.astype(np.float32)
        hidden = np.maximum(seen @ weight.swapaxes(1, 2) + bias[:, None], 0)
        logits = hidden @ last_weight.swapaxes(1, 2) + last_bias[:, None]
        actions = (logits + draw(lambda generator, size: generator.gumbel(size=size), each, 3)).argmax(axis=-1)
        states, up = swing(env, states, actions)
        age, steps = age + 1, steps + playing.sum(axis=1)
        ended = up | (age == limit)
        record.append((seen, actions, np.where(up, 0, -1), playing, ended, up))
        playing = playing & (~ended | (steps < budget)[:, None])
        states, age = np.where(ended, start(), states), np.where(ended, 0, age)
    # Model first, then pole, then time: the steps of an episode lie side by side.
    columns = [np.stack(column, axis=2) for column in zip(*record, strict=True)]
    for seen, actions, rewards, playing, ended, up in zip(*columns, strict=True):
        lengths = np.diff(np.flatnonzero(ended[playing]), prepend=-1)
        rewards = rewards[playing].astype(np.float32)
        yield vpg.Episodes(seen[playing], actions[playing], rewards, lengths, up[playing & ended], None)


def learn_acrobot(seeds, recipe, epochs=20):
    """Return the mean return of every epoch on Acrobot with lesson 5's settings, (seeds, epochs)."""
    models, curves = [], []
    for seed in seeds:
        torch.manual_seed(seed)
        models.append(vpg.create_model(6, 3))
    optimizers = [torch.optim.Adam(model.parameters(), lr=1e-2) for model in models]
    for epoch in range(epochs):
        batch = [*play_acrobots(models, [np.random.default_rng((seed, epoch)) for seed in seeds])]
        curves.append([episodes.returns.mean() for episodes in batch])
        for model, optimizer, episodes in zip(models, optimizers, batch, strict=True):
            vpg.take_gradient_step(model, optimizer, episodes, recipe)
    return np.transpose(curves)


def compare_acrobot(seeds):
    """Print the four recipes on Acrobot: Gymnasium calls -100 solved; random play nearly always gets -500."""
    check_swing()
    first = None
    for name, recipe in RECIPES.items():
        ends = learn_acrobot(seeds, recipe)[:, -5:].mean(axis=1)
        first = ends if first is None else first
        report(f"Acrobot, {name}", ends, -200)
        stuck = int((ends < -480).sum())
        print(f"    below -480: {stuck}; minus the first recipe, seed by seed: {describe(ends - first)}", flush=True)


def make_lake():
    """Make the frozen lake of lesson 6: its field comes as sixteen numbers, its action goes as an int."""
    lake = gym.make("FrozenLake-v1", is_slippery=False)
    lake = gym.wrappers.DtypeObservation(gym.wrappers.FlattenObservation(lake), np.float32)
    return gym.wrappers.TransformAction(lake, int, lake.action_space)


def learn_lake(seed, epochs=20):
    """Return the mean return of every epoch on the lake, by the plain loop and lesson 6's settings."""
    lake = make_lake()
    lake.reset(seed=seed)
    torch.manual_seed(seed)
    model = vpg.create_model(16, 4)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-2)
    return [vpg.train_one_epoch(lake, model, optimizer, max_timesteps=500) for _ in range(epochs)]


def compare_lake(seeds):
    """Print what share of episodes cross the lake, first and last."""
    curves = np.array([learn_lake(seed) for seed in seeds])
    print(f"lake, first epoch: {curves[:, 0].mean():.3f}")
    report("lake, last five", 100 * curves[:, -5:].mean(axis=1), 60)
    report("lake, last epoch", 100 * curves[:, -1], 80)


def count_mountain(seeds, episodes=16):
    """Print the returns of random play in MountainCar."""
    returns = []
    for seed in seeds:
        car = gym.make("MountainCar-v0")
        car.reset(seed=seed)
        car.action_space.seed(seed)
        for _ in range(episodes):
            car.reset()
            rewards, done = [], False
            while not done:
                _, reward, terminated, truncated, _ = car.step(car.action_space.sample())
                rewards.append(reward)
                done = terminated or truncated
            returns.append(sum(rewards))
    print(f"MountainCar: {len(returns)} random episodes return {min(returns):.0f} to {max(returns):.0f}")


# ---- Environments side by side ------------------------------------------------------------------


def steps_a_second(env, actions, steps):
    """Return how many environment steps a second of wall-clock time an environment makes with a given action."""
    env.reset(seed=0)
    start = time.perf_counter()
    for _ in range(steps):
        _, _, terminated, truncated, _ = env.step(actions)
        if actions.ndim == 0 and (terminated or truncated):
            env.reset()
    return steps * actions.size / (time.perf_counter() - start)


def compare_environments(_, repeats=5):
    """Print the speed of many CartPoles against one, in three forms, in turns; medians."""
    single, rates = [], {}
    for _ in range(repeats):
        single.append(steps_a_second(gym.make("CartPole-v1"), np.array(0), 5_000))
        for number in (2, 8, 32):
            for mode in ("sync", "async", "vector_entry_point"):
                env = gym.make_vec("CartPole-v1", number, mode)
                rates.setdefault((number, mode), []).append(steps_a_second(env, np.zeros(number, int), 500))
                env.close()
    print(f"one environment: {np.median(single):,.0f} steps a second")
    for (number, mode), values in rates.items():
        ratios = np.array(values) / single
        print(f"{number} poles, {mode}: {np.median(ratios):.2f} times ({ratios.min():.2f} to {ratios.max():.2f})")


def count_plain(seeds):
    """Print how many seeds of the plain loop reach 180, by their best epoch and by their last five."""
    curves = np.array([vpg.train(epochs=80, seed=seed)[1] for seed in seeds])
    for epochs in (40, 80):
        report(f"{epochs} epochs, best epoch", curves[:, :epochs].max(axis=1), 180)
        report(f"{epochs} epochs, last five", curves[:, epochs - 5 : epochs].mean(axis=1), 180)


MEASUREMENTS = {
    "die": (compare_die, 32),
    "optimizers": (compare_optimizers, 16),
    "models": (compare_models, 16),
    "acrobot": (compare_acrobot, 16),
    "lake": (compare_lake, 16),
    "mountain": (count_mountain, 32),
    "plain": (count_plain, 8),
    "environments": (compare_environments, 1),
}


def main():
    """Read what to measure, and measure it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=MEASUREMENTS)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--seeds", type=int, help="how many, in place of the number that the lessons quote")
    settings = parser.parse_args()
    measure, number = MEASUREMENTS[settings.what]
    first, number = settings.first_seed, settings.seeds or number
    measure(range(first, first + number))


if __name__ == "__main__":
    main()
