"""The whole Vanilla Policy Gradient, on any vector environment with flat observations: what lessons 8 and 9 share.

play_on is the engine; lesson 8 has the functions behind it, word for word but for a first line that refuses bad input.
"""

import functools
import itertools
import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor, nn
from torch.distributions import Distribution

import vpg_helpers as vpg
from vpg_lab.refusals import is_whole, refuse_bad_counts, without_validation


def play_on(
    env: gym.vector.VectorEnv, policy: Callable[[np.ndarray], Distribution], steps: int, seed: int
) -> Iterator[tuple[vpg.Episodes, np.ndarray]]:
    """Play batch after batch, without end; an episode that a batch leaves unfinished goes on in the next one.

    Every environment takes this many steps a batch; those that only reset it are left out. policy maps observations
    (environments, features) to a distribution over as many actions. A batch is its paths, whole episodes or pieces
    of them, as Episodes; and for every environment, (environments,), the return of its first episode that ended in
    this batch, else of its latest before, else nan. seed decides the starts, torch.manual_seed the actions.

    Raises ValueError where env is no vector environment with flat observations, or does not use the step after an end
    to reset, as Gymnasium's NEXT_STEP does; for steps below 1 and a seed below 0; and, while it plays, where policy
    does not give one distribution per environment.
    """
    _refuse_bad_game(env, steps, seed)
    return _play_on(env, policy, steps, seed)


def _play_on(env, policy, steps, seed):
    observation = env.reset(seed=seed)[0].astype(np.float32)
    resetting, running, returns = np.zeros(env.num_envs, bool), np.zeros(env.num_envs), np.full(env.num_envs, np.nan)
    while True:
        record, reported = [], np.zeros(env.num_envs, bool)
        with torch.no_grad(), without_validation():
            for _ in range(steps):
                before, playing = observation, ~resetting
                distribution = policy(before)
                _refuse_bad_distribution(distribution, env.num_envs)
                action = distribution.sample().numpy()
                observation, reward, terminated, truncated, _ = env.step(action)
                observation = observation.astype(np.float32)
                running = playing * (running + reward)
                resetting = playing & (terminated | truncated)
                returns = np.where(resetting & ~reported, running, returns)
                reported |= resetting
                record.append((before, action, reward, playing, resetting, terminated, observation))
        # Environment first, then time: the steps of a path lie side by side.
        columns = zip(*record, strict=True)
        before, action, reward, playing, ended, terminated, after = (np.stack(each, axis=1) for each in columns)
        ended[:, -1] |= playing[:, -1]
        lengths, reward = np.diff(np.flatnonzero(ended[playing]), prepend=-1), reward[playing].astype(np.float32)
        yield vpg.Episodes(before[playing], action[playing], reward, lengths, terminated[ended], after[ended]), returns


class Settings(NamedTuple):
    """What train_vpg does, and what it can be asked to leave out."""

    epochs: int = 40
    steps: int = 32  # of every environment, per epoch
    gamma: float = 0.99
    lam: float = 0.97
    learning_rate: float = 2e-2  # of both models
    value_steps: int = 20  # gradient steps of the value model, per epoch
    value_unit: float = 30.0  # in which the value model counts
    normalize: bool = True  # advantages: minus their mean, over their standard deviation
    bootstrap: bool = True  # where a path was cut, its last value stands for what was to come
    seed: int = 0  # of the environment; torch.manual_seed decides the rest


WHOLE = Settings()


def discount_cumsum(values: np.ndarray, discount: float) -> np.ndarray:
    """Return for every step the discounted sum of the values from it on; both are (steps,).

    A value that is k steps away counts discount ** k times.

    Raises ValueError for another shape, nan or infinity, and a discount outside of 0 to 1.
    """
    _refuse_bad_sum(values, discount)
    sums, running = [], 0.0
    for value in values[::-1].tolist():
        running = value + discount * running
        sums.append(running)
    return np.array(sums[::-1])


def gae(rewards: np.ndarray, values: np.ndarray, gamma: float, lam: float) -> np.ndarray:
    """Return the advantages that GAE estimates for a path's steps, (steps,).

    rewards has shape (steps,), values (steps + 1,): the last one is of what follows the path.

    Raises ValueError for other shapes, and for what discount_cumsum refuses.
    """
    _refuse_bad_path(rewards, values, 1)
    errors = rewards + gamma * values[1:] - values[:-1]
    return discount_cumsum(errors, gamma * lam)


