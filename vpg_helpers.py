"""Vanilla Policy Gradient on CartPole: the algorithm of the lessons, and what the lessons lean on.

In reading order: (1) the six functions that the notebooks build, (2) the same algorithm on many environments
and many seeds at once, (3) pictures, (4) what moves under the reader's hand, (5) exercises and the learner's own
file. `python vpg_helpers.py` trains one agent and prints a line an epoch.
"""

import argparse
import ast
import base64
import builtins
import contextlib
import copy
import dis
import importlib.util
import inspect
import io
import itertools
import json
import linecache
import math
import os
import re
import time
import traceback
import types
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import gymnasium as gym
import ipywidgets as widgets
import numpy as np
import torch
from IPython import get_ipython
from IPython.display import display
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image, ImageDraw
from torch import Tensor, nn
from torch.distributions import Categorical

# Networks this small gain nothing from a second thread and lose much where the cores are shared: ten epochs of 32 seeds
# took 2 s with one thread and 33 s with two, on two cores of which one was busy. It holds for the whole process.
torch.set_num_threads(1)

# ----------------------------------------------------------------------------------------------------------
# 1. The reference algorithm: six functions, as lessons 01 to 05 build them.
#    Each first refuses what it cannot work with; the lessons leave those calls out, and nothing else.
# ----------------------------------------------------------------------------------------------------------


def create_model(number_observation_features: int, number_actions: int, hidden_units: int = 32) -> nn.Module:
    """Build the network that turns observations into logits, one logit per action.

    Observations have shape (..., number_observation_features), logits (..., number_actions).
    """
    _refuse_bad_sizes(number_observation_features, number_actions, hidden_units)
    return nn.Sequential(
        nn.Linear(number_observation_features, hidden_units),
        nn.ReLU(),
        nn.Linear(hidden_units, number_actions),
    )


def get_policy(model: nn.Module, observation: Tensor | np.ndarray) -> Categorical:
    """Return the distribution over actions that the model gives for an observation.

    One observation has shape (features,); a batch, (..., features), gives a batch of distributions.
    """
    _refuse_bad_observation(model, observation)
    logits = model(torch.as_tensor(observation))
    return Categorical(logits=logits)


def get_action(policy: Categorical) -> tuple[np.ndarray, Tensor]:
    """Sample an action; return it in the form env.step takes, with its log-probability.

    Both have the policy's batch shape, () for one observation. The log-probability carries the
    gradient.
    """
    _refuse_bad_policy(policy)
    action = policy.sample()
    return action.numpy(), policy.log_prob(action)


def calculate_loss(log_probabilities: Tensor, weights: Tensor) -> Tensor:
    """Return the pseudo-loss, a scalar: minus the mean of log-probability times weight.

    Both have shape (steps,). The loss's gradient points against the policy gradient; its value
    measures nothing.
    """
    _refuse_bad_loss_inputs(log_probabilities, weights)
    return -(log_probabilities * weights).mean()


def train_one_epoch(
    env: gym.Env, model: nn.Module, optimizer: torch.optim.Optimizer, max_timesteps: int = 5_000
) -> float:
    """Play whole episodes for max_timesteps or more, step once, return the mean return."""
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


def _require(condition: bool, message: str, error: type[Exception] = ValueError):
    if not condition:
        raise error(message)


def _require_counts(**counts):
    for name, count in counts.items():
        is_count = isinstance(count, (int, np.integer)) and not isinstance(count, bool) and count >= 1
        _require(is_count, f"{name} is {count!r}; give a whole number, 1 or more")


def _refuse_bad_sizes(number_observation_features, number_actions, hidden_units):
    _require_counts(
        number_observation_features=number_observation_features,
        number_actions=number_actions,
        hidden_units=hidden_units,
    )


def _refuse_bad_observation(model, observation):
    shape, dtype = tuple(np.shape(observation)), str(torch.as_tensor(observation).dtype)
    # A model of another build than create_model's knows by itself what it reads.
    first = model[0] if isinstance(model, nn.Sequential) else model
    features = getattr(first, "in_features", None)
    _require(
        features is None or shape[-1:] == (features,),
        f"the observation has shape {shape}; this model reads {features} features: give shape (..., {features})",
    )
    parameters = next(model.parameters()).dtype
    _require(
        dtype == str(parameters),
        f"the observation is {dtype}, the model's parameters are {parameters}; convert the observation",
    )


def _refuse_bad_policy(policy):
    _require(
        isinstance(policy, Categorical),
        f"the policy is a {type(policy).__name__}; give the Categorical that get_policy returns",
        TypeError,
    )


def _refuse_bad_loss_inputs(log_probabilities, weights):
    for name, value in {"log_probabilities": log_probabilities, "weights": weights}.items():
        _require(isinstance(value, Tensor), f"{name} is a {type(value).__name__}; give a tensor", TypeError)
    _require(
        log_probabilities.shape == weights.shape and weights.numel() > 0,
        f"log_probabilities has shape {tuple(log_probabilities.shape)}, weights {tuple(weights.shape)}; "
        "give one weight per log-probability, at least one of each",
    )
    _require(
        log_probabilities.requires_grad,
        "log_probabilities carries no gradient; compute it from the model, outside torch.no_grad(), undetached",
    )
    _require(not weights.requires_grad, "weights carries a gradient; returns are data: detach them first")
    _require(bool(torch.isfinite(weights).all()), "weights holds nan or infinity; look at the rewards")


def _refuse_bad_epoch(env, max_timesteps):
    _require_counts(max_timesteps=max_timesteps)
    observations, actions = env.observation_space, env.action_space
    _require(
        isinstance(observations, gym.spaces.Box) and len(observations.shape) == 1,
        f"the environment's observations are {observations}; expected a flat vector: a Box with one dimension",
    )
    _require(
        isinstance(actions, gym.spaces.Discrete) and actions.start == 0,
        f"the environment's actions are {actions}; expected Discrete actions, counted from 0",
    )


def _refuse_bad_run(epochs, max_timesteps, learning_rate, seeds):
    _require_counts(epochs=epochs, max_timesteps=max_timesteps)
    _require(
        0 < learning_rate < math.inf,
        f"learning_rate is {learning_rate!r}; give a finite number above 0, such as 0.01",
    )
    for seed in seeds:
        is_seed = isinstance(seed, (int, np.integer)) and 0 <= seed < 2**31
        _require(is_seed, f"the seed is {seed!r}; give a whole number from 0 to {2**31 - 1}")


# ----------------------------------------------------------------------------------------------------------
# 2. Batches: the same algorithm on many environments at once, for one seed or for many side by side.
#    Physics stays Gymnasium's, the gradient PyTorch's; only the forward pass for sampling is NumPy.
# ----------------------------------------------------------------------------------------------------------

