"""Lesson 10's patients: one sound program in pieces, and for every bug the piece that stands in a sound one's place.

The program: reward-to-go minus a fitted value, centered on the batch, and one Adam step of the policy a batch. It only
trains; what its instruments read is in an Epoch, and the instruments stand in the lesson.
"""

import copy
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

import vpg_helpers as vpg

UNIT = 50  # steps, in which the critic counts
POLES, STEPS = 8, 500  # of every patient, in an epoch

# ---- The sound pieces ------------------------------------------------------------------------------------------------


def note(model, episodes):
    """Return the log-probability that a model gives to each action of a record, (steps,)."""
    with torch.no_grad():
        policy = vpg.get_policy(model, episodes.observations)
        return policy.log_prob(torch.as_tensor(episodes.actions))


def record(model, episodes):
    return episodes, note(model, episodes)


def center(advantages, episodes):
    return advantages - advantages.mean()


def policy_loss(policy, actions, weights, noted):
    return vpg.calculate_loss(policy.log_prob(actions), weights)


def value_loss(values, targets):
    return (values[:, 0] - targets).square().mean()


class Recipe(NamedTuple):
    """What stands in each place of the program; what is not given is sound."""

    build: Callable = vpg.create_model  # (features, actions) -> model
    play: Callable = lambda model: model  # the model that plays
    record: Callable = record  # (model, what was played) -> what is learned from, and its log-probabilities in play
    choose: Callable = lambda batches: batches[-1]  # which batch to learn from
    weigh: Callable = vpg.rewards_to_go  # episodes -> what the critic is to foresee
    finish: Callable = center  # (advantages, episodes) -> weights
    policy_loss: Callable = policy_loss  # (policy, actions, weights, log-probabilities in play) -> loss
    value_loss: Callable = value_loss  # (values, targets) -> loss
    clear: Callable = torch.optim.Adam.zero_grad  # what is done with the optimizer before a gradient is computed
    owner: Callable = lambda model: model  # whose parameters the optimizer holds
    seed_of: Callable = lambda seed, epoch: (seed, epoch)  # of an epoch's starts and dice
    gradient_steps: int = 1
    learning_rate: float = 2e-2


sound = Recipe()

# ---- The thirteen bugs -----------------------------------------------------------------------------------------------


def late_observation(model, episodes):
    pairs = zip(episodes.split(episodes.observations), episodes.last_observations, strict=True)
    late = np.concatenate([np.vstack([seen[1:], last]) for seen, last in pairs])
    return episodes._replace(observations=late), note(model, episodes)


def sampled_twice(model, episodes):
    again, _ = vpg.get_action(vpg.get_policy(model, episodes.observations))
    return episodes._replace(actions=again), note(model, episodes)


def across_borders(episodes):
    return np.cumsum(episodes.rewards[::-1])[::-1]


def no_minus(policy, actions, weights, noted):
    return -policy_loss(policy, actions, weights, noted)


def n_by_n_policy_loss(policy, actions, weights, noted):
    return -(policy.log_prob(actions)[:, np.newaxis] * weights).mean()


def n_by_n_value_loss(values, targets):
    return (values - targets).square().mean()


def softmax_twice(features, actions):
    return nn.Sequential(*vpg.create_model(features, actions), nn.Softmax(dim=-1))


def thousandfold(features, actions):
    scale = nn.Linear(features, features, bias=False).requires_grad_(False)
    nn.init.eye_(scale.weight).mul_(1_000)
    return nn.Sequential(scale, *vpg.create_model(features, actions))


def play_the_argmax(model):
    sure = copy.deepcopy(model)
    for parameter in sure[-1].parameters():
        parameter.data *= 1e6
    return sure


def never_clear(optimizer):
    pass


def first_batch(batches):
    return batches[0]


