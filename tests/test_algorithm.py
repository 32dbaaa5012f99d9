"""The six functions against hand arithmetic, autograd, finite differences and exact enumeration."""

import math
import runpy
import sys

import gymnasium as gym
import numpy as np
import pytest
import torch
from torch import nn
from torch.distributions import Categorical

import vpg_helpers as vpg
from vpg_lab import small_world

SGD = torch.optim.SGD


class ScriptedEnv(gym.Env):
    """Episodes of scripted rewards; how each one ends is scripted too, and everything that happens is recorded."""

    observation_space = gym.spaces.Box(-10, 10, (4,), np.float32)
    action_space = gym.spaces.Discrete(2)

    def __init__(self, *episodes):
        self.script, self.played, self.stepped_after_end = episodes, [], False

    def reset(self, *, seed=None, options=None):
        self.rewards, self.end = self.script[len(self.played) % len(self.script)]
        self.random = np.random.default_rng(len(self.played))
        self.played.append([])
        return self._observe(), {}

    def _observe(self):
        self.observation = self.random.normal(size=4).astype(np.float32)
        return self.observation

    def step(self, action):
        episode = self.played[-1]
        self.stepped_after_end |= len(episode) == len(self.rewards)
        assert self.action_space.contains(action), f"{action!r} is no action"
        episode.append((self.observation.copy(), int(action), self.rewards[len(episode)]))
        ended = len(episode) == len(self.rewards)
        # NumPy's own booleans, as many environments return them: `done is True` would be false for them
        terminated = np.bool_(ended and "terminated" in self.end)
        truncated = np.bool_(ended and "truncated" in self.end)
        return self._observe(), episode[-1][2], terminated, truncated, {}


TERMINATES = ScriptedEnv(([1.0, 1.0, 1.0], "terminated"))
EPISODES = [
    ([1.0, 2.0, 3.0], "terminated"),
    ([5.0], "truncated"),
    ([-1.0, 0.5], "terminated and truncated"),
]


def flat_gradient(scalar, model):
    return torch.cat([gradient.flatten() for gradient in torch.autograd.grad(scalar, list(model.parameters()))])


def flat_parameters(model):
    return nn.utils.parameters_to_vector(model.parameters()).detach().clone()


def seeded_model(seed=0):
    torch.manual_seed(seed)
    return vpg.create_model(4, 2)


# --- create_model -----------------------------------------------------------------------------------------


def test_model_is_linear_relu_linear_by_hand():
    model = seeded_model()
    first_weight, first_bias, last_weight, last_bias = (p.detach().numpy() for p in model.parameters())
    observation = np.array([0.3, -1.0, 0.1, 2.0], np.float32)
    hidden = np.maximum(first_weight @ observation + first_bias, 0)
    logits = model(torch.as_tensor(observation)).detach().numpy()
    np.testing.assert_allclose(logits, last_weight @ hidden + last_bias, atol=1e-6)


@pytest.mark.parametrize(
    ("sizes", "count"), [((4, 2), 226), ((6, 3), 6 * 32 + 32 + 32 * 3 + 3), ((4, 2, 8), 4 * 8 + 8 + 8 * 2 + 2)]
)
def test_model_has_the_parameters_that_arithmetic_gives(sizes, count):
    assert sum(parameter.numel() for parameter in vpg.create_model(*sizes).parameters()) == count


def test_model_takes_leading_dimensions():
    model, batch = seeded_model(), torch.randn(7, 5, 4)
    logits = model(batch)
    assert logits.shape == (7, 5, 2)
    torch.testing.assert_close(logits[3, 2], model(batch[3, 2]))


# --- get_policy -------------------------------------------------------------------------------------------


def identity_model(dtype=torch.float32):
    model = nn.Linear(2, 2, bias=False, dtype=dtype)
    nn.init.eye_(model.weight)
    return model


def test_policy_is_the_softmax_of_the_logits():
    policy = vpg.get_policy(identity_model(), torch.tensor([0.0, math.log(3)]))
    torch.testing.assert_close(policy.probs, torch.tensor([0.25, 0.75]))