RANDOM_BLOCK = 50  # time steps whose random numbers are drawn together: one call instead of fifty


class Episodes(NamedTuple):
    """Whole episodes, one after the other: observations (steps, 4); actions, rewards (steps,); lengths (episodes,)."""

    observations: np.ndarray
    actions: np.ndarray
    rewards: np.ndarray
    lengths: np.ndarray

    def split(self, values: np.ndarray) -> list[np.ndarray]:
        """Cut an array with one entry per step into one array per episode."""
        return np.split(values, np.cumsum(self.lengths)[:-1])


class History(NamedTuple):
    """What train_seeds saw: a model per seed; mean_returns and timesteps (steps played), both (seeds, epochs)."""

    models: list[nn.Module]
    mean_returns: np.ndarray
    timesteps: np.ndarray


def whole_return(rewards: np.ndarray) -> np.ndarray:
    """Weigh every step of an episode with the episode's return; rewards and weights have shape (steps,)."""
    return np.full(len(rewards), rewards.sum())


def make_cartpoles(number_of_environments: int) -> gym.vector.VectorEnv:
    """Make Gymnasium's own vectorised CartPole, with 200 steps, as collect_episodes plays it."""
    return gym.make_vec(
        "CartPole-v1",
        num_envs=number_of_environments,
        vectorization_mode="vector_entry_point",
        max_episode_steps=200,
    )


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
    """
    _refuse_bad_batch(env, models, generators, max_timesteps)
    shape = (len(models), env.num_envs // len(models))
    logit_difference = _stack_models(models)
    observation, _ = env.reset()
    starting, playing, resetting = np.ones(shape, bool), np.zeros(shape, bool), np.zeros(shape, bool)
    steps, record = np.zeros((len(models), 1), int), []
    while (starting | playing | resetting).any():
        block_step = len(record) % RANDOM_BLOCK
        if block_step == 0:
            thresholds, starts = _draw_random_block(generators, shape[1])
        if starting.any():
            # Gymnasium draws all starts from one stream; here each model's come from its own.
            started = starting.ravel()
            env.unwrapped.state[:, started] = starts[block_step][:, started]
            observation[started] = starts[block_step][:, started].T
            playing = playing | starting
        # sigmoid(d) > u for a uniform u, written with tanh, which cannot overflow
        action = np.tanh(logit_difference(observation.reshape(*shape, 4)) / 2) > thresholds[block_step]
        next_observation, reward, terminated, truncated, _ = env.step(action.ravel().astype(np.int64))
        ended = playing & (terminated | truncated).reshape(shape)
        record.append((observation, action, reward, playing, ended))
        observation, playing = next_observation, playing & ~ended
        steps += record[-1][3].sum(axis=1, keepdims=True)
        # The step after an episode's end only resets the environment: nobody's action, no reward, not counted.
        starting, resetting = resetting & (steps < max_timesteps), ended
    return list(_cut_into_episodes(record, shape))


def train_seeds(
    seeds: Sequence[int],
    epochs: int = 40,
    max_timesteps: int = 5_000,
    learning_rate: float = 1e-2,
    hidden_units: int = 32,
    number_of_environments: int = 32,
    weigh_episode: Callable[[np.ndarray], np.ndarray] = whole_return,
    after_epoch: Callable[[list[nn.Module], np.ndarray], None] | None = None,
) -> History:
    """Train one model per seed on CartPole with 200 steps, all side by side.

    number_of_environments is per seed. weigh_episode maps an episode's rewards to one weight per step.
    A seed's curve depends on that seed alone. After every epoch, after_epoch(models, mean_returns so far) is
    called, if given; mean_returns has shape (seeds, epochs so far).
    """
    _refuse_bad_run(epochs, max_timesteps, learning_rate, seeds)
    _require_counts(number_of_seeds=len(seeds), number_of_environments=number_of_environments)
    env = make_cartpoles(len(seeds) * number_of_environments)
    models = [_create_seeded_model(seed, hidden_units) for seed in seeds]
    optimizers = [torch.optim.Adam(model.parameters(), lr=learning_rate) for model in models]
    mean_returns, timesteps = np.zeros((len(seeds), epochs)), np.zeros((len(seeds), epochs), int)
    for epoch in range(epochs):
        generators = [np.random.default_rng((seed, epoch)) for seed in seeds]
        batch = collect_episodes(env, models, generators, max_timesteps)
        for run, episodes in enumerate(batch):
            take_gradient_step(models[run], optimizers[run], episodes, weigh_episode)
            mean_returns[run, epoch] = episodes.rewards.sum() / len(episodes.lengths)
            timesteps[run, epoch] = len(episodes.rewards)
        if after_epoch:
            after_epoch(models, mean_returns[:, : epoch + 1])
    return History(models, mean_returns, timesteps)


def take_gradient_step(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    episodes: Episodes,
    weigh_episode: Callable[[np.ndarray], np.ndarray] = whole_return,
):
    """Take the gradient step that train_one_epoch takes, on episodes that were collected before."""
    weights = np.concatenate([weigh_episode(rewards.copy()) for rewards in episodes.split(episodes.rewards)])
    log_probabilities = get_policy(model, episodes.observations).log_prob(torch.as_tensor(episodes.actions))
    loss = calculate_loss(log_probabilities, torch.as_tensor(weights, dtype=torch.float32))
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


def _create_seeded_model(seed, hidden_units):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return create_model(4, 2, hidden_units)


def _is_plain(model):
    return isinstance(model, nn.Sequential) and [type(layer) for layer in model] == [nn.Linear, nn.ReLU, nn.Linear]


def _stack_any_models(models):
    """Do what _stack_models does for models of another build than create_model's, all alike; slower."""
    parameters, buffers = torch.func.stack_module_state(models)
    skeleton = copy.deepcopy(models[0]).to("meta")
    ask = torch.vmap(lambda *state: torch.func.functional_call(skeleton, state[:2], state[2:]))

    def logit_difference(observations):
        with torch.no_grad():
            return ask(parameters, buffers, torch.from_numpy(observations)).diff()[..., 0].numpy()

    return logit_difference


def _stack_models(models):
    """Return the function from observations (models, environments, 4) to logit of right minus logit of left."""
    if not all(_is_plain(model) for model in models):
        return _stack_any_models(models)
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


def _draw_random_block(generators, environments):
    """Draw for RANDOM_BLOCK steps: a threshold in [-1, 1) per action, a starting state in case one is needed."""
    block = [generator.random((RANDOM_BLOCK, 5, environments), dtype=np.float32) for generator in generators]
    uniform = 2 * np.stack(block, axis=2) - 1
    return uniform[:, 0], 0.05 * uniform[:, 1:].reshape(RANDOM_BLOCK, 4, -1)


