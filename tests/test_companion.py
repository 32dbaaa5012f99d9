"""What lessons 8 and 9 share: the engine that plays on, the whole VPG, a force that is chosen."""

import functools
import inspect
import itertools
import math
import warnings

import gymnasium as gym
import numpy as np
import pytest
import torch
from build.lessons import LESSONS, code_cells, read
from taught import functions, taught_part
from torch import nn
from torch.distributions import Categorical, Distribution, Independent, Normal

import vpg_helpers as vpg
from vpg_lab import companion
from vpg_lab.checks import worlds as worlds_

SOURCES_OF_LESSON_8 = [cell.source for cell in code_cells(read(LESSONS[7]))]


def make_poles(number, limit=500):
    return gym.make_vec("CartPole-v1", number, "vector_entry_point", max_episode_steps=limit)


def make_network(outputs, inputs=4):
    return nn.Sequential(nn.Linear(inputs, 32), nn.Tanh(), nn.Linear(32, outputs))


def coin(observations):
    return Categorical(logits=torch.zeros(len(observations), 2))


def play_script(batches, steps=9, worlds=7):
    torch.manual_seed(0)
    world = worlds_.VectorScript(worlds)
    return world, list(itertools.islice(companion.play_on(world, coin, steps, seed=3), batches))


def test_batches_are_the_paths_that_were_played_and_go_on_where_the_last_one_ended():
    world, batches = play_script(batches=4)
    assert world.seeds == [3] and len(world.steps) == 4 * 9
    for number, (episodes, _) in enumerate(batches):
        paths = world.paths(9 * number, 9 * number + 9)
        assert episodes.lengths.tolist() == [len(rewards) for (_, _, rewards), _, _ in paths]
        assert episodes.terminated.tolist() == [terminated for *_, terminated in paths]
        columns = episodes.observations, episodes.actions, episodes.rewards
        for which, column in enumerate(columns):
            assert np.allclose(column, np.concatenate([played[which] for played, *_ in paths]))
        assert np.allclose(episodes.last_observations, [after for _, after, _ in paths])


def test_returns_are_of_each_world_s_first_episode_to_end_or_of_its_latest_before():
    world, batches = play_script(batches=6)
    for (_, returns), expected in zip(batches, world.returns_by_batch(9), strict=True):
        assert np.allclose(returns, expected, equal_nan=True)


