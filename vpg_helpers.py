"""The simplest policy gradient, REINFORCE, on CartPole: the lessons' six functions, then many poles and many seeds.

What Spinning Up calls Vanilla Policy Gradient has a learned value function on top: vpg_lab/companion.py.
`python vpg_helpers.py` trains one agent and prints a line an epoch.
"""

import argparse
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor, nn
from torch.distributions import Categorical

from vpg_lab.poles import Episodes, collect_episodes, make_cartpoles
from vpg_lab.refusals import is_whole, refuse_bad_counts, without_validation

# For the whole process: ten epochs of 32 seeds took 2 s with one thread, 33 s with two on two cores, one of them busy.
torch.set_num_threads(1)

# ---- 1. The six functions, as lessons 1 to 5 build them; a first line that refuses bad input is all they have on top


def create_model(number_observation_features: int, number_actions: int, hidden_units: int = 32) -> nn.Module:
    """Build the network that turns observations into logits, one logit per action.

    Observations have shape (..., number_observation_features), logits (..., number_actions).

    Raises ValueError for sizes that are not whole numbers of 1 or more.
    """
    refuse_bad_counts(
        number_observation_features=number_observation_features,
        number_actions=number_actions,
        hidden_units=hidden_units,
    )
    return nn.Sequential(
        nn.Linear(number_observation_features, hidden_units),
        nn.ReLU(),
        nn.Linear(hidden_units, number_actions),
    )


def get_policy(model: nn.Module, observation: Tensor | np.ndarray) -> Categorical:
    """Return the distribution over actions that the model gives for an observation.

    One observation has shape (features,); a batch, (..., features), gives a batch of distributions.

    Raises ValueError where the observation has another shape or type than the model reads, or holds nan.
    """
    _refuse_bad_observation(model, observation)
    logits = model(torch.as_tensor(observation))
    return Categorical(logits=logits)


def get_action(policy: Categorical) -> tuple[np.ndarray, Tensor]:
    """Sample an action; return it in the form env.step takes, with its log-probability.

    Both have the policy's batch shape, () for one observation. The log-probability carries the
    gradient.

    Raises TypeError where the policy is no Categorical.
    """
    _refuse_bad_policy(policy)
    action = policy.sample()
    return action.numpy(), policy.log_prob(action)


def calculate_loss(log_probabilities: Tensor, weights: Tensor) -> Tensor:
    """Return the pseudo-loss, a scalar: minus the mean of log-probability times weight.

    Both have shape (steps,), and come from episodes of the current policy. The loss's gradient
    points against an estimate of the policy gradient; its value measures nothing.

    Raises TypeError for what is no tensor; ValueError for other shapes, no gradient, or weights that are no data.
    """
    _refuse_bad_loss_inputs(log_probabilities, weights)
    return -(log_probabilities * weights).mean()


def train_one_epoch(
    env: gym.Env, model: nn.Module, optimizer: torch.optim.Optimizer, max_timesteps: int = 5_000
) -> float:
    """Play whole episodes to a budget of steps, take one gradient step, return the mean return.

    Raises ValueError for a budget below 1, or an environment without flat observations and counted actions.
    """
    _refuse_bad_epoch(env, max_timesteps)
    observations, actions, weights, episode_returns = [], [], [], []
    while len(weights) < max_timesteps:
        observation, _ = env.reset()
        rewards, done = [], False
        while not done:
            with torch.no_grad():
                action, _ = get_action(get_policy(model, observation))
            observations.append(observation)
            actions.append(action)
            observation, reward, terminated, truncated, _ = env.step(action)
            rewards.append(reward)
            done = terminated or truncated
        episode_returns.append(sum(rewards))
        weights += [sum(rewards)] * len(rewards)
    policy = get_policy(model, np.stack(observations))
    log_probabilities = policy.log_prob(torch.as_tensor(np.stack(actions)))
    loss = calculate_loss(log_probabilities, torch.tensor(weights, dtype=torch.float32))
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return float(np.mean(episode_returns))