def _cut_into_episodes(record, shape):
    observations, actions, rewards, playing, ended = (np.stack(column) for column in zip(*record, strict=True))
    observations, rewards = observations.reshape(-1, *shape, 4), rewards.reshape(-1, *shape)
    for run in range(shape[0]):
        # Environment first, then time: the steps of an episode lie side by side.
        played = playing[:, run].T
        last_steps = np.flatnonzero(ended[:, run].T[played])
        yield Episodes(
            observations[:, run].swapaxes(0, 1)[played],
            actions[:, run].T[played].astype(np.int64),
            rewards[:, run].T[played],
            np.diff(last_steps, prepend=-1),
        )


def _refuse_bad_batch(env, models, generators, max_timesteps):
    _require_counts(max_timesteps=max_timesteps, number_of_models=len(models))
    is_cartpole = isinstance(env, gym.vector.VectorEnv) and type(env.unwrapped).__name__ == "CartPoleVectorEnv"
    _require(is_cartpole, f"env is {env}; give the vectorised CartPole that make_cartpoles returns")
    _require(
        env.num_envs % len(models) == 0 and len(generators) == len(models),
        f"{env.num_envs} environments and {len(generators)} generators for {len(models)} models; "
        "give every model as many environments as the others, and one generator",
    )
    for model in models:
        try:
            with torch.no_grad():
                given = tuple(model(torch.zeros(1, 4)).shape)
        except RuntimeError as error:
            given = error
        _require(
            given == (1, 2), f"for shape (1, 4) the model gives {given}; batches play models with two logits, (1, 2)"
        )
    kinds = {type(model).__name__ for model in models}
    _require(
        len(kinds) == 1, f"the models are of {len(kinds)} kinds, {', '.join(sorted(kinds))}; give models of one kind"
    )


# ----------------------------------------------------------------------------------------------------------
# 3. Pictures: data in, a figure out. None needs a display, a game library or pyplot's global state.
#    Colors are Okabe and Ito's, which stay apart under every common color blindness.
# ----------------------------------------------------------------------------------------------------------

BLUE, VERMILLION, GREEN, GRAY = "#0072B2", "#D55E00", "#009E73", "#595959"
PLAY_MILLISECONDS = 5_000  # what moves by itself for longer must have a pause button (WCAG 2.2, criterion 2.2.2)
REDRAW_SECONDS = 0.25  # often enough to watch, and a few percent of the training at most
FALL_ANGLE, TRACK_END = math.radians(12), 2.4  # rad, m: where CartPole's episodes terminate


class Picture(Figure):
    """A matplotlib figure that shows itself in a notebook and describes itself where it can't be seen."""

    def __init__(self, description: str, width: float = 7, height: float = 3):
        super().__init__(figsize=(width, height), dpi=90, layout="constrained", facecolor="white")
        self.description = description

    def __repr__(self):
        return self.description

    def _repr_png_(self):
        png = io.BytesIO()
        self.savefig(png, format="png")
        return png.getvalue()

    def to_html(self) -> str:
        """Return the figure as an HTML image, with its description as the alternative text."""
        return f'<img alt="{self.description}" src="{_to_data_url(self._repr_png_())}"/>'


class Animation(NamedTuple):
    """An animated PNG, its last frame as a PNG that stands still, and the sentence that describes it."""

    png: bytes
    still: bytes
    description: str

    def __repr__(self):
        return self.description

    def _repr_png_(self):
        return self.png

    def _repr_html_(self):
        """Show the still to readers whose system asks for reduced motion; only a live page has this form."""
        return (
            f'<picture><source media="(prefers-reduced-motion: reduce)" srcset="{_to_data_url(self.still)}"/>'
            f'<img alt="{self.description}" src="{_to_data_url(self.png)}"/></picture>'
        )


def _to_data_url(png):
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"


def plot_cart(observation: Sequence[float], ax: Axes | None = None) -> Figure:
    """Draw the cart and pole of one observation to scale, the four numbers labeled; angles in radians."""
    _require(np.shape(observation) == (4,), f"the observation has shape {np.shape(observation)}; give (4,)")
    position, velocity, angle, angular_velocity = observation
    ax = (
        ax or Picture("The cart on its track, the pole leaning, and the four numbers of the observation.").add_subplot()
    )
    tip = position + math.sin(angle), 0.2 + math.cos(angle)
    ax.plot([-TRACK_END, TRACK_END], [0, 0], color="black", lw=1)
    ax.add_patch(Rectangle((position - 0.25, 0), 0.5, 0.2, color=BLUE))
    ax.plot([position, tip[0]], [0.2, tip[1]], color=VERMILLION, lw=6, solid_capstyle="round")
    ax.plot([position, position], [0.2, 1.2], color=GRAY, lw=1, ls=":")
    arrow = {"arrowstyle": "-|>", "color": "black"}
    ax.annotate("", (position + 0.3 + velocity, 0.1), (position + 0.27, 0.1), arrowprops=arrow)
    ax.text(position + 0.35, -0.05, f"ẋ = {velocity:.2f} m/s", va="top")
    ax.annotate("", (tip[0] + angular_velocity, tip[1]), tip, arrowprops=arrow)
    ax.text(tip[0] + 0.12, tip[1] + 0.04, f"θ̇ = {angular_velocity:.2f} rad/s", va="bottom")
    ax.text(position - 0.1, 0.8, f"θ = {angle:.2f} rad", ha="right")
    ax.text(position - 0.3, -0.05, f"x = {position:.2f} m", va="top", ha="right")
    for end in (-TRACK_END, TRACK_END):
        ax.plot([end, end], [-0.1, 0.3], color=GRAY, lw=1, ls="--")
        ax.text(end, 0.35, f"{end:+.1f} m", ha="center", color=GRAY)
    ax.set(xlim=(-2.9, 2.9), ylim=(-0.25, 1.45), aspect="equal")
    ax.axis("off")
    return ax.figure