RECIPES = {
    "healthy": sound,
    "slow": sound._replace(learning_rate=5e-4),
    "no minus": sound._replace(policy_loss=no_minus),
    "late observation": sound._replace(record=late_observation),
    "sampled twice": sound._replace(record=sampled_twice),
    "across borders": sound._replace(weigh=across_borders),
    "N by N policy loss": sound._replace(policy_loss=n_by_n_policy_loss),
    "N by N value loss": sound._replace(value_loss=n_by_n_value_loss),
    "softmax twice": sound._replace(build=softmax_twice),
    "inputs times 1000": sound._replace(build=thousandfold),
    "plays the argmax": sound._replace(play=play_the_argmax),
    "optimizer of a copy": sound._replace(owner=copy.deepcopy),
    "no zero_grad": sound._replace(clear=never_clear),
    "ten steps a batch": sound._replace(gradient_steps=10),
    "one batch for ever": sound._replace(choose=first_batch),
}

# ---- Bugs that only a test can find ----------------------------------------------------------------------------------


def with_reset_steps(model, episodes):
    ends, last = np.cumsum(episodes.lengths), episodes.last_observations
    drawn, _ = vpg.get_action(vpg.get_policy(model, last))
    longer = episodes._replace(
        observations=np.insert(episodes.observations, ends, last, axis=0),
        actions=np.insert(episodes.actions, ends, drawn),
        rewards=np.insert(episodes.rewards, ends, 0),
        lengths=episodes.lengths + 1,
    )
    return longer, note(model, longer)


def late_rewards(model, episodes):
    late = [np.append(np.float32(0), rewards[:-1]) for rewards in episodes.split(episodes.rewards)]
    return episodes._replace(rewards=np.concatenate(late)), note(model, episodes)


def mean_within_episodes(advantages, episodes):
    lengths = torch.as_tensor(np.repeat(episodes.lengths, episodes.lengths))
    return center(advantages, episodes) * (episodes.lengths.mean() / lengths).float()


def entropy_punished(policy, actions, weights, noted):
    return policy_loss(policy, actions, weights, noted) + policy.entropy().mean()


def same_seeds(seed, epoch):
    return seed, 0


SILENT = {
    "reset steps counted": sound._replace(record=with_reset_steps),
    "rewards a step late": sound._replace(record=late_rewards),
    "mean within episodes": sound._replace(finish=mean_within_episodes),
    "same seeds again": sound._replace(seed_of=same_seeds),
    "entropy punished": sound._replace(policy_loss=entropy_punished),
}

# ---- Where the way goes on: pieces of PPO and of GRPO ----------------------------------------------------------------


def clipped_loss(policy, actions, weights, noted):
    ratios = (policy.log_prob(actions) - noted).exp()
    return -torch.minimum(ratios * weights, ratios.clamp(0.8, 1.2) * weights).mean()


def group_baseline(advantages, episodes):
    returns = torch.as_tensor(episodes.returns)
    # Without 1e-8, nan once every episode returns 200.
    scores = (returns - returns.mean()) / (returns.std() + 1e-8)
    return scores.repeat_interleave(torch.as_tensor(episodes.lengths))


# ---- The program -----------------------------------------------------------------------------------------------------


class Patient(NamedTuple):
    """What an agent keeps from epoch to epoch."""

    model: nn.Module
    critic: nn.Module
    optimizer: torch.optim.Optimizer
    critic_optimizer: torch.optim.Optimizer
    batches: list


class Epoch(NamedTuple):
    """What an epoch of a patient leaves to be examined."""

    played: vpg.Episodes
    episodes: vpg.Episodes  # as they were recorded, and learned from
    noted: Tensor  # log-probabilities noted in play, (steps,)
    weights: Tensor  # (steps,)
    before: nn.Module  # the model before its step
    after: nn.Module
    policy_loss: float
    used: list[Tensor]  # the gradient that the optimizer found, a tensor for each parameter
    fresh: list[Tensor]  # the gradient of this loss alone
    value_loss: float
    explained_variance: float