def test_mean_returns_are_of_what_has_ended_and_nan_before_without_a_warning():
    settings = companion.Settings(epochs=3, steps=4, value_steps=1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        # No pole falls within six steps, and their clock stops them all in the second batch.
        first, *later = companion.train_vpg(make_poles(3, 6), make_network(2), make_network(1), settings)
    assert math.isnan(first) and later == [6, 6]
    world = worlds_.VectorScript(7)
    short = settings._replace(steps=2)
    returned = companion.train_vpg(world, make_network(2, 3), make_network(1, 3), short)
    expected = torch.as_tensor(world.returns_by_batch(2)).nanmean(dim=1)
    assert np.allclose(returned, expected, equal_nan=True)


def test_an_evaluation_counts_the_first_episode_of_every_pole_whatever_its_length():
    """With as many steps as an episode may have, each pole's first episode is over; the plain environment agrees."""
    torch.manual_seed(0)
    _, returns = next(companion.play_on(make_poles(512, 100), coin, 100, seed=0))
    env, lengths, random = gym.make("CartPole-v1", max_episode_steps=100), [], np.random.default_rng(0)
    for seed in range(512):
        env.reset(seed=seed)
        ends = (step for step in itertools.count(1) if any(env.step(int(random.integers(2)))[2:4]))
        lengths.append(next(ends))
    error = np.sqrt((returns.var() + np.var(lengths)) / 512)
    assert returns.min() >= 1 and abs(returns.mean() - np.mean(lengths)) < 5 * error


def test_one_seed_gives_one_training():
    def train(seed):
        torch.manual_seed(seed)
        settings = companion.WHOLE._replace(epochs=3, seed=seed)
        return companion.train_vpg(make_poles(8), make_network(2), make_network(1), settings)

    assert train(1) == train(1) != train(2)


def test_it_plays_what_gymnasium_vectorizes_by_itself_too():
    env = gym.make_vec("CartPole-v1", 3, "sync")
    episodes, _ = next(companion.play_on(env, coin, 60, seed=0))
    assert episodes.lengths.sum() == len(episodes.rewards) and set(episodes.rewards) == {1.0}


@pytest.mark.parametrize("name", ["discount_cumsum", "gae", "finish_path", "finish_paths", "descend", "train_vpg"])
def test_lesson_and_module_have_the_same_function(name):
    (taught,) = [source for source in SOURCES_OF_LESSON_8 if name in functions(source)]
    module = functions(inspect.getsource(companion))[name]
    assert "_refuse_bad_" not in taught
    assert taught_part(functions(taught)[name]) == taught_part(module)


def test_playing_leaves_pytorch_s_validation_as_it_was():
    batches = companion.play_on(make_poles(2), coin, 3, seed=0)
    next(batches)
    assert Distribution._validate_args
    with pytest.raises(RuntimeError):
        next(companion.play_on(make_poles(2), lambda seen: Categorical(logits=torch.full((2, 2), math.nan)), 3, seed=0))
    assert Distribution._validate_args


def test_full_force_is_the_plain_environment():
    plain, chosen = make_poles(16), companion.ContinuousForce(make_poles(16))
    first, _ = plain.reset(seed=0)
    second, _ = chosen.reset(seed=0)
    random = np.random.default_rng(0)
    for _ in range(300):
        assert np.array_equal(first, second)
        push = random.integers(2, size=16)
        first, *ends = plain.step(push)
        second, *chosen_ends = chosen.step(2.0 * push[:, np.newaxis] - 1)
        assert all(np.array_equal(a, b) for a, b in zip(ends[:3], chosen_ends[:3], strict=True))


def test_half_of_the_force_accelerates_half_as_much_and_more_than_full_is_cut_off():
    def speeds(action):
        env = companion.ContinuousForce(make_poles(4))
        env.reset(seed=1)
        observation, *_ = env.step(np.full((4, 1), action))
        return observation[:, 1].astype(np.float64)

    assert np.allclose(speeds(0.5) - speeds(0.0), (speeds(1.0) - speeds(0.0)) / 2, atol=1e-6)
    assert np.allclose(speeds(-0.5) - speeds(0.0), (speeds(-1.0) - speeds(0.0)) / 2, atol=1e-6)
    assert np.array_equal(speeds(7.0), speeds(1.0)) and np.array_equal(speeds(-7.0), speeds(-1.0))


def test_actions_may_be_real_numbers_of_more_than_one_dimension():
    policy = lambda seen: Independent(Normal(torch.zeros(len(seen), 1), 1.0), 1)  # noqa: E731
    env = companion.ContinuousForce(make_poles(5))
    episodes, _ = next(companion.play_on(env, policy, 20, seed=0))
    assert episodes.actions.shape == (len(episodes.rewards), 1) and episodes.actions.dtype == np.float32


def test_whole_vpg_learns_cartpole_with_500_steps():
    """Of seeds 4000 to 4015 each stood between 494 and 500 after 48 epochs."""
    torch.manual_seed(0)
    model = make_network(2)
    companion.train_vpg(make_poles(64), model, make_network(1), companion.WHOLE._replace(epochs=48))
    policy = functools.partial(vpg.get_policy, model)
    assert next(companion.play_on(make_poles(128), policy, 500, seed=10_000))[1].mean() > 350


def play(env=None, policy=coin, steps=3, seed=0):
    return companion.play_on(env or make_poles(2), policy, steps, seed)


def train(value_model=None, learning_rate=1e-2, **settings):
    settings = companion.Settings(learning_rate=learning_rate, **settings)
    return companion.train_vpg(make_poles(2), make_network(2), value_model or make_network(1), settings)


def push(forces):
    env = companion.ContinuousForce(make_poles(2))
    env.reset(seed=0)
    env.step(np.array(forces))


def make_broken_network():
    model = make_network(1)
    nn.init.constant_(model[2].bias, math.nan)
    return model


ONES = np.ones(3)
SAME_STEP = {"autoreset_mode": gym.vector.AutoresetMode.SAME_STEP}


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: play(gym.make("CartPole-v1")), "no vector environment; make one with gym.make_vec"),
        (lambda: play(gym.make_vec("FrozenLake-v1", 2, "sync")), "observations are Discrete.*expected a Box, a flat"),
        (lambda: play(gym.make_vec("CartPole-v1", 2, "sync", vector_kwargs=SAME_STEP)), "give one with.*NEXT_STEP"),
        (lambda: play(steps=0), "steps is 0; give a whole number, 1 or more"),
        (lambda: play(seed=-1), "the seed is -1; give a whole number from 0"),
        (
            lambda: next(play(policy=lambda seen: coin(seen[:1]))),
            r"shape \(1,\); expected one for each of 2",
        ),
        (lambda: next(play(policy=lambda seen: Normal(torch.zeros(2, 1), 1.0))), r"shape \(2, 1\).*an Independent"),
        (lambda: companion.discount_cumsum(ONES[None], 0.5), r"shape \(1, 3\).*expected.*\(steps,\)"),
        (lambda: companion.discount_cumsum(ONES * math.nan, 0.5), "0 of them finite"),
        (lambda: companion.discount_cumsum(ONES, 1.01), "the discount is 1.01; expected.*from 0 to 1"),
        (lambda: companion.gae(ONES, ONES, 0.9, 0.9), r"values \(3,\); expected.*\(steps \+ 1,\)"),
        (lambda: companion.gae(ONES[None], ONES, 0.9, 0.9), r"rewards has shape \(1, 3\)"),
        (lambda: companion.gae(ONES, np.append(ONES, math.nan), 0.9, 0.9), "2 of them finite"),
        (lambda: companion.gae(ONES, np.ones(4), 0.9, 2.0), "the discount is 1.8"),
        (lambda: companion.finish_path(ONES, np.ones(4), 0.0, True, 0.9, 0.9), r"values \(4,\); expected.*\(steps,\)"),
        (lambda: companion.finish_path(ONES, ONES, math.inf, False, 0.9, 0.9), "2 of them finite"),
        (lambda: companion.finish_path(ONES, ONES, 0.0, True, -0.1, 0.9), "the discount is -0.09"),
        (lambda: train(epochs=0), "epochs is 0; give a whole number"),
        (lambda: train(steps=1.5), "steps is 1.5; give a whole number"),
        (lambda: train(seed=None), "the seed is None"),
        (lambda: train(value_steps=-1), "value_steps is -1; give a count, 0 or more"),
        (lambda: train(gamma=1.1), "gamma is 1.1; give a number from 0 to 1"),
        (lambda: train(lam=math.nan), "lam is nan; give a number from 0 to 1"),
        (lambda: train(learning_rate=0.0), "learning_rate is 0.0; give a finite number above 0"),
        (lambda: train(value_unit=math.inf), "value_unit is inf; give a finite number above 0"),
        (lambda: train(make_network(2)), r"gives \(2, 2\); give one with one output, \(2, 1\)"),
        (lambda: train(nn.Sequential(make_network(1), nn.Flatten(0))), r"gives \(2,\); give one with one output"),
        (lambda: train(make_broken_network()), "0 of them finite"),
        (lambda: companion.descend(None, torch.tensor(math.nan)), "the loss is nan: .*lower the learning rate"),
        (lambda: companion.ContinuousForce(gym.make_vec("CartPole-v1", 2, "sync")), "vector_entry_point"),
        (lambda: push([0.5, 0.5]), r"shape \(2,\).*expected numbers, \(2, 1\)"),
        (lambda: push([[0.5], [math.nan]]), "1 of them nan"),
    ],
)
def test_bad_input_is_refused_at_once(call, message):
    with pytest.raises(ValueError, match=message):
        call()