def train(
    epochs: int = 40,
    max_timesteps: int = 5_000,
    learning_rate: float = 1e-2,
    seed: int = 0,
    after_epoch: Callable[[nn.Module, list[float]], None] | None = None,
) -> tuple[nn.Module, list[float]]:
    """Train a new model on CartPole with 200 steps; return it with the mean return of every epoch.

    The seed decides everything. After every epoch, after_epoch(model, mean_returns) is called, if
    given.

    Raises ValueError for epochs or a budget below 1, a learning rate that is not above 0, and a seed below 0.
    """
    _refuse_bad_run(epochs, max_timesteps, learning_rate, [seed])
    env = gym.make("CartPole-v1", max_episode_steps=200)
    env.reset(seed=seed)
    torch.manual_seed(seed)
    model = create_model(env.observation_space.shape[0], env.action_space.n)
    optimizer = torch.optim.Adam(model.parameters(), lr=learning_rate)
    mean_returns = []
    for _ in range(epochs):
        mean_returns.append(train_one_epoch(env, model, optimizer, max_timesteps))
        if after_epoch:
            after_epoch(model, mean_returns)
    return model, mean_returns


def _refuse_bad_observation(model, observation):
    # It runs at every step of an environment, so nothing is worded before it is needed.
    # A model of another build than create_model's knows by itself what it reads.
    first = model[0] if isinstance(model, nn.Sequential) else model
    features = getattr(first, "in_features", None)
    shape = tuple(np.shape(observation))
    if features is not None and shape[-1:] != (features,):
        raise ValueError(f"the observation has shape {shape}; the model reads {features} features: (..., {features})")
    dtype, parameters = torch.as_tensor(observation).dtype, next(model.parameters()).dtype
    if dtype != parameters:
        raise ValueError(f"the observation is {dtype}, the model's parameters {parameters}; convert the observation")


def _refuse_bad_policy(policy):
    if not isinstance(policy, Categorical):
        raise TypeError(f"the policy is a {type(policy).__name__}; give the Categorical that get_policy returns")


def _refuse_bad_loss_inputs(log_probabilities, weights):
    for name, value in (("log_probabilities", log_probabilities), ("weights", weights)):
        if not isinstance(value, Tensor):
            raise TypeError(f"{name} is a {type(value).__name__}; give a tensor")
    if log_probabilities.shape != weights.shape or weights.numel() == 0:
        raise ValueError(
            f"log_probabilities has shape {tuple(log_probabilities.shape)}, weights {tuple(weights.shape)}; "
            "give one weight per log-probability, at least one of each"
        )
    if not log_probabilities.requires_grad:
        raise ValueError(
            "log_probabilities carries no gradient; compute it from the model, outside torch.no_grad(), undetached"
        )
    if weights.requires_grad:
        raise ValueError("weights carries a gradient; returns are data: detach them first")
    if not torch.isfinite(weights).all():
        raise ValueError("weights holds nan or infinity; look at the rewards")


def _refuse_bad_epoch(env, max_timesteps):
    refuse_bad_counts(max_timesteps=max_timesteps)
    observations, actions = env.observation_space, env.action_space
    if not isinstance(observations, gym.spaces.Box) or len(observations.shape) != 1:
        raise ValueError(f"the environment's observations are {observations}; expected a Box, a flat vector")
    if not isinstance(actions, gym.spaces.Discrete) or actions.start != 0:
        raise ValueError(f"the environment's actions are {actions}; expected Discrete actions, counted from 0")


def _refuse_bad_run(epochs, max_timesteps, learning_rate, seeds):
    refuse_bad_counts(epochs=epochs, max_timesteps=max_timesteps)
    if not 0 < learning_rate < math.inf:
        raise ValueError(f"learning_rate is {learning_rate!r}; give a finite number above 0, such as 0.01")
    for seed in seeds:
        if not is_whole(seed, 0, 2**31):
            raise ValueError(f"the seed is {seed!r}; give a whole number from 0 to {2**31 - 1}")


# ---- 2. Recipes, and many seeds side by side; vpg_lab/poles.py plays their episodes ----------------------------------


class History(NamedTuple):
    """What train_seeds saw: a model per seed; mean_returns and timesteps (steps played), both (seeds, epochs)."""

    models: list[nn.Module]
    mean_returns: np.ndarray
    timesteps: np.ndarray


Recipe = Callable[[Episodes], np.ndarray]  # from episodes to one weight per step, (steps,), in the same order


def whole_return(episodes: Episodes) -> np.ndarray:
    """Weigh every step with the return of its episode."""
    return np.repeat(episodes.returns, episodes.lengths)


def rewards_to_go(episodes: Episodes) -> np.ndarray:
    """Weigh every step with its episode's rewards from that step on."""
    so_far = np.cumsum(episodes.rewards, dtype=float)
    at_the_end = so_far[np.cumsum(episodes.lengths) - 1]
    return np.repeat(at_the_end, episodes.lengths) - so_far + episodes.rewards