def admit(recipe: Recipe, seed: int) -> Patient:
    """Return an agent that has seen nothing yet."""
    torch.manual_seed(seed)
    model, critic = recipe.build(4, 2), vpg.create_model(4, 1)
    optimizer = torch.optim.Adam(recipe.owner(model).parameters(), recipe.learning_rate)
    return Patient(model, critic, optimizer, torch.optim.Adam(critic.parameters(), 4e-2), [])


def train(recipe: Recipe, seeds: Iterable[int], epochs: int) -> Iterator[list[Epoch]]:
    """Train an agent for every seed, side by side; yield each epoch as a list with an Epoch for every seed."""
    seeds = list(seeds)
    patients, env = [admit(recipe, seed) for seed in seeds], vpg.make_cartpoles(POLES * len(seeds))
    for epoch in range(epochs):
        generators = [np.random.default_rng(recipe.seed_of(seed, epoch)) for seed in seeds]
        players = [recipe.play(patient.model) for patient in patients]
        batch = vpg.collect_episodes(env, players, generators, max_timesteps=STEPS)
        yield [train_once(recipe, patient, played) for patient, played in zip(patients, batch, strict=True)]


def train_once(recipe: Recipe, patient: Patient, played: vpg.Episodes) -> Epoch:
    """Take one epoch's steps, of the policy and then of the critic."""
    before = copy.deepcopy(patient.model)
    patient.batches.append(recipe.record(patient.model, played))
    episodes, noted = recipe.choose(patient.batches)
    observations, actions = torch.as_tensor(episodes.observations), torch.as_tensor(episodes.actions)
    targets = torch.tensor(recipe.weigh(episodes).copy(), dtype=torch.float32)
    values = UNIT * patient.critic(observations)[:, 0].detach()
    weights = recipe.finish(targets - values, episodes)
    fitted = fit_policy(recipe, patient, observations, actions, weights, noted)
    value = fit_critic(recipe, patient, observations, targets)
    return Epoch(played, episodes, noted, weights, before, copy.deepcopy(patient.model), *fitted, *value)


def fit_policy(recipe, patient, observations, actions, weights, noted):
    """Take the policy's steps; return its last loss, the gradient used for it, and the gradient of it alone."""
    learned = [parameter for parameter in patient.model.parameters() if parameter.requires_grad]
    for _ in range(recipe.gradient_steps):
        loss = recipe.policy_loss(vpg.get_policy(patient.model, observations), actions, weights, noted)
        fresh = torch.autograd.grad(loss, learned, retain_graph=True)
        recipe.clear(patient.optimizer)
        loss.backward()
        used = [parameter.grad.clone() for parameter in learned]
        patient.optimizer.step()
    return loss.item(), used, list(fresh)


def fit_critic(recipe, patient, observations, targets):
    """Take the critic's five steps; return its last loss, and the share of the targets' variance that it explains."""
    for _ in range(5):
        loss = recipe.value_loss(patient.critic(observations), targets / UNIT)
        patient.critic_optimizer.zero_grad()
        loss.backward()
        patient.critic_optimizer.step()
    errors = targets - UNIT * patient.critic(observations)[:, 0].detach()
    return loss.item(), 1 - (errors.var() / targets.var()).item()


# ---- The log ---------------------------------------------------------------------------------------------------------


def shares_outside(runs: np.ndarray, sound: np.ndarray) -> np.ndarray:
    """Return, for every number of a log, the share of epochs in which it leaves its range in sound runs, (numbers,).

    Both have shape (runs, numbers, epochs).
    """
    rounding = 1e-4  # what 32 bits leave of a 0 or a 1
    low = sound.min(axis=(0, 2))[:, np.newaxis] - rounding
    high = sound.max(axis=(0, 2))[:, np.newaxis] + rounding
    return ((runs < low) | (runs > high)).mean(axis=(0, 2))