def test_policy_takes_arrays_and_batches():
    policy = vpg.get_policy(identity_model(), np.zeros((7, 5, 2), np.float32))
    assert policy.batch_shape == (7, 5)
    torch.testing.assert_close(policy.probs, torch.full((7, 5, 2), 0.5))


# --- get_action -------------------------------------------------------------------------------------------


def test_action_frequencies_match_the_probabilities():
    torch.manual_seed(0)
    actions, _ = vpg.get_action(Categorical(probs=torch.tensor([0.2, 0.5, 0.3]).expand(20_000, 3)))
    frequencies = np.bincount(actions, minlength=3) / 20_000
    for frequency, p in zip(frequencies, (0.2, 0.5, 0.3), strict=True):
        assert abs(frequency - p) < 4 * math.sqrt(p * (1 - p) / 20_000)


def test_action_is_what_the_environment_takes_and_the_log_probability_is_its_own():
    logits = torch.tensor([0.0, math.log(3)], requires_grad=True)
    action, log_probability = vpg.get_action(Categorical(logits=logits))
    assert gym.spaces.Discrete(2).contains(action)
    assert log_probability.item() == pytest.approx(math.log([0.25, 0.75][int(action)]))
    (gradient,) = torch.autograd.grad(log_probability, logits)
    one_hot = torch.eye(2)[int(action)]
    torch.testing.assert_close(gradient, one_hot - torch.tensor([0.25, 0.75]))


# --- calculate_loss ---------------------------------------------------------------------------------------


def test_loss_by_hand():
    log_probabilities = torch.tensor([-1.0, -3.0], requires_grad=True)
    loss = vpg.calculate_loss(log_probabilities, torch.tensor([2.0, 5.0]))
    assert loss.item() == 8.5
    loss.backward()
    assert log_probabilities.grad.tolist() == [-1.0, -2.5]


def test_loss_gradient_is_the_finite_difference():
    torch.manual_seed(0)
    log_probabilities, weights = torch.randn(6, dtype=torch.float64, requires_grad=True), torch.randn(6).double()
    assert torch.autograd.gradcheck(lambda log_p: vpg.calculate_loss(log_p, weights), (log_probabilities,))


# --- train_one_epoch --------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", ["terminated", "truncated", "terminated and truncated"])
def test_every_kind_of_end_ends_an_episode(end):
    env, model = ScriptedEnv(([1.0, 2.0, 3.0], end)), seeded_model()
    mean_return = vpg.train_one_epoch(env, model, SGD(model.parameters(), lr=0.1), max_timesteps=7)
    assert mean_return == 6.0
    assert [len(episode) for episode in env.played] == [3, 3, 3]
    assert not env.stepped_after_end


@pytest.mark.parametrize(("budget", "number_of_episodes"), [(1, 1), (3, 1), (4, 2), (6, 2), (7, 3)])
def test_budget_is_met_with_the_fewest_whole_episodes(budget, number_of_episodes):
    env, model = ScriptedEnv(([1.0, 1.0, 1.0], "truncated")), seeded_model()
    vpg.train_one_epoch(env, model, SGD(model.parameters(), lr=0.1), budget)
    assert [len(episode) for episode in env.played] == [3] * number_of_episodes


def test_epoch_takes_the_step_that_hand_arithmetic_gives():
    env, model = ScriptedEnv(*EPISODES), seeded_model()
    before, untouched = flat_parameters(model), seeded_model()
    mean_return = vpg.train_one_epoch(env, model, SGD(model.parameters(), lr=0.5), max_timesteps=6)
    assert mean_return == pytest.approx((6 + 5 - 0.5) / 3)
    gradient, steps = 0, 0
    for episode in env.played:
        episode_return = sum(reward for _, _, reward in episode)
        for observation, action, _ in episode:
            log_probability = torch.log_softmax(untouched(torch.as_tensor(observation)), dim=-1)[action]
            gradient, steps = gradient + episode_return * flat_gradient(log_probability, untouched), steps + 1
    assert steps == 6
    torch.testing.assert_close(flat_parameters(model), before + 0.5 * gradient / steps)