def animate_episode(observations: np.ndarray, title: str, scale: int = 60) -> Animation:
    """Draw an episode, observations of shape (steps, 4), as an animated PNG: real time, scale pixels a meter."""
    shape = np.shape(observations)
    _require(len(shape) == 2 and shape[0] > 0 and shape[1] == 4, f"observations has shape {shape}; give (steps, 4)")
    captions = [f"{title}: {step // 10 * 10} steps" for step in range(1, shape[0])] + [f"{title}: {shape[0]} steps"]
    frames = [_draw_frame(*pair, scale) for pair in zip(observations, captions, strict=True)]
    # CartPole's steps are 20 ms apart; the last frame stays for a second and a half before the next round.
    durations = [20] * (len(frames) - 1) + [1_500]
    rounds = max(1, PLAY_MILLISECONDS // sum(durations))
    animated = {"save_all": True, "append_images": frames[1:], "duration": durations, "loop": rounds}
    description = f"Animation, {title}: the cart moves and the pole swings until the episode ends."
    return Animation(_to_png(frames[0], **animated), _to_png(frames[-1]), description)


def _to_png(frame, **animated):
    png = io.BytesIO()
    frame.save(png, format="PNG", compress_level=9, **animated)
    return png.getvalue()


def _draw_frame(observation, caption, scale):
    width, ground = int(2.2 * TRACK_END * scale), int(1.75 * scale)
    frame = Image.new("P", (width, ground + scale // 4))
    frame.putpalette([255, 255, 255, 0, 0, 0, 0, 114, 178, 213, 94, 0, 89, 89, 89])
    black, blue, vermillion, gray = range(1, 5)
    draw, x = ImageDraw.Draw(frame), width / 2 + observation[0] * scale
    pivot = x, ground - 0.2 * scale
    draw.line([0, ground, width, ground], fill=black)
    for end in (-TRACK_END, TRACK_END):
        draw.line([width / 2 + end * scale, ground - 0.2 * scale, width / 2 + end * scale, ground], fill=gray, width=2)
    for limit in (-FALL_ANGLE, FALL_ANGLE):
        east, north = math.sin(limit) * scale, math.cos(limit) * scale
        draw.line([x + 0.85 * east, pivot[1] - 0.85 * north, x + east, pivot[1] - north], fill=gray)
    draw.rectangle([x - 0.25 * scale, pivot[1], x + 0.25 * scale, ground - 1], fill=blue)
    tip = pivot[0] + math.sin(observation[2]) * scale, pivot[1] - math.cos(observation[2]) * scale
    draw.line([*pivot, *tip], fill=vermillion, width=scale // 10)
    draw.text((4, 2), caption, fill=black)
    return frame


def plot_probabilities(probabilities: np.ndarray, ax: Axes | None = None, names=("left", "right")) -> Figure:
    """Draw one policy as bars; probabilities has shape (actions,)."""
    ax = ax or Picture("Bars: the probability of each action.", 3, 2.4).add_subplot()
    bars = ax.bar(names, probabilities, color=[BLUE, VERMILLION], width=0.6)
    ax.bar_label(bars, fmt="%.2f")
    ax.set(ylim=(0, 1.15), ylabel="probability")
    return ax.figure


def plot_policy_map(model: nn.Module, ax: Axes | None = None) -> Figure:
    """Draw the probability of pushing right over pole angle and angular velocity, the cart at rest at x = 0."""
    ax = (
        ax
        or Picture("Map: the probability of pushing right, by pole angle and angular velocity.", 4.6, 3.4).add_subplot()
    )
    angles, velocities = np.meshgrid(np.linspace(-12, 12, 61), np.linspace(-2, 2, 61))
    observations = np.zeros((61, 61, 4), np.float32)
    observations[..., 2], observations[..., 3] = np.radians(angles), velocities
    with torch.no_grad():
        right = get_policy(model, observations).probs[..., 1].numpy()
    colors = LinearSegmentedColormap.from_list("left to right", [BLUE, "white", VERMILLION])
    image = ax.pcolormesh(angles, velocities, right, cmap=colors, vmin=0, vmax=1)
    ax.contour(angles, velocities, right, levels=[0.5], colors="black", linewidths=1)
    ax.figure.colorbar(image, ax=ax, label="P(push right)")
    ax.set(xlabel="pole angle (degrees)", ylabel="angular velocity (rad/s)")
    return ax.figure


def plot_curves(x: np.ndarray, curves: np.ndarray, low, high, label: str, color: str, ax: Axes) -> Figure:
    """Draw every curve faint, their mean strong, and a band from low to high; curves has shape (seeds, points)."""
    ax.plot(x, curves.T, color=color, alpha=0.2, lw=0.7)
    ax.fill_between(x, low, high, color=color, alpha=0.3, lw=0)
    ax.plot(x, curves.mean(axis=0), color=color, lw=2, label=label)
    if label:
        ax.legend(loc="lower right")
    return ax.figure


def share_interval(successes: int, trials: int) -> tuple[float, float]:
    """Return Wilson's 95 % interval for a share, such as of seeds that reach 180.

    Source: E. B. Wilson, Probable Inference, the Law of Succession, and Statistical Inference, JASA 22 (1927).
    """
    _require_counts(trials=trials)
    _require(0 <= successes <= trials, f"{successes} successes in {trials} trials; give 0 to {trials}")
    z, share = 1.96, successes / trials
    center = (share + z**2 / (2 * trials)) / (1 + z**2 / trials)
    half_width = z * math.sqrt(share * (1 - share) / trials + z**2 / (4 * trials**2)) / (1 + z**2 / trials)
    return max(0.0, center - half_width), min(1.0, center + half_width)


class LiveCurve:
    """A learning curve and progress bar that follow a training; hand it to train or train_seeds as after_epoch.

    It keeps what it was last given, so that model and mean_returns survive an interrupted training.
    """

    def __init__(self, epochs: int, goal: float = 180, best: float = 200):
        _require_counts(epochs=epochs)
        self.epochs, self.goal, self.best = epochs, goal, best
        self.model, self.mean_returns, self.shown, self.next_redraw = None, [], None, -math.inf

    def __call__(self, model: nn.Module | list[nn.Module], mean_returns: Sequence[float] | np.ndarray):
        """Take in an epoch and redraw, four times a second at most; mean_returns (epochs,) or (seeds, epochs)."""
        self.model, self.mean_returns = model, mean_returns
        done = np.shape(mean_returns)[-1] == self.epochs
        if not done and time.monotonic() < self.next_redraw:
            return
        self.next_redraw = time.monotonic() + REDRAW_SECONDS
        # What stays on the page is a PNG: viewers that run no kernel drop live HTML.
        view = self.draw() if done else self
        if self.shown is None:
            self.shown = display(view, display_id=True)
        else:
            self.shown.update(view)

    def draw(self) -> Picture:
        """Draw what was last given as a figure that stays: every curve, their mean, and the goal dashed."""
        curves = np.atleast_2d(self.mean_returns)
        epochs, mean = np.arange(1, curves.shape[1] + 1), curves.mean(axis=0)
        picture = Picture("Learning curve: the mean return of every epoch, the goal dashed.", 5.5, 2.6)
        ax = picture.add_subplot()
        plot_curves(epochs, curves, mean, mean, "mean over seeds" if len(curves) > 1 else "", BLUE, ax)
        ax.axhline(self.goal, color="black", ls="--", lw=0.8)
        ax.set(xlabel="epoch", ylabel="mean return", ylim=(0, 1.03 * self.best))
        # Margins by hand take half the time of a constrained layout, and a training of a second waits for it.
        picture.set_layout_engine(None)
        picture.subplots_adjust(left=0.12, right=0.98, bottom=0.19, top=0.97)
        return picture

    def __repr__(self):
        return "Live learning curve: the mean return of every epoch."

    def _repr_html_(self):
        curves = np.atleast_2d(self.mean_returns)
        done = curves.shape[1]
        x = 60 + 380 * np.arange(1, done + 1) / self.epochs
        faint = [_draw_line(x, self._height(curve), 'stroke-width="1" opacity="0.5"') for curve in curves]
        strong = _draw_line(x, self._height(curves.mean(axis=0)), 'stroke-width="2"')
        ticks = "".join(
            f'<text x="54" y="{self._height(value) + 4:.0f}" text-anchor="end">{value:g}</text>'
            for value in (0, self.best / 2, self.best)
        )
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" width="460" height="200" role="img" aria-label="{self!r}" '
            f'fill="currentColor" font-size="12" font-family="sans-serif">'
            f'<path d="M60 10V150H440" fill="none" stroke="currentColor"/>{ticks}'
            f'<text transform="translate(16 80) rotate(-90)" text-anchor="middle">mean return</text>'
            f'<path d="M60 {self._height(self.goal):.0f}H440" stroke="currentColor" stroke-dasharray="4"/>'
            f"{''.join(faint) if len(curves) > 1 else ''}{strong}"
            f'<text x="60" y="166">0</text><text x="440" y="166" text-anchor="end">{self.epochs}</text>'
            f'<text x="250" y="166" text-anchor="middle">epoch</text>'
            f'<path d="M60 174H{60 + 380 * done / self.epochs:.0f}" stroke="currentColor" stroke-width="3"/>'
            f'<text x="60" y="194">epoch {done} of {self.epochs}, mean return {curves[:, -1].mean():.0f}; '
            f"dashed: {self.goal:g}</text></svg>"
        )

    def _height(self, value):
        return 150 - 140 * np.asarray(value) / self.best


def _draw_line(x, y, style):
    points = " ".join(f"{a:.0f},{b:.0f}" for a, b in zip(x, y, strict=True))
    return f'<polyline points="{points}" fill="none" stroke="{BLUE}" {style}/>'


# ----------------------------------------------------------------------------------------------------------
# 4. Interaction: plain HTML and ipywidgets' own sliders (7.7 or newer); no cell waits for anybody's hand.
# ----------------------------------------------------------------------------------------------------------


class Page(NamedTuple):
    """HTML with a script, and the sentence that stands for it where no script may run."""

    html: str
    description: str

    def __repr__(self):
        return self.description

    def _repr_html_(self):
        return self.html


def draw_bars(
    values: Sequence[float],
    names: Sequence[str] = ("left", "right"),
    marks: Sequence[float] | None = None,
    intervals: Sequence[tuple[float, float]] | None = None,
    said: str = "",
) -> str:
    """Return bars for values from 0 to 1 as an SVG string, quick enough to follow a slider.

    marks draws a dashed line over each bar, intervals a (low, high) whisker; said is a sentence below.
    """
    colors = (BLUE, VERMILLION, GREEN)
    _require(
        len(names) == len(values) <= len(colors),
        f"{len(values)} values and {len(names)} names; give one name per value, {len(colors)} at most",
    )
    height = lambda value: 130 - 110 * min(max(float(value), 0.0), 1.0)  # noqa: E731
    parts = []
    for place, (name, value) in enumerate(zip(names, values, strict=True)):
        x, y = 40 + 110 * place, height(value)
        parts.append(f'<rect x="{x}" y="{y:.1f}" width="70" height="{130 - y:.1f}" fill="{colors[place]}"/>')
        parts.append(f'<text x="{x + 35}" y="146" text-anchor="middle">{name}: {value:.3f}</text>')
        if marks is not None:
            y = height(marks[place])
            parts.append(
                f'<path d="M{x - 8} {y:.1f}h86" stroke="currentColor" stroke-width="2" stroke-dasharray="5 3"/>'
            )
        if intervals is not None:
            low, high = (height(bound) for bound in intervals[place])
            parts.append(f'<path d="M{x + 35} {low:.1f}V{high:.1f}" stroke="currentColor" stroke-width="3"/>')
    described = "; ".join(f"{name} {value:.3f}" for name, value in zip(names, values, strict=True))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 520 172" width="520" height="172" role="img" '
        f'aria-label="Bars: {described}. {said}" fill="currentColor" font-size="13" font-family="sans-serif">'
        f'<path d="M30 20V130H{40 + 110 * len(values)}" fill="none" stroke="currentColor"/>'
        f'<text x="26" y="24" text-anchor="end">1</text><text x="26" y="134" text-anchor="end">0</text>'
        f'{"".join(parts)}<text x="30" y="166">{said}</text></svg>'
    )


def draw_cart(observation: Sequence[float], said: str = "") -> str:
    """Return the cart, its pole and its track, of one observation, as an SVG string; said is a sentence below."""
    position, _, angle, _ = (float(number) for number in observation)
    scale, ground, x = 90, 128, 260 + 90 * position
    end = TRACK_END * scale
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 520 158" width="520" height="158" role="img" '
        f'aria-label="Cart at {position:.2f} m, pole at {math.degrees(angle):.1f} degrees. {said}" '
        f'fill="currentColor" font-size="13" font-family="sans-serif">'
        f'<path d="M{260 - end:.0f} {ground - 10}v10h{2 * end:.0f}v-10" fill="none" stroke="currentColor"/>'
        f'<rect x="{x - 22:.1f}" y="{ground - 18}" width="44" height="18" fill="{BLUE}"/>'
        f'<path d="M{x:.1f} {ground - 18}l{scale * math.sin(angle):.1f} {-scale * math.cos(angle):.1f}" '
        f'stroke="{VERMILLION}" stroke-width="7"/><text x="30" y="152">{said}</text></svg>'
    )


def slide(draw: Callable[..., str | Picture], live: bool = True, play: str = "", **controls):
    """Show draw(**values), an SVG string or a Picture, under one control per keyword; redraw when one moves.

    A control is (low, high, start), a slider of numbers, whole ones where all three are; or a list of choices,
    of which the first is the start; or a pair of such a list and another start.
    With live=False it redraws when a control is let go: for drawings that take longer than a blink. play names a
    control of whole numbers that gets buttons to play and pause, ten values a second.
    """
    rows, inputs = [], {}
    for name, control in controls.items():
        label = name.replace("_", " ")
        wide = {"description": label, "style": {"description_width": "130px"}, "layout": {"width": "520px"}}
        wide["continuous_update"] = live
        if isinstance(control, list):
            control = control, control[0]
        if isinstance(control[0], list):
            inputs[name] = widgets.SelectionSlider(options=control[0], value=control[1], **wide)
        else:
            low, high, start = control
            whole = all(isinstance(number, int) for number in control)
            kind, step = (widgets.IntSlider, 1) if whole else (widgets.FloatSlider, (high - low) / 100)
            if step < 0.01:
                wide["readout_format"] = ".3f"
            inputs[name] = kind(min=low, max=high, value=start, step=step, **wide)
        rows.append(inputs[name])
        if name == play:
            player = widgets.Play(min=low, max=high, value=start, interval=100)
            widgets.jslink((player, "value"), (inputs[name], "value"))
            rows[-1] = widgets.HBox([player, inputs[name]])
    view, status = widgets.HTML(), widgets.Label()

    def redraw(change=None):
        status.value = "" if live else "drawing ..."
        drawn = draw(**{name: control.value for name, control in inputs.items()})
        view.value = drawn if isinstance(drawn, str) else drawn.to_html()
        status.value = ""

    for control in inputs.values():
        control.observe(redraw, "value")
    redraw()
    return widgets.VBox([*rows, view] if live else [*rows, status, view])


def drive_cart() -> Page:
    """Return a CartPole to drive by hand: arrow keys, touch or buttons; it runs in the page, without the kernel.

    The physics is Gymnasium's, step by step (Euler's method, 0.02 s, 10 N, episodes of 200 steps). Between keys
    the pushes alternate, since CartPole has no action that does nothing.
    """
    return Page(_DRIVE_CART, "Drive the cart by hand: this needs a live notebook; the animation below shows a driver.")


_DRIVE_CART = """
<div class="vpg-drive" data-lm-suppress-shortcuts="true" tabindex="0" role="application" style="padding:6px"
     aria-label="Drive the cart: the left and right arrow keys push it, Enter starts a new episode">
  <p>Run this cell, and here you drive the cart with the arrow keys or two buttons.</p>
</div>
<script>
for (const root of document.querySelectorAll(".vpg-drive:not([data-ready])")) {
  root.dataset.ready = "true";
  root.innerHTML = `
    <canvas width="600" height="170" style="max-width:100%" role="img" aria-label="The cart and its pole"></canvas>
    <div><button data-push="0">&#9664; push left</button> <button data-push="1">push right &#9654;</button>
    <button data-new>new episode</button> <label>speed <select><option value="1">real time</option>
    <option value="0.5">half</option><option value="0.25">quarter</option></select></label></div>
    <div data-numbers style="font-family:monospace;white-space:pre-wrap"></div>
    <div data-said role="status" style="min-height:1.5em"></div>`;
  const find = name => root.querySelector(name), pen = find("canvas").getContext("2d");
  let state, steps, best = 0, push, playing, clock, behind, frames = 0;

  const step = ([x, v, angle, w], action) => {
    const sin = Math.sin(angle), cos = Math.cos(angle), force = action ? 10 : -10;
    const pull = (force + 0.05 * w * w * sin) / 1.1;
    const turn = (9.8 * sin - cos * pull) / (0.5 * (4 / 3 - 0.1 * cos * cos / 1.1));
    return [x + 0.02 * v, v + 0.02 * (pull - 0.05 * turn * cos / 1.1), angle + 0.02 * w, w + 0.02 * turn];
  };
  const ended = ([x, , angle], count) =>
    Math.abs(angle) > Math.PI / 15 ? "The pole fell: more than 12 degrees." :
    Math.abs(x) > 2.4 ? "The cart left the track: more than 2.4 m." :
    count >= 200 ? "Time: 200 steps, the most there is." : "";

  const draw = () => {
    const [x, v, angle, w] = state, scale = 115, ground = 155, center = 300 + x * scale;
    pen.clearRect(0, 0, 600, 170);
    pen.strokeStyle = getComputedStyle(root).color;
    pen.lineWidth = 1;
    pen.strokeRect(300 - 2.4 * scale, ground, 4.8 * scale, 0.5);
    for (const end of [-2.4, 2.4]) pen.strokeRect(300 + end * scale, ground - 12, 0.5, 12);
    pen.fillStyle = "#0072B2";
    pen.fillRect(center - 29, ground - 23, 58, 23);
    pen.strokeStyle = "#D55E00";
    pen.lineWidth = 9;
    pen.beginPath();
    pen.moveTo(center, ground - 23);
    pen.lineTo(center + Math.sin(angle) * scale, ground - 23 - Math.cos(angle) * scale);
    pen.stroke();
    const number = (value, digits) => (value < 0 ? "" : "+") + value.toFixed(digits);
    find("[data-numbers]").textContent =
      `x ${number(x, 2)} m   velocity ${number(v, 2)} m/s   angle ${number(angle * 180 / Math.PI, 1)}\u00b0   ` +
      `angular velocity ${number(w, 2)} rad/s\nreturn ${steps}   best ${best}`;
  };
  const tick = now => {
    if (!root.isConnected || !playing) return;
    behind = Math.min(behind + (now - clock) * find("select").value, 200);
    clock = now;
    for (; behind >= 20 && playing; behind -= 20) {
      state = step(state, push ?? steps % 2);
      best = Math.max(best, ++steps);
      const why = ended(state, steps);
      if (why) { playing = false; find("[data-said]").textContent = `${why} Return ${steps}. Enter: again.`; }
    }
    frames++;
    draw();
    if (playing) requestAnimationFrame(tick);
  };
  const start = () => {
    state = Array.from({length: 4}, () => 0.1 * Math.random() - 0.05);
    [steps, push, playing, behind] = [0, null, false, 0];
    invite();
    draw();
  };
  const invite = () => {
    if (playing || steps) return;
    find("[data-said]").textContent = root.contains(document.activeElement) ?
      "Press an arrow key to begin." : "Click the picture and press an arrow key to begin, or use the buttons.";
  };
  const begin = side => {
    if (!playing && ended(state, steps)) return;
    push = side;
    if (playing) return;
    [playing, clock] = [true, performance.now()];
    find("[data-said]").textContent = "";
    requestAnimationFrame(tick);
  };
  const keys = {ArrowLeft: 0, ArrowRight: 1};
  root.addEventListener("keydown", event => {
    if (event.key in keys) begin(keys[event.key]);
    else if (event.key === "Enter" && event.target === root) start();
    else return;
    event.preventDefault();
    event.stopPropagation();
  });
  root.addEventListener("keyup", event => { if (push === keys[event.key]) push = null; });
  for (const button of root.querySelectorAll("[data-push]")) {
    button.addEventListener("pointerdown", event => {
      begin(Number(button.dataset.push));
      event.preventDefault();  // the keys, Enter for one, stay with the cart
      root.focus();
    });
    for (const end of ["pointerup", "pointerleave", "pointercancel"])
      button.addEventListener(end, () => { push = null; });
  }
  find("[data-new]").addEventListener("click", () => { start(); root.focus(); });
  find("select").addEventListener("change", () => root.focus());
  for (const turn of ["focusin", "focusout"]) root.addEventListener(turn, () => setTimeout(invite));
  root.cartpole = {step, ended, frames: () => frames, state: () => ({state, steps, best, push, playing})};
  start();
}
</script>
"""


# ----------------------------------------------------------------------------------------------------------
# 5. Exercises: a verdict in one plain line, and a file in which the learner's own functions are kept.
# ----------------------------------------------------------------------------------------------------------

SIX_FUNCTIONS = ("create_model", "get_policy", "get_action", "calculate_loss", "train_one_epoch", "train")
LEARNERS_FILE = Path("my_agent.py")  # beside the notebook, which is where its kernel works
_HEADER = '''"""My own agent: the exercise notebooks write each of the six functions here once it has passed its checks.

What you change here is used as it is and not checked again. The version before is in my_agent.previous.py; to begin
anew, delete both. Once all six are here, `python my_agent.py` trains the agent.
"""

import copy
import math
import time
from collections.abc import Callable

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor, nn
from torch.distributions import Categorical
'''
_PROGRAM = """if __name__ == "__main__":
    train(epochs=80, after_epoch=lambda model, mean_returns: print(len(mean_returns), round(mean_returns[-1], 1)))
"""
_passed: dict[Callable, set[str]] = {}  # which claims a function was seen to keep
_interrupted: set[Callable] = set()  # functions that somebody, or a grader's time-out, had to stop
_references: set[Callable] = set()  # functions that go_on put in the place of a learner's
_REMARKS = {  # what an error message is often about
    "None": "a function without a return gives None",
    "mat1 and mat2": "a layer takes as many numbers as the layer before it gives",
    "match the size of tensor": "one weight for each step; does a list live on from episode to episode?",
    "unsized object": "np.stack joins a list of arrays of shape ()",
    "element tensor": "functions of math take one number; torch has them for tensors",
}


class CheckFailed(AssertionError):  # noqa: N818
    """A verdict: what was expected, what was got. A notebook shows this line instead of a traceback."""

    def _render_traceback_(self):
        return [f"{type(self).__name__}: {self}"]


class NotWrittenYet(CheckFailed):
    """The exercise is still blank."""


@contextlib.contextmanager
def checking(exercise: Callable, claim: str = "does what it should"):
    """Run assertions about an exercise; say that it keeps the claim, or raise CheckFailed with one plain line.

    A function that still raises NotImplementedError is NotWrittenYet. One that had to be interrupted is not run
    again: an endless loop takes a grader one time-out, and not one for every check.
    """
    name = getattr(exercise, "__name__", "the exercise")
    stopped = f"{name}: it was interrupted before; does its loop end? Run its cell again to try again"
    _require(exercise not in _interrupted, stopped, CheckFailed)
    put_there = f"{name}: not written yet; this is the reference. Run your own cell, then this check"
    _require(exercise not in _references, put_there, NotWrittenYet)
    older = f"{name}: the cell that you ran last did not define it, so this is an older version; what did it say?"
    _require(not _is_older(exercise, name), older, CheckFailed)
    claims = _passed.setdefault(exercise, set())
    claims.discard(claim)
    try:
        yield
    except KeyboardInterrupt:
        _interrupted.add(exercise)
        raise
    except NotImplementedError:
        raise NotWrittenYet(f"{name}: not written yet") from None
    except AssertionError as error:
        raise CheckFailed(f"{name}: {_remark(str(error))}") from None
    except Exception as error:
        raise CheckFailed(f"{name}: {_locate(error, exercise)}") from None
    claims.add(claim)
    print(name, claim)


def _is_older(exercise, name):
    """Tell whether a notebook's last cell with this function failed, and left an earlier one in force."""
    shell, code = get_ipython(), getattr(exercise, "__code__", None)
    cells = shell.user_ns.get("In", []) if shell and code else []
    written = [cell.strip() for cell in cells if re.search(rf"^def {name}\b", cell, flags=re.M)]
    return bool(written) and "".join(linecache.getlines(code.co_filename)).strip() != written[-1]


def _remark(said):
    remarks = [remark for part, remark in _REMARKS.items() if part in said]
    return f"{said} ({'; '.join(remarks)})" if remarks else said


def _locate(error, exercise):
    """Say which error came up, and on which line of the learner's cell, if it was there."""
    said = _remark(f"{type(error).__name__}: {error}".partition("\n")[0])
    cell = getattr(getattr(exercise, "__code__", None), "co_filename", None)
    lines = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == cell]
    if lines:
        return f"line {lines[-1].lineno} of its cell, `{lines[-1].line}`, raises {said}"
    return f"what it returns cannot be used: {said}"


