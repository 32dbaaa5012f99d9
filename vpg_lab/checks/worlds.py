"""Worlds whose course is known, for programs that play and train."""

import contextlib
import copy
import io
import itertools
from collections.abc import Callable
from typing import NamedTuple
from unittest.mock import patch

import gymnasium as gym
import numpy as np
import torch
from gymnasium.envs.classic_control import CartPoleEnv
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

from vpg_lab.checks.expect import flatten, redraw


def echo_model():
    """Return a model that gives back its input, so that the observation is the logits."""
    model = nn.Linear(2, 2, bias=False)
    nn.init.eye_(model.weight)
    return model


class Script(gym.Env):
    """A world without physics: observations and rewards are random, and when an episode ends is written down here.

    Episodes have 3 steps, 2, 3, 2 and so on; in a random script they have 1 to 9, or a length that is given. They end
    in one of the ways of `ends`, by chance. It writes down every step, as (observation, the one after it, action,
    reward), and refuses to go on after an end.
    """

    ENDS = ("terminated", "truncated", "terminated and truncated")

    def __init__(
        self, features: int = 4, actions: int = 2, random: bool = False, scale: float = 1.0, length=0, ends=ENDS[:1]
    ):
        self.observation_space = gym.spaces.Box(-12, 12, (features,), np.float32)
        self.action_space = gym.spaces.Discrete(actions)
        self.random, self.scale, self.given_length, self.ends = random, scale, length, ends
        self.begun, self.ended = [], ""

    @property
    def episodes(self):
        """The episodes in which something was played, each a list of steps."""
        return [episode for episode in self.begun if episode]

    def _look(self):
        reach = 12 if self.random and np.random.rand() < 0.1 else 3
        self.observation = np.random.uniform(-reach, reach, self.observation_space.shape).astype(np.float32)
        return self.observation.copy()

    def reset(self, *, seed=None, options=None):
        assert seed is None, "it seeds the environment, so that every episode begins alike"
        assert len(self.begun) < 3_000, "it has begun 3,000 episodes for a small budget: does the loop end?"
        assert self.ended or not self.begun or not self.begun[-1], "it begins an episode before the last one has ended"
        self.begun, self.ended = [*self.begun, []], ""
        self.end, self.length = np.random.choice(self.ends), 2 + len(self.begun) % 2
        if self.random:
            self.length = self.given_length or np.random.randint(1, 10)
        return self._look(), {}

    def step(self, action):
        assert self.begun, "it takes a step before it has reset the environment"
        assert self.ended != "terminated", "the loop plays on after terminated was True; it ends an episode"
        assert not self.ended, "the loop plays on after truncated was True; it ends an episode"
        low = -4 if self.random else 1
        assert int(action) == action, f"the environment got action {action}: hand it on as get_action gives it"
        episode, reward, seen = self.begun[-1], self.scale * np.random.uniform(low, 5), self.observation
        episode.append((seen, self._look(), int(action), reward))
        if len(episode) == self.length:
            self.ended = self.end
        # NumPy's own booleans, as Gymnasium allows: `is True` does not find them.
        ends = (np.bool_(word in self.ended) for word in ("terminated", "truncated"))
        return self.observation.copy(), reward, *ends, {}

    def close(self):
        raise AssertionError("it closes the environment, which others may want to play: leave it open")


def columns(script):
    """Return observations, those after them, actions, rewards and lengths of what a Script wrote down."""
    lengths = np.array([len(episode) for episode in script.episodes])
    return *map(np.array, zip(*sum(script.episodes, []), strict=True)), lengths


def watch_questions(model):
    """Return a list that fills with the observations that the model is asked about."""
    asked = []
    model.register_forward_pre_hook(lambda _, inputs: asked.extend(inputs[0].reshape(-1, inputs[0].shape[-1]).tolist()))
    return asked


def expect_seen(asked, script):
    """Assert that a model was asked about nothing but a script's observations."""
    seen = {tuple(observation.tolist()) for step in sum(script.episodes, []) for observation in step[:2]}
    assert {*map(tuple, asked)} <= seen, (
        "the model is asked about what was never seen: hand on observations as they are"
    )


class Track(NamedTuple):
    """A CartPole to train in: how far pole and cart may go, and how much less a step earns with every episode."""

    limit: float | None = None  # CartPole's own
    fading: float = 0.0


CARTPOLE, STEEP = Track(), Track(limit=0)  # steep: the pole has fallen after one step
FADING = Track(limit=np.inf, fading=0.0041234)  # the first epoch is the best, and only the clock ends an episode


class TooManyEpisodes(Exception):  # noqa: N818
    """A training plays on and on; what goes on to train is not worth waiting for."""


class GradientStep(NamedTuple):
    """A step of an optimizer: its settings, the parameters after it, how many episodes had been played.

    Besides, the seed that torch had, and what its dice had come to.
    """

    optimizer: torch.optim.Optimizer
    settings: dict
    after: Tensor
    episodes_before: int
    seed: int
    dice: bytes


class Training(NamedTuple):
    """What was seen of one training; rewards has a list per episode, starts their first observations."""

    returned: object
    printed: str
    starts: list[tuple[float, ...]]
    rewards: list[list[float]]
    gradient_steps: list[GradientStep]

    def returns_by_epoch(self) -> list[list[float]]:
        """Return what the episodes earned that were played before every gradient step and after the one before it."""
        ends = [0, *(step.episodes_before for step in self.gradient_steps)]
        returns = [sum(episode) for episode in self.rewards]
        return [returns[begin:end] for begin, end in itertools.pairwise(ends)]