def test_old_gradients_do_not_leak_into_the_step():
    clean, soiled = seeded_model(), seeded_model()
    for parameter in soiled.parameters():
        parameter.grad = torch.full_like(parameter, 100.0)
    for model in (clean, soiled):
        torch.manual_seed(1)
        vpg.train_one_epoch(ScriptedEnv(*EPISODES), model, SGD(model.parameters(), lr=0.1), max_timesteps=6)
    torch.testing.assert_close(flat_parameters(clean), flat_parameters(soiled))


class TwoStepEnv(gym.Env):
    """Two steps, two actions each, rewards at both; the second observation tells the first action."""

    observation_space, action_space = gym.spaces.Box(0, 1, (2,), np.float32), gym.spaces.Discrete(2)
    first_reward, second_reward = [1.0, -2.0], [[0.0, 3.0], [4.0, -1.0]]

    def reset(self, *, seed=None, options=None):
        self.first_action = None
        return np.array([1.0, 0.0], np.float32), {}

    def step(self, action):
        if self.first_action is None:
            self.first_action = int(action)
            return np.array([0.5, action], np.float32), self.first_reward[self.first_action], False, False, {}
        return np.zeros(2, np.float32), self.second_reward[self.first_action][int(action)], True, False, {}


def test_epoch_estimates_the_exact_policy_gradient():
    """All four trajectories enumerated: the epoch's step is the gradient of J over E[T] = 2, within 5 errors."""
    torch.manual_seed(0)
    model, number_of_episodes = vpg.create_model(2, 2, hidden_units=3), 3_000
    observe = {None: [1.0, 0.0], 0: [0.5, 0.0], 1: [0.5, 1.0]}
    log_policy = {key: torch.log_softmax(model(torch.tensor(value)), dim=-1) for key, value in observe.items()}
    objective, contributions = 0, []
    for first in (0, 1):
        for second in (0, 1):
            log_probability = log_policy[None][first] + log_policy[first][second]
            episode_return = TwoStepEnv.first_reward[first] + TwoStepEnv.second_reward[first][second]
            objective = objective + log_probability.exp() * episode_return
            gradient = torch.autograd.grad(log_probability, list(model.parameters()), retain_graph=True)
            gradient = torch.cat([g.flatten() for g in gradient])
            contributions.append((log_probability.exp().item(), episode_return * gradient))
    exact = flat_gradient(objective, model)
    variance = sum(p * g**2 for p, g in contributions) - exact**2
    before = flat_parameters(model)
    vpg.train_one_epoch(TwoStepEnv(), model, SGD(model.parameters(), lr=1.0), 2 * number_of_episodes)
    estimate = 2 * (flat_parameters(model) - before)
    error = (variance.clamp(min=0) / number_of_episodes).sqrt()
    assert exact.abs().max() > 0.1
    assert torch.all((estimate - exact).abs() <= 5 * error + 1e-5)


# --- train ------------------------------------------------------------------------------------------------


def test_small_world_lists_everything_with_its_chance():
    trajectories, chances = small_world.list_trajectories()
    by_hand = 0.8 * 0.6 * 0.6  # start upright, push and lean, wait and fall
    assert chances[trajectories.index([(0, 1, 1), (1, 0, 2)])] == pytest.approx(by_hand)
    for push in (0.5, 0.3):  # with any policy something must happen
        actions = [[(1 - push, push)[action] for _, action, _ in trajectory] for trajectory in trajectories]
        assert sum(chances * [math.prod(each) for each in actions]) == pytest.approx(1)
    assert {len(trajectory) for trajectory in small_world.list_trajectories(2)[0]} == {1, 2}


def test_seed_decides_everything():
    _, first = vpg.train(epochs=3, max_timesteps=150, seed=4)
    torch.manual_seed(123)
    np.random.seed(5)
    model, second = vpg.train(epochs=3, max_timesteps=150, seed=4)
    _, other = vpg.train(epochs=3, max_timesteps=150, seed=5)
    assert first == second
    assert first != other
    assert len(first) == 3 and all(1 <= value <= 200 for value in first)
    assert sum(parameter.numel() for parameter in model.parameters()) == 226