def judge(name: str, answer: object, sealed: str):
    """Say whether the answer to a question is right, and why; raise CheckFailed where it is not.

    sealed holds the right choice and a sentence for every choice, in base64: out of sight, and not a secret.
    """
    question = json.loads(_unseal(sealed))
    squeeze = lambda text: re.sub(r"\s", "", text.lower())  # noqa: E731
    choices = ", ".join(f'"{choice}"' for choice in question["choices"])
    chosen = {squeeze(choice): choice for choice in question["choices"]}.get(squeeze(str(answer)))
    if answer is ...:
        raise NotWrittenYet(f"{name}: not written yet; put one of {choices} in place of the dots")
    _require(chosen is not None, f"{name}: got {answer!r}; write one of {choices}", CheckFailed)
    sentence = question["choices"][chosen]
    _require(chosen == question["answer"], f'{name}: not "{chosen}". {sentence}', CheckFailed)
    print("Right.", sentence)


def _unseal(sealed):
    return base64.b64decode(sealed).decode()


def go_on(name: str, namespace: dict, sealed_reference: str, claims: int = 1):
    """Go on with the learner's function, and keep it, if it passed its checks; with the reference if not.

    namespace is the notebook's globals(), claims the number of checks that the exercise has.
    """
    function = namespace.get(name)
    if len(_passed.get(function, ())) == claims:
        print(f"{name}: yours from here on.", keep(name, function) if name in SIX_FUNCTIONS else "")
    else:
        exec(_unseal(sealed_reference), namespace)
        _references.add(namespace[name])
        print(f"{name}: the reference from here on. Once yours passes its check, run this cell again.")


