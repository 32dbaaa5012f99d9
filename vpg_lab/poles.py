"""Many poles at once: whole episodes of Gymnasium's vectorised CartPole, for one model or for many side by side.

Physics stays Gymnasium's; only the forward pass for sampling is NumPy.
"""

import copy
from collections.abc import Sequence
from typing import NamedTuple

import gymnasium as gym
import numpy as np
import torch
from torch import nn

from vpg_lab.refusals import refuse_bad_counts

RANDOM_BLOCK = 50  # time steps whose random numbers are drawn together: one call instead of fifty


class Episodes(NamedTuple):
    """Whole episodes, one after the other: observations (steps, 4); actions, rewards (steps,); lengths (episodes,).

    terminated (episodes,) is False where the clock cut an episode; last_observations (episodes, 4) are those that
    the last actions led to.
    """

    observations: np.ndarray
    actions: np.ndarray
    rewards: np.ndarray
    lengths: np.ndarray
    terminated: np.ndarray
    last_observations: np.ndarray

    @property
    def returns(self) -> np.ndarray:
        """The sum of every episode's rewards, (episodes,)."""
        return np.add.reduceat(self.rewards, np.cumsum(self.lengths) - self.lengths)

    def split(self, values: np.ndarray) -> list[np.ndarray]:
        """Cut an array with one entry per step into one array per episode."""
        ends = np.cumsum(self.lengths)
        return [values[start:end] for start, end in zip(ends - self.lengths, ends, strict=True)]


class _LeftOrRight(gym.spaces.MultiDiscrete):
    """CartPole's actions. Every env.step asks whether they are valid; of booleans that needs no look at each."""

    def contains(self, x):
        return (isinstance(x, np.ndarray) and x.shape == self.shape and x.dtype == bool) or super().contains(x)


def make_cartpoles(number_of_environments: int) -> gym.vector.VectorEnv:
    """Make Gymnasium's own vectorised CartPole, with 200 steps, as collect_episodes plays it."""
    env = gym.make_vec("CartPole-v1", number_of_environments, "vector_entry_point", max_episode_steps=200)
    env.unwrapped.action_space = _LeftOrRight(env.action_space.nvec)
    return env


def collect_episodes(
    env: gym.vector.VectorEnv,
    models: Sequence[nn.Module],
    generators: Sequence[np.random.Generator],
    max_timesteps: int = 5_000,
) -> list[Episodes]:
    """Play whole episodes of every model side by side, until each model's hold max_timesteps.

    env comes from make_cartpoles; its environments are shared out evenly among the models. The rule is the
    plain loop's: where an episode has ended, another starts while its model's steps, unfinished episodes
    included, are fewer than max_timesteps; every episode that was started is finished and counted, so that
    short ones are not favored. What a model plays depends on its own generator, not on the other models.

    Raises ValueError where environments, models and generators do not go together, or a model has not two logits.
    """
    _refuse_bad_batch(env, models, generators, max_timesteps)
    poles, poles_each = env.num_envs, env.num_envs // len(models)
    model_of = np.repeat(np.arange(len(models)), poles_each)
    logit_difference = _stack_models(models)
    observation, _ = env.reset()
    record = np.empty((512, *observation.shape), np.float32), np.empty((512, poles), int), np.empty((512, poles), "f4")
    playing, began, ended = np.zeros(poles, bool), np.zeros(poles, int), []
    players, steps, time, under_way = np.zeros(len(models), int), np.zeros(len(models), int), 0, 0
    starting, resetting = np.arange(poles), np.arange(0)  # the numbers of poles, as below
    while starting.size or resetting.size or under_way:
        if time % RANDOM_BLOCK == 0:
            thresholds, starts = _draw_random_block(generators, poles_each)
        if starting.size:
            # Gymnasium draws all starts from one stream; here each model's come from its own.
            start = starts[time % RANDOM_BLOCK][:, starting]
            env.unwrapped.state[:, starting], observation[starting] = start, start.T
            playing[starting], began[starting] = True, time
            players += np.bincount(model_of[starting], minlength=len(models))
            under_way += starting.size
        # sigmoid(d) > u for a uniform u, written with tanh, which cannot overflow
        difference = logit_difference(observation.reshape(len(models), poles_each, 4))
        action = (np.tanh(difference / 2) > thresholds[time % RANDOM_BLOCK]).ravel()
        if time == len(record[0]):
            record = tuple(np.concatenate([values, np.empty_like(values)]) for values in record)
        record[0][time], record[1][time] = observation, action
        observation, record[2][time], terminated, truncated, _ = env.step(action)
        steps += players
        # The step after an episode's end only resets the environment: nobody's action, no reward, not counted.
        starting = resetting[steps[model_of[resetting]] < max_timesteps] if resetting.size else resetting
        resetting = (playing & (terminated | truncated)).nonzero()[0]
        if resetting.size:
            ended.append((resetting, began[resetting], np.full(len(resetting), time), terminated[resetting]))
            playing[resetting] = False
            players -= np.bincount(model_of[resetting], minlength=len(models))
            under_way -= resetting.size
        time += 1
    return _cut_into_episodes(record, ended, poles_each * np.arange(1, len(models)))