def per_episode(weigh_rewards: Callable[[np.ndarray], np.ndarray]) -> Recipe:
    """Make a recipe of a function from the rewards of one episode to the weights of its steps."""
    return lambda episodes: np.concatenate([*map(weigh_rewards, episodes.split(episodes.rewards.copy()))])


def take_gradient_step(
    model: nn.Module, optimizer: torch.optim.Optimizer, episodes: Episodes, weigh: Recipe = whole_return
):
    """Take the gradient step that train_one_epoch takes, on episodes that were collected before.

    Raises ValueError where weigh does not give one finite weight per step, or the model's logits are not finite.
    """
    weights = np.asarray(weigh(episodes), dtype=np.float32)
    _refuse_bad_weights(weights, episodes)
    with without_validation():
        log_probabilities = get_policy(model, episodes.observations).log_prob(torch.as_tensor(episodes.actions))
    loss = calculate_loss(log_probabilities, torch.as_tensor(weights))
    if not torch.isfinite(loss):  # so nan is found without validation, too
        raise ValueError(f"the pseudo-loss is {loss.item()}: the model gives nan or infinity; lower the learning rate")
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


def train_seeds(
    seeds: Sequence[int],
    epochs: int = 40,
    max_timesteps: int = 5_000,
    learning_rate: float = 1e-2,
    hidden_units: int = 32,
    number_of_environments: int = 32,
    weigh: Recipe | Sequence[Recipe] = whole_return,
    after_epoch: Callable[[list[nn.Module], np.ndarray], None] | None = None,
) -> History:
    """Train one model per seed on CartPole with 200 steps, all side by side.

    number_of_environments is per seed. weigh is one recipe for all seeds, or a list with one per seed.
    A seed's curve depends on that seed alone. After every epoch, after_epoch(models, mean_returns so far) is
    called, if given; mean_returns has shape (seeds, epochs so far).

    Raises ValueError for what train refuses, for no seeds, no environments, or another number of recipes than seeds.
    """
    _refuse_bad_run(epochs, max_timesteps, learning_rate, seeds)
    refuse_bad_counts(number_of_seeds=len(seeds), number_of_environments=number_of_environments)
    weighs = [weigh] * len(seeds) if callable(weigh) else weigh
    if len(weighs) != len(seeds):
        raise ValueError(f"{len(weighs)} recipes for {len(seeds)} seeds; give one for all, or a list with one per seed")
    env = make_cartpoles(len(seeds) * number_of_environments)
    models = [_create_seeded_model(seed, hidden_units) for seed in seeds]
    # foreach=False: the same numbers in two thirds of the time, for so few parameters
    optimizers = [torch.optim.Adam(model.parameters(), lr=learning_rate, foreach=False) for model in models]
    mean_returns, timesteps = np.zeros((len(seeds), epochs)), np.zeros((len(seeds), epochs), int)
    for epoch in range(epochs):
        generators = [np.random.default_rng((seed, epoch)) for seed in seeds]
        batch = collect_episodes(env, models, generators, max_timesteps)
        for run, episodes in enumerate(batch):
            take_gradient_step(models[run], optimizers[run], episodes, weighs[run])
            mean_returns[run, epoch] = episodes.rewards.sum() / len(episodes.lengths)
            timesteps[run, epoch] = len(episodes.rewards)
        if after_epoch:
            after_epoch(models, mean_returns[:, : epoch + 1])
    return History(models, mean_returns, timesteps)


def _create_seeded_model(seed, hidden_units):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return create_model(4, 2, hidden_units)


def _refuse_bad_weights(weights, episodes):
    if weights.shape != episodes.rewards.shape or not np.isfinite(weights).all():
        raise ValueError(
            f"the recipe gave weights of shape {weights.shape}, {np.isfinite(weights).sum()} of them finite; "
            f"give one finite weight for each of {len(episodes.rewards)} steps"
        )


def main(arguments: Sequence[str] | None = None):
    """Train one agent with the plain loop and print a line an epoch."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--max-timesteps", type=int, default=5_000, help="steps an epoch, at least")
    parser.add_argument("--seed", type=int, default=0)
    settings, line = vars(parser.parse_args(arguments)), "epoch {:2d}   mean return {:6.2f}"
    train(**settings, after_epoch=lambda _, returns: print(line.format(len(returns), returns[-1]), flush=True))


if __name__ == "__main__":
    main()