def keep(name: str, function: Callable) -> str:
    """Write one of the six functions, with what else its cell defines, to LEARNERS_FILE; return what was done.

    The file is replaced in one move, and the version before stays beside it as my_agent.previous.py. A function
    that leans on another cell would not work there: it is not written, and the returned sentence says so.
    """
    header, sections = _read_learners_file()
    try:
        sections[name] = _definitions(name, function)
        _refuse_unknown_names(name, header, sections)
    except ValueError as error:
        return f"Not kept: {error}."
    parts = [header, *(f"\n# ---- {each} ----\n\n{sections[each]}" for each in SIX_FUNCTIONS if each in sections)]
    if all(each in sections for each in SIX_FUNCTIONS):
        parts.append(f"\n# ---- program ----\n\n{sections.get('program', _PROGRAM)}")
    text, before = "".join(parts), LEARNERS_FILE.read_text(encoding="utf-8") if LEARNERS_FILE.exists() else None
    if text != before:
        if before is not None:
            _replace(LEARNERS_FILE.with_suffix(".previous.py"), before)
        _replace(LEARNERS_FILE, text)
    return f"Kept in {LEARNERS_FILE}."


def _replace(path, text):
    new = path.with_suffix(".new")
    new.write_text(text, encoding="utf-8")
    os.replace(new, path)


