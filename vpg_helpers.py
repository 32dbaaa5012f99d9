"""Vanilla Policy Gradient on CartPole: the six functions of the lessons, then the same on many poles and many seeds.

`python vpg_helpers.py` trains one agent and prints a line an epoch.
"""

import argparse
import copy
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor, nn
from torch.distributions import Categorical, Distribution

# For the whole process: ten epochs of 32 seeds took 2 s with one thread, 33 s with two on two cores, one of them busy.
torch.set_num_threads(1)

# ---- 1. The six functions, as lessons 1 to 5 build them; a first line that refuses bad input is all they have on top


def create_model(number_observation_features: int, number_actions: int, hidden_units: int = 32) -> nn.Module:
    """Build the network that turns observations into logits, one logit per action.

    Observations have shape (..., number_observation_features), logits (..., number_actions).

    Raises ValueError for sizes that are not whole numbers of 1 or more.
    """
    _refuse_bad_counts(
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


def _is_whole(number, low, high):
    return isinstance(number, (int, np.integer)) and not isinstance(number, bool) and low <= number < high


def _refuse_bad_counts(**counts):
    for name, count in counts.items():
        if not _is_whole(count, 1, math.inf):
            raise ValueError(f"{name} is {count!r}; give a whole number, 1 or more")


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
    _refuse_bad_counts(max_timesteps=max_timesteps)
    observations, actions = env.observation_space, env.action_space
    if not isinstance(observations, gym.spaces.Box) or len(observations.shape) != 1:
        raise ValueError(f"the environment's observations are {observations}; expected a Box, a flat vector")
    if not isinstance(actions, gym.spaces.Discrete) or actions.start != 0:
        raise ValueError(f"the environment's actions are {actions}; expected Discrete actions, counted from 0")


def _refuse_bad_run(epochs, max_timesteps, learning_rate, seeds):
    _refuse_bad_counts(epochs=epochs, max_timesteps=max_timesteps)
    if not 0 < learning_rate < math.inf:
        raise ValueError(f"learning_rate is {learning_rate!r}; give a finite number above 0, such as 0.01")
    for seed in seeds:
        if not _is_whole(seed, 0, 2**31):
            raise ValueError(f"the seed is {seed!r}; give a whole number from 0 to {2**31 - 1}")


# ---- 2. Batches: the same algorithm on many poles at once, for one seed or for many side by side --------------------
# Physics stays Gymnasium's, the gradient PyTorch's; only the forward pass for sampling is NumPy.

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


def take_gradient_step(
    model: nn.Module, optimizer: torch.optim.Optimizer, episodes: Episodes, weigh: Recipe = whole_return
):
    """Take the gradient step that train_one_epoch takes, on episodes that were collected before.

    Raises ValueError where weigh does not give one finite weight per step, or the model's logits are not finite.
    """
    weights = np.asarray(weigh(episodes), dtype=np.float32)
    _refuse_bad_weights(weights, episodes)
    # Validation would cost a fifth of the step, to find nan in logits; the loss shows it too.
    Distribution.set_default_validate_args(False)
    try:
        log_probabilities = get_policy(model, episodes.observations).log_prob(torch.as_tensor(episodes.actions))
    finally:
        Distribution.set_default_validate_args(__debug__)  # PyTorch's own default
    loss = calculate_loss(log_probabilities, torch.as_tensor(weights))
    if not torch.isfinite(loss):
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
    _refuse_bad_counts(number_of_seeds=len(seeds), number_of_environments=number_of_environments)
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


def share_interval(successes: int, trials: int) -> tuple[float, float]:
    """Return Wilson's 95 % interval for a share, such as of seeds that reach 180.

    Raises ValueError where trials is below 1, or successes is no whole number from 0 to trials.
    Source: E. B. Wilson, Probable Inference, the Law of Succession, and Statistical Inference, JASA 22 (1927).
    """
    _refuse_bad_counts(trials=trials)
    if not _is_whole(successes, 0, trials + 1):
        raise ValueError(f"{successes} successes in {trials} trials; give a count, 0 to {trials}")
    z, share = 1.96, successes / trials
    center, spread = share + z**2 / (2 * trials), z * math.sqrt(share * (1 - share) / trials + (z / (2 * trials)) ** 2)
    return max(0.0, (center - spread) / (1 + z**2 / trials)), min(1.0, (center + spread) / (1 + z**2 / trials))


def _create_seeded_model(seed, hidden_units):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return create_model(4, 2, hidden_units)


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


def _refuse_bad_weights(weights, episodes):
    if weights.shape != episodes.rewards.shape or not np.isfinite(weights).all():
        raise ValueError(
            f"the recipe gave weights of shape {weights.shape}, {np.isfinite(weights).sum()} of them finite; "
            f"give one finite weight for each of {len(episodes.rewards)} steps"
        )


def _refuse_bad_batch(env, models, generators, max_timesteps):
    _refuse_bad_counts(max_timesteps=max_timesteps, number_of_models=len(models))
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


# ---- 3. The small world of lesson 4: all that can happen there can be listed -----------------------------------------

# A pole that is upright (state 0), leaning (1) or fallen (2), to which an action waits (0) or pushes (1).
START = np.array([0.8, 0.2])  # chances to start upright, leaning
DYNAMICS = np.array(  # DYNAMICS[state, action, next state]
    [[[0.7, 0.3, 0.0], [0.3, 0.6, 0.1]], [[0.0, 0.4, 0.6], [0.6, 0.2, 0.2]]]
)


def list_trajectories(steps: int = 4) -> tuple[list[list[tuple[int, int, int]]], np.ndarray]:
    """List every trajectory of the small world, and how likely start and next states make it.

    A trajectory is a list of (state, action, next state), over after a fall or these many steps. The chances have
    shape (trajectories,); times the policy's probabilities of the actions taken, they are those of the trajectories.

    Raises ValueError for steps that are not a whole number of 1 or more.
    """
    _refuse_bad_counts(steps=steps)
    trajectories = _continue_from(0, steps) + _continue_from(1, steps)
    chances = [START[each[0][0]] * math.prod(DYNAMICS[step] for step in each) for each in trajectories]
    return trajectories, np.array(chances)


def _continue_from(state, steps_left):
    if state == 2 or steps_left == 0:
        return [[]]
    return [
        [(state, action, next_state), *rest]
        for action, next_state in np.argwhere(DYNAMICS[state] > 0).tolist()
        for rest in _continue_from(next_state, steps_left - 1)
    ]


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