def watch_training(train: Callable, track: Track, most: int, **settings) -> Training:
    """Train and watch every episode of CartPole, and every step of an optimizer.

    Raises TooManyEpisodes, with the number of steps so far, behind `most` episodes.
    """
    starts, rewards, gradient_steps, begun, printed = [], [], [], [], io.StringIO()
    reset, step = CartPoleEnv.reset, CartPoleEnv.step

    def watched_reset(env, *, seed=None, options=None):
        observation, info = reset(env, seed=seed, options=options)
        if track.limit is not None:
            env.theta_threshold_radians = env.x_threshold = track.limit
        begun[:] = [tuple(observation.tolist())]
        return observation, info

    def watched_step(env, action):
        if begun:  # an episode counts once something is played in it
            starts.append(begun.pop())
            rewards.append([])
            if len(rewards) > most:
                raise TooManyEpisodes(len(gradient_steps))
        observation, reward, *rest = step(env, action)
        rewards[-1].append(reward * (1 - track.fading * (len(rewards) - 1)))
        return observation, rewards[-1][-1], *rest

    def after_step(optimizer, *_):
        held = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        dice, settings = torch.get_rng_state().numpy().tobytes(), dict(optimizer.param_groups[0])
        step = GradientStep(optimizer, settings, flatten(held), len(rewards), torch.initial_seed(), dice)
        gradient_steps.append(step)

    with contextlib.ExitStack() as watch:
        watch.callback(register_optimizer_step_post_hook(after_step).remove)
        watch.enter_context(patch.object(CartPoleEnv, "reset", watched_reset))
        watch.enter_context(patch.object(CartPoleEnv, "step", watched_step))
        watch.enter_context(contextlib.redirect_stdout(printed))
        returned = train(**settings)
    return Training(returned, printed.getvalue(), starts, rewards, gradient_steps)


class VectorScript(gym.vector.VectorEnv):
    """Worlds without physics, side by side: everything is random, and what happened is written down in steps.

    A step is (observations, actions, rewards, playing, terminated, truncated, observations after), each per world. In
    the first world no episode ends within the first 11 steps, the first batch of watch_vpg.
    """

    metadata = {"autoreset_mode": gym.vector.AutoresetMode.NEXT_STEP}

    def __init__(self, worlds: int = 6, features: int = 3, actions: int = 2):
        self.num_envs, self.features = worlds, features
        self.single_observation_space = gym.spaces.Box(-1, 1, (features,), np.float32)
        self.single_action_space = gym.spaces.Discrete(actions)
        self.steps, self.seeds, self.resetting = [], [], np.zeros(worlds, bool)

    def _look(self):
        self.seen = np.random.uniform(-1, 1, (self.num_envs, self.features)).astype(np.float32)
        return self.seen.copy()

    def reset(self, *, seed=None, options=None):
        self.seeds.append(seed)
        return self._look(), {}

    def step(self, actions):
        before, playing = self.seen, ~self.resetting
        rewards = playing * np.random.uniform(-1, 5, self.num_envs)
        ended, falls = playing & (np.random.random(self.num_envs) < 0.2), np.random.random(self.num_envs) < 0.5
        ended[0] &= len(self.steps) >= 11
        self.resetting = ended
        record = before, np.array(actions), rewards, playing, ended & falls, ended & ~falls, self._look()
        self.steps.append(record)
        return self.seen.copy(), rewards, ended & falls, ended & ~falls, {}

    def paths(self, begin, end):
        """Return the paths of a batch, the steps from begin to end: columns, observation after, terminated."""
        found = []
        for world in range(self.num_envs):
            path = []
            for number in range(begin, end):
                *columns, playing, terminated, truncated, after = (column[world] for column in self.steps[number])
                path += [columns] * bool(playing)
                if path and (terminated or truncated or number == end - 1):
                    found.append(([*map(np.array, zip(*path, strict=True))], after, terminated))
                    path = []
        return found

    def returns_by_batch(self, steps):
        """Return (batches, worlds): the first return that ended in a batch, else the latest before, else nan."""
        latest, running, returns = np.full(self.num_envs, np.nan), np.zeros(self.num_envs), []
        for number, (_, _, rewards, playing, terminated, truncated, _) in enumerate(self.steps):
            if number % steps == 0:
                returns.append(latest)
                reported = np.zeros(self.num_envs, bool)
            running = playing * (running + rewards)
            first, reported = (terminated | truncated) & ~reported, reported | terminated | truncated
            latest = returns[-1] = np.where(first, running, latest)
        return np.array(returns)


class Move(NamedTuple):
    """A step of an optimizer: of which model, its gradient, the world's steps so far, both models before it."""

    name: str
    gradient: Tensor
    steps: int
    model: nn.Module
    value_model: nn.Module
    optimizer: torch.optim.Optimizer


def watch_vpg(train_vpg: Callable, settings: tuple, *get_policy: Callable) -> tuple[VectorScript, list[Move], object]:
    """Train in a made-up world; return it, every optimizer's step and what train_vpg returned."""
    worlds, (features, actions) = np.random.randint(5, 9), np.random.randint(2, 5, 2).tolist()
    world, moves = VectorScript(worlds, features, actions), []
    model, value_model = redraw(nn.Linear(features, actions)), redraw(nn.Linear(features, 1))

    def before_step(optimizer, *_):
        held = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        owners = {model: "model", value_model: "value_model"}
        names = [name for each, name in owners.items() if {*map(id, each.parameters())} & {*map(id, held)}]
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in held]
        name, copies = " and ".join(names), (copy.deepcopy(model), copy.deepcopy(value_model))
        moves.append(Move(name, flatten(gradients), len(world.steps), *copies, optimizer))

    hook = register_optimizer_step_pre_hook(before_step)
    try:
        returned = train_vpg(world, model, value_model, settings, *get_policy)
    finally:
        hook.remove()
    return world, moves, returned