def finish_path(
    rewards: np.ndarray,
    values: np.ndarray,
    last_value: float,
    terminated: bool,
    gamma: float,
    lam: float,
) -> tuple[np.ndarray, np.ndarray]:
    """Return a path's advantages and the targets for its values, both (steps,).

    rewards and values have shape (steps,). last_value is the value of the last observation; it
    counts where the path was cut, and not where it terminated.

    Raises ValueError for other shapes, and for what gae and discount_cumsum refuse.
    """
    _refuse_bad_path(rewards, values, 0)
    to_come = 0.0 if terminated else last_value
    advantages = gae(rewards, np.append(values, to_come), gamma, lam)
    targets = discount_cumsum(np.append(rewards, to_come), gamma)[:-1]
    return advantages, targets


def finish_paths(episodes: vpg.Episodes, value_model: nn.Module, settings: Settings) -> tuple[Tensor, Tensor]:
    """Return advantages, and targets in value_unit, for all steps of a batch, (steps,) each."""
    with torch.no_grad():
        values, last_values = [
            settings.value_unit * value_model(torch.as_tensor(seen))[:, 0].numpy()
            for seen in (episodes.observations, episodes.last_observations)
        ]
    ended = episodes.terminated | (not settings.bootstrap)
    rewards, values = episodes.split(episodes.rewards), episodes.split(values)
    paths = zip(rewards, values, last_values, ended, strict=True)  # as finish_path takes them
    finished = [finish_path(*path, settings.gamma, settings.lam) for path in paths]
    advantages, targets = (np.concatenate(each) for each in zip(*finished, strict=True))
    if settings.normalize:
        advantages = (advantages - advantages.mean()) / (advantages.std() + 1e-8)
    return torch.tensor(advantages).float(), torch.tensor(targets / settings.value_unit).float()


def descend(optimizer: torch.optim.Optimizer, loss: Tensor):
    """Take one gradient step down a loss.

    Raises ValueError where the loss is nan or infinite.
    """
    _refuse_bad_loss(loss)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


def train_vpg(
    env: gym.vector.VectorEnv,
    model: nn.Module,
    value_model: nn.Module,
    settings: Settings = WHOLE,
    get_policy: Callable = vpg.get_policy,
) -> list[float]:
    """Train model and value_model in place; return the mean return of every epoch.

    Each is moved by an Adam optimizer of its own, with settings.learning_rate. The mean is over
    the environments of which an episode has ended so far; nan where there is none.

    Raises ValueError for settings out of range, a value model that does not give one value per observation, a loss
    that is nan, and for what play_on refuses.
    """
    _refuse_bad_training(env, value_model, settings)
    optimizer = torch.optim.Adam(model.parameters(), lr=settings.learning_rate)
    value_optimizer = torch.optim.Adam(value_model.parameters(), lr=settings.learning_rate)
    policy = functools.partial(get_policy, model)
    batches, mean_returns = play_on(env, policy, settings.steps, settings.seed), []
    for episodes, returns in itertools.islice(batches, settings.epochs):  # line 3
        advantages, targets = finish_paths(episodes, value_model, settings)  # lines 4 and 5
        actions = torch.as_tensor(episodes.actions)
        log_probabilities = policy(episodes.observations).log_prob(actions)
        descend(optimizer, vpg.calculate_loss(log_probabilities, advantages))  # lines 6 and 7
        for _ in range(settings.value_steps):  # line 8
            values = value_model(torch.as_tensor(episodes.observations))[:, 0]
            descend(value_optimizer, ((values - targets) ** 2).mean())
        mean_returns.append(torch.as_tensor(returns).nanmean().item())
    return mean_returns