def _definitions(name, function):
    """Return the part of a function's cell that defines something: imports, functions, classes, what they use."""
    code = getattr(inspect.unwrap(function), "__code__", None)
    lines = linecache.getlines(code.co_filename) if code else []
    tree = ast.parse("".join(lines))
    named = {name} | {node.id for part in tree.body if _defines(part) for node in ast.walk(part) if _is_name(node)}
    kept = []
    for part in tree.body:
        targets = {node.id for node in ast.walk(part) if _is_name(node) and isinstance(node.ctx, ast.Store)}
        if _defines(part) or (isinstance(part, (ast.Assign, ast.AnnAssign)) and targets & named):
            first = min([part.lineno, *(decorator.lineno for decorator in getattr(part, "decorator_list", []))])
            kept.append("".join(lines[first - 1 : part.end_lineno]).rstrip() + "\n")
    _require(bool(kept), f"{name} was not defined in a notebook cell")
    return "\n".join(kept)


def _defines(part):
    return isinstance(part, (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.ClassDef))


def _is_name(node):
    return isinstance(node, ast.Name)


def _refuse_unknown_names(name, header, sections):
    """Refuse a section that uses what the file does not define, or that would redefine what another one uses."""
    imported = {"__name__": LEARNERS_FILE.stem}
    try:
        exec(header, imported)
        namespace = dict(imported)
        for each in SIX_FUNCTIONS:
            own = dict(imported)
            exec(sections.get(each, ""), own)
            new = {key: own[key] for key in own.keys() - imported.keys()}
            both = [key for key in new if namespace.get(key, new[key]) is not new[key]]
            _require(not both, f"{name}'s cell and another one both define {', '.join(both)}; rename one")
            namespace.update(new)
    except NameError as error:
        raise ValueError(f"{error}: import or define it in the cell of {name}") from None
    used = _global_names(compile(sections[name], name, "exec"))
    missing = sorted(used - set(namespace) - set(dir(builtins)) - set(SIX_FUNCTIONS))
    _require("vpg" not in missing, f"{name} calls functions of vpg; write get_policy, say, and not vpg.get_policy")
    _require(not missing, f"{name} uses {', '.join(missing)} of another cell; define it in the cell of {name}")