def _stack_models(models):
    """Return the function from observations (models, environments, 4) to logit of right minus logit of left."""
    plain = [nn.Linear, nn.ReLU, nn.Linear]
    if all(isinstance(model, nn.Sequential) and [*map(type, model)] == plain for model in models):
        return _stack_plain_models(models)
    return _stack_any_models(models)


def _stack_plain_models(models):
    stacked = zip(*(model.parameters() for model in models), strict=True)
    first_weight, first_bias, last_weight, last_bias = (
        np.stack([parameter.detach().numpy() for parameter in parameters]) for parameters in stacked
    )
    first_weight, first_bias = np.ascontiguousarray(first_weight.swapaxes(1, 2)), first_bias[:, np.newaxis]
    last_weight, last_bias = np.diff(last_weight, axis=1).swapaxes(1, 2), np.diff(last_bias)

    def logit_difference(observations):
        hidden = np.maximum(observations @ first_weight + first_bias, 0)
        return (hidden @ last_weight)[..., 0] + last_bias

    return logit_difference


def _stack_any_models(models):
    """Do the same for models of another build than create_model's, all alike, with PyTorch; slower."""
    if len(models) == 1:  # nothing to stack, which takes most of the time

        def logit_difference_of_one(observations):
            with torch.no_grad():
                return models[0](torch.from_numpy(observations)).diff()[..., 0].numpy()

        return logit_difference_of_one
    parameters, buffers = torch.func.stack_module_state(models)
    skeleton = copy.deepcopy(models[0]).to("meta")
    ask = torch.vmap(lambda *state: torch.func.functional_call(skeleton, state[:2], state[2:]))

    def logit_difference(observations):
        with torch.no_grad():
            return ask(parameters, buffers, torch.from_numpy(observations)).diff()[..., 0].numpy()

    return logit_difference


def _draw_random_block(generators, poles_each):
    """Draw for RANDOM_BLOCK steps: a threshold in [-1, 1) per action, a starting state in case one is needed."""
    block = np.empty((RANDOM_BLOCK, 5, len(generators), poles_each), np.float32)
    for model, generator in enumerate(generators):
        block[:, :, model] = generator.random((RANDOM_BLOCK, 5, poles_each), dtype=np.float32)
    uniform = 2 * block - 1
    return uniform[:, 0], 0.05 * uniform[:, 1:].reshape(RANDOM_BLOCK, 4, -1)


def _cut_into_episodes(record, ended, first_poles):
    """Return Episodes per model. Where a pole's number is in first_poles, another model's poles begin."""
    columns = [np.concatenate(column) for column in zip(*ended, strict=True)]
    order = np.argsort(columns[0], kind="stable")  # they ended one after the other, so a pole's stay in order
    pole, began, last, terminated = (column[order] for column in columns)
    lengths, owners = last + 1 - began, np.searchsorted(pole, first_poles)
    ends = np.cumsum(lengths)
    steps = np.arange(ends[-1]) - np.repeat(ends - lengths - began, lengths), np.repeat(pole, lengths)
    per_step = [np.split(values[steps], ends[owners - 1]) for values in record]
    # What is recorded a step after an episode's last is the observation that it ended with, and no new start yet.
    per_episode = [np.split(values, owners) for values in (lengths, terminated, record[0][last + 1, pole])]
    return [Episodes(*fields) for fields in zip(*per_step, *per_episode, strict=True)]


def _refuse_bad_batch(env, models, generators, max_timesteps):
    refuse_bad_counts(max_timesteps=max_timesteps, number_of_models=len(models))
    if not isinstance(env, gym.vector.VectorEnv) or type(env.unwrapped).__name__ != "CartPoleVectorEnv":
        raise ValueError(f"env is {env}; give the vectorised CartPole that make_cartpoles returns")
    if env.num_envs % len(models) or len(generators) != len(models):
        raise ValueError(
            f"{env.num_envs} environments and {len(generators)} generators for {len(models)} models; "
            "give every model as many environments as the others, and one generator"
        )
    for model in models:
        try:
            given = tuple(model(torch.zeros(1, 4)).shape)
        except RuntimeError as error:
            given = error
        if given != (1, 2):
            raise ValueError(f"for shape (1, 4) the model gives {given}; batches play models with two logits, (1, 2)")
    kinds = sorted({type(model).__name__ for model in models})
    if len(kinds) > 1:
        raise ValueError(f"the models are of {len(kinds)} kinds, {', '.join(kinds)}; give models of one kind")