def test_train_reports_after_every_epoch():
    seen = []
    model, returns = vpg.train(epochs=2, max_timesteps=50, after_epoch=lambda m, r: seen.append((m, list(r))))
    assert seen == [(model, returns[:1]), (model, returns)]


def test_script_prints_a_line_an_epoch(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["vpg_helpers.py", "--epochs", "3", "--max-timesteps", "60", "--seed", "1"])
    runpy.run_path(vpg.__file__, run_name="__main__")
    said = capsys.readouterr()
    _, returns = vpg.train(epochs=3, max_timesteps=60, seed=1)
    assert [float(line.split()[-1]) for line in said.out.splitlines()] == pytest.approx(returns, abs=0.005)
    assert said.err == ""


# --- what is refused --------------------------------------------------------------------------------------

LOG_P, ONES = torch.zeros(3, requires_grad=True), torch.ones(3)
MODEL = seeded_model()
MATRIX_ENV = ScriptedEnv()
MATRIX_ENV.observation_space = gym.spaces.Box(0, 1, (3, 3))
TORQUE_ENV = ScriptedEnv()
TORQUE_ENV.action_space = gym.spaces.Box(-1, 1, (1,))
SHIFTED_ENV = ScriptedEnv()
SHIFTED_ENV.action_space = gym.spaces.Discrete(2, start=1)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: vpg.create_model(0, 2), "number_observation_features is 0"),
        (lambda: vpg.create_model(4, 2.0), "number_actions is 2.0"),
        (lambda: vpg.create_model(4, 2, True), "hidden_units is True"),
        (lambda: vpg.get_policy(MODEL, torch.zeros(3)), r"shape \(3,\).*reads 4 features"),
        (lambda: vpg.get_policy(MODEL, np.zeros(4)), "float64.*float32; convert"),
        (lambda: vpg.get_policy(MODEL, np.full(4, np.nan, np.float32)), "nan"),
        (lambda: vpg.get_action(torch.zeros(2)), "policy is a Tensor.*Categorical"),
        (lambda: vpg.calculate_loss([0.0], ONES), "log_probabilities is a list"),
        (lambda: vpg.calculate_loss(LOG_P, [1.0]), "weights is a list"),
        (lambda: vpg.calculate_loss(LOG_P, torch.ones(3, 1)), r"shape \(3,\), weights \(3, 1\)"),
        (lambda: vpg.calculate_loss(LOG_P[:0], ONES[:0]), "at least one"),
        (lambda: vpg.calculate_loss(LOG_P.detach(), ONES), "carries no gradient"),
        (lambda: vpg.calculate_loss(LOG_P, ONES * LOG_P), "weights carries a gradient"),
        (lambda: vpg.calculate_loss(LOG_P, ONES * math.inf), "nan or infinity"),
        (lambda: vpg.calculate_loss(LOG_P, ONES * math.nan), "nan or infinity"),
        (lambda: vpg.train_one_epoch(MATRIX_ENV, MODEL, None), "observations are.*flat vector"),
        (lambda: vpg.train_one_epoch(TORQUE_ENV, MODEL, None), "actions are.*Discrete"),
        (lambda: vpg.train_one_epoch(SHIFTED_ENV, MODEL, None), "counted from 0"),
        (lambda: vpg.train_one_epoch(vpg.make_cartpoles(2), MODEL, None), "flat vector"),
        (lambda: vpg.train_one_epoch(TERMINATES, MODEL, None, 0), "max_timesteps is 0"),
        (lambda: vpg.train(epochs=0), "epochs is 0"),
        (lambda: vpg.train(max_timesteps=-1), "max_timesteps is -1"),
        (lambda: vpg.train(learning_rate=0.0), "learning_rate is 0.0"),
        (lambda: vpg.train(learning_rate=math.nan), "learning_rate is nan"),
        (lambda: vpg.train(seed=-1), "seed is -1"),
        (lambda: vpg.train(seed=None), "seed is None"),
        (lambda: small_world.list_trajectories(0), "steps is 0"),
    ],
)
def test_bad_input_is_refused_at_once(call, message):
    with pytest.raises((ValueError, TypeError), match=message):
        call()