def _global_names(code):
    loads = {"LOAD_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS"}
    instructions = list(dis.get_instructions(code))
    names = {each.argval for each in instructions if each.opname in loads}
    names -= {each.argval for each in instructions if each.opname == "STORE_NAME"}
    return names.union(*(_global_names(const) for const in code.co_consts if isinstance(const, types.CodeType)))


def _read_learners_file():
    """Return the header and the sections, {name: source}, of the learner's file; set a broken one aside."""
    if not LEARNERS_FILE.exists():
        return _HEADER, {}
    text = LEARNERS_FILE.read_text(encoding="utf-8", errors="replace")
    try:
        exec(compile(text, str(LEARNERS_FILE), "exec"), {"__name__": LEARNERS_FILE.stem})
    except Exception as error:
        numbers = itertools.count(1)
        aside = next(path for n in numbers if not (path := LEARNERS_FILE.with_suffix(f".broken-{n}.py")).exists())
        os.replace(LEARNERS_FILE, aside)
        print(
            f"{LEARNERS_FILE} does not run ({type(error).__name__}: {error}). It is now {aside}; nothing is lost: "
            f"run your cells and their checks again, or mend it and copy its functions into a new {LEARNERS_FILE}."
        )
        return _HEADER, {}
    header, *rest = re.split(r"^\n# ---- (\w+) ----\n\n", text, flags=re.M)
    return header, dict(zip(rest[::2], rest[1::2], strict=True))


def with_my_functions(*names: str):
    """Return a module like this one in which the functions named are the learner's own, where the file has them.

    Whatever else the module holds, train_seeds say, calls the learner's functions too, and theirs call each other.
    """
    specification = importlib.util.spec_from_file_location("vpg_with_my_functions", __file__)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    _, sections = _read_learners_file()
    mine = [name for name in names if name in sections]
    # A namespace apart for the learner's cells, so that a helper of theirs may have any name.
    own = {name: getattr(module, name) for name in SIX_FUNCTIONS} | {"__name__": LEARNERS_FILE.stem}
    if mine:
        exec(compile(LEARNERS_FILE.read_text(encoding="utf-8"), str(LEARNERS_FILE), "exec"), own)
    for name in mine:
        setattr(module, name, own[name])
    others = ", ".join(name for name in names if name not in mine)
    print(f"Yours: {', '.join(mine) or 'none'}. The reference: {others or 'none'}.")
    return module


def main(arguments: Sequence[str] | None = None):
    """Train one agent with the plain loop and print a line an epoch."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--max-timesteps", type=int, default=5_000, help="steps an epoch, at least")
    parser.add_argument("--seed", type=int, default=0)
    settings = parser.parse_args(arguments)

    def print_epoch(model, mean_returns):
        print(f"epoch {len(mean_returns):2d}   mean return {mean_returns[-1]:6.2f}", flush=True)

    train(settings.epochs, settings.max_timesteps, seed=settings.seed, after_epoch=print_epoch)


if __name__ == "__main__":
    main()
