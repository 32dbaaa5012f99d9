"""The whole Vanilla Policy Gradient, on any vector environment with flat observations: what lessons 8 and 9 share.

play_on is the engine; lesson 8 has the functions behind it, word for word.
"""

import functools
import itertools
from collections.abc import Callable, Iterator
from typing import NamedTuple

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor, nn
from torch.distributions import Distribution

import vpg_helpers as vpg


def play_on(
    env: gym.vector.VectorEnv, policy: Callable[[np.ndarray], Distribution], steps: int, seed: int
) -> Iterator[tuple[vpg.Episodes, np.ndarray]]:
    """Play batch after batch, without end; an episode that a batch leaves unfinished goes on in the next one.

    Every environment takes this many steps a batch; those that only reset it are left out. policy maps observations
    (environments, features) to a distribution over as many actions. A batch is its paths, whole episodes or pieces
    of them, as Episodes; and for every environment, (environments,), the return of its first episode that ended in
    this batch, else of its latest before, else 0. seed decides the starts, torch.manual_seed the actions.

    Raises ValueError where env does not use the step after an end to reset, as Gymnasium's NEXT_STEP does.
    """
    mode = env.metadata.get("autoreset_mode")
    if mode != gym.vector.AutoresetMode.NEXT_STEP:
        raise ValueError(f"the environment's autoreset_mode is {mode}; give one with AutoresetMode.NEXT_STEP")
    observation, _ = env.reset(seed=seed)
    resetting, running, returns = np.zeros(env.num_envs, bool), np.zeros(env.num_envs), np.zeros(env.num_envs)
    while True:
        record, reported = [], np.zeros(env.num_envs, bool)
        for _ in range(steps):
            before, playing = observation.astype(np.float32), ~resetting
            with torch.no_grad():
                action = policy(before).sample().numpy()
            observation, reward, terminated, truncated, _ = env.step(action)
            running = playing * (running + reward)
            resetting = playing & (terminated | truncated)
            returns = np.where(resetting & ~reported, running, returns)
            reported |= resetting
            record.append((before, action, reward, playing, resetting, terminated, observation.astype(np.float32)))
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
    value_steps: int = 5  # gradient steps of the value model, per epoch
    value_unit: float = 30.0  # in which the value model counts
    normalize: bool = True  # advantages: minus their mean, over their standard deviation
    bootstrap: bool = True  # where a path was cut, its last value stands for what was to come
    seed: int = 0  # of the environment; torch.manual_seed decides the rest


WHOLE = Settings()


def discount_cumsum(values: np.ndarray, discount: float) -> np.ndarray:
    """Return for every step the sum of the values from it on, discounted; both have shape (steps,).

    A value that is k steps away counts discount ** k times.
    """
    sums, running = [], 0.0
    for value in values[::-1].tolist():
        running = value + discount * running
        sums.append(running)
    return np.array(sums[::-1])


def gae(rewards: np.ndarray, values: np.ndarray, gamma: float, lam: float) -> np.ndarray:
    """Return the advantages that GAE estimates for a path's steps, (steps,).

    rewards has shape (steps,), values (steps + 1,): the last one is of what follows the path.
    """
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
    """
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
    columns = episodes.split(episodes.rewards), episodes.split(values), last_values, ended
    paths = zip(*columns, strict=True)
    finished = [finish_path(*path, settings.gamma, settings.lam) for path in paths]
    advantages, targets = (np.concatenate(each) for each in zip(*finished, strict=True))
    if settings.normalize:
        advantages = (advantages - advantages.mean()) / (advantages.std() + 1e-8)
    return torch.tensor(advantages).float(), torch.tensor(targets / settings.value_unit).float()


def descend(optimizer: torch.optim.Optimizer, loss: Tensor):
    """Take one gradient step down a loss."""
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
    """Train model and value_model in place; return the mean return of every epoch."""
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
        mean_returns.append(float(returns.mean()))
    return mean_returns


class ContinuousForce(gym.vector.VectorWrapper):
    """CartPole under a force that is chosen: an action (environments, 1) of -1 to 1, in units of 10 N; more is cut off.

    Gymnasium's own physics, which multiplies the sign of an action by force_mag: here an array, a force per pole.
    """

    def __init__(self, env: gym.vector.VectorEnv):
        super().__init__(env)
        self.single_action_space = gym.spaces.Box(-1, 1, (1,), np.float32)
        self.action_space = gym.vector.utils.batch_space(self.single_action_space, self.num_envs)

    def step(self, actions):
        """Push every cart with its own force."""
        force = np.clip(actions[:, 0], -1, 1)
        self.env.unwrapped.force_mag = 10 * np.abs(force)
        return self.env.step((force > 0).astype(np.int64))