class ContinuousForce(gym.vector.VectorWrapper):
    """CartPole under a force that is chosen: an action (environments, 1) of -1 to 1, in units of 10 N; more is cut off.

    Gymnasium's own physics, which multiplies the sign of an action by force_mag: here an array, a force per pole.

    Raises ValueError for another environment, and for actions of another shape or with nan.
    """

    def __init__(self, env: gym.vector.VectorEnv):
        _refuse_bad_poles(env)
        super().__init__(env)
        self.single_action_space = gym.spaces.Box(-1, 1, (1,), np.float32)
        self.action_space = gym.vector.utils.batch_space(self.single_action_space, self.num_envs)

    def step(self, actions):
        """Push every cart with its own force."""
        _refuse_bad_forces(actions, self.action_space.shape)
        force = np.clip(actions[:, 0], -1, 1)
        self.env.unwrapped.force_mag = 10 * np.abs(force)
        return self.env.step((force > 0).astype(np.int64))


def _refuse(bad, message):
    if bad:
        raise ValueError(message)


def _refuse_bad_game(env, steps, seed):
    _refuse(not isinstance(env, gym.vector.VectorEnv), f"{env} is no vector environment; make one with gym.make_vec")
    space, mode = env.single_observation_space, env.metadata.get("autoreset_mode")
    flat = isinstance(space, gym.spaces.Box) and len(space.shape) == 1
    _refuse(not flat, f"the environment's observations are {space}; expected a Box, a flat vector")
    next_step = gym.vector.AutoresetMode.NEXT_STEP
    _refuse(mode != next_step, f"the environment's autoreset_mode is {mode}; give one with {next_step}")
    refuse_bad_counts(steps=steps)
    _refuse(not is_whole(seed, 0, 2**31), f"the seed is {seed!r}; give a whole number from 0 to {2**31 - 1}")


def _refuse_bad_distribution(distribution, environments):
    # It runs at every step of an environment, so nothing is worded before it is needed.
    if distribution.batch_shape != (environments,):
        raise ValueError(
            f"the policy gives distributions of shape {tuple(distribution.batch_shape)}; expected one for each of "
            f"{environments} environments. An action of several numbers is one draw from an Independent"
        )


def _refuse_bad_sum(values, discount):
    if np.ndim(values) != 1 or not np.isfinite(values).all() or not 0 <= discount <= 1:
        raise ValueError(
            f"values has shape {np.shape(values)}, {np.isfinite(values).sum()} of them finite, and the discount is "
            f"{discount}; expected finite values, (steps,), of one path, and a discount from 0 to 1"
        )


def _refuse_bad_path(rewards, values, more):
    shapes = np.shape(rewards), np.shape(values)
    if len(shapes[0]) != 1 or shapes[1] != (shapes[0][0] + more,):
        expected = "(steps + 1,), the last one of what follows the path" if more else "(steps,)"
        raise ValueError(f"rewards has shape {shapes[0]}, values {shapes[1]}; expected (steps,) and {expected}")


def _refuse_bad_loss(loss):
    _refuse(not torch.isfinite(loss), f"the loss is {loss}: a model gives nan or infinity; lower the learning rate")


def _refuse_bad_training(env, value_model, settings):
    _refuse_bad_game(env, settings.steps, settings.seed)
    refuse_bad_counts(epochs=settings.epochs)
    value_steps = settings.value_steps
    _refuse(not is_whole(value_steps, 0, math.inf), f"value_steps is {value_steps!r}; give a count, 0 or more")
    for name in ("gamma", "lam"):
        number = getattr(settings, name)
        _refuse(not 0 <= number <= 1, f"{name} is {number!r}; give a number from 0 to 1")
    for name in ("learning_rate", "value_unit"):
        number = getattr(settings, name)
        _refuse(not 0 < number < math.inf, f"{name} is {number!r}; give a finite number above 0")
    with torch.no_grad():
        given = tuple(value_model(torch.zeros(2, *env.single_observation_space.shape)).shape)
    _refuse(given != (2, 1), f"for two observations the value model gives {given}; give one with one output, (2, 1)")


def _refuse_bad_poles(env):
    bad = type(env.unwrapped).__name__ != "CartPoleVectorEnv"
    _refuse(bad, f"the environment is {env}; make CartPole with vectorization_mode='vector_entry_point'")


def _refuse_bad_forces(actions, expected):
    if np.shape(actions) != expected or np.isnan(actions).any():
        nans = np.isnan(actions).sum()
        raise ValueError(f"actions has shape {np.shape(actions)}, {nans} of them nan; expected numbers, {expected}")
