"""Lesson 7: values, advantages, and a value function that is fitted."""

import copy
import itertools
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

import vpg_helpers
from vpg_lab.checks.expect import expect_defaults, expect_shape, flatten, is_close, is_close_in_length
from vpg_lab.checks.verdicts import claim


class SmallWorld(NamedTuple):
    """A policy and a world with a time limit, as arrays: policy (states, actions), dynamics (.., states + 1)."""

    policy: np.ndarray
    rewards: np.ndarray
    dynamics: np.ndarray
    steps: int


def draw_world(states: int, actions: int, steps: int, scale: float = 1.0) -> SmallWorld:
    """Draw a world; some of its rewards are below zero."""
    random = np.random.default_rng()
    policy = random.dirichlet(np.ones(actions), states)
    dynamics = random.dirichlet(np.full(states + 1, 0.5), (states, actions))
    return SmallWorld(policy, scale * random.normal(0.3, 1, (states, actions)), dynamics, steps)


def value_of(world: SmallWorld, state: int, steps_left: int) -> float:
    """Return a state's value by following every action to every next state."""
    if steps_left == 0 or state == len(world.policy):
        return 0.0
    return sum(
        world.policy[state, action] * chance * (world.rewards[state, action] + value_of(world, after, steps_left - 1))
        for (action, after), chance in np.ndenumerate(world.dynamics[state])
    )


def expect_rows(got: object, expected: np.ndarray, known: dict[str, np.ndarray], said: str):
    """Assert an array; known tells which mistake gives which array."""
    expect_shape(got, expected.shape, f"{said} expected shape {expected.shape}, got {{}}")
    got, tolerance = np.asarray(got, dtype=float), 1e-6 * np.abs(expected).max() + 1e-12
    for mistake, mistaken in known.items():
        if np.abs(mistaken - expected).max() > 10 * tolerance:
            assert np.abs(got - mistaken).max() > tolerance, f"{said} {mistake}"
    wrong = np.argwhere(~(np.abs(got - expected) <= tolerance))
    if len(wrong):
        place = tuple(wrong[-1].tolist())
        raise AssertionError(f"{said} expected {expected[place]:.4g} at {list(place)}, got {got[place]:.4g}")


ONE_STATE = SmallWorld(np.array([[0.25, 0.75]]), np.array([[1.0, 2.0]]), np.array([[[0.5, 0.5], [1.0, 0.0]]]), 2)


@claim("values", "works backwards from the end")
def _(values):
    # One state, chances of 1/4 and 3/4: the first action pays 1 and goes on with even chances, the second pays 2.
    value = np.array([[3.28125, 0.0], [1.75, 0.0], [0.0, 0.0]])
    known = {
        "it holds the rewards alone: what the next state is worth belongs to it": value.clip(max=1.75),
        "the rows are turned round: row 0 is the first time step, when all steps are left": value[::-1],
        "the rewards of the actions add up: weigh them with the policy": np.array([[6.0 + 1.5, 0], [3.0, 0], [0, 0]]),
        "that is the better action's value: take the mean over the policy's actions": np.array(
            [[4.0, 0], [2, 0], [0, 0]]
        ),
        "every action counts alike: weigh them with the policy": np.array([[2.625, 0], [1.5, 0], [0, 0]]),
    }
    expect_rows(values(*ONE_STATE), value, known, "for one state, chances of 1/4 and 3/4 and 2 steps:")
    for shape in [(3, 2, 3), (2, 4, 3), (1, 3, 4), (4, 3, 1)]:
        world = draw_world(*shape)
        states, left = range(len(world.policy) + 1), range(world.steps, -1, -1)
        expected = np.array([[value_of(world, state, steps_left) for state in states] for steps_left in left])
        said = "for {} states, {} actions and {} steps:".format(*shape)
        expect_rows(values(*world), expected, {}, said)


@claim("values", "holds in long episodes and with large rewards")
def _(values):
    answers = []
    for states, actions, steps, scale in [(2, 2, 200, 1.0), (5, 3, 60, 1e4), (3, 2, 1, 1e-3), (30, 6, 40, 1.0)]:
        world = draw_world(states, actions, steps, scale)
        # Another way: chances of being in a state, forwards in time, times what the policy earns there.
        earned = (world.policy * world.rewards).sum(axis=1)
        moves = np.einsum("sa, san -> sn", world.policy, world.dynamics)[:, :-1]
        expected, reached = np.zeros((steps + 1, states + 1)), np.eye(states)
        for step in reversed(range(steps)):
            expected[step, :-1] = expected[step + 1, :-1] + reached @ earned
            reached = reached @ moves
        answers.append((values(*world), expected, f"for {states} states and {steps} steps:"))
    for got, expected, said in answers:  # at the end: an answer must not change when another one is given
        expect_rows(got, expected, {}, said)


@claim("advantages")
def _(advantages):
    value = np.array([[3.28125, 0.0], [1.75, 0.0], [0.0, 0.0]])  # of chances 1/4 and 3/4
    expected = np.array([[[-1.40625, 0.46875]], [[-0.75, 0.25]]])
    known = {
        "those are the action values: take off what was to be expected": np.array([[[1.875, 3.75]], [[1.0, 2.0]]]),
        "the sign is turned round: an advantage is Q - V": -expected,
        "the next state is worth its value one time step later": np.array([[[-0.640625, 2.0]], [[0.125, 2.0]]]),
        "the rewards are missing": np.array([[[-2.40625, -1.53125]], [[-1.75, -1.75]]]),
        "without what follows: add the mean value of the next state": np.array(
            [[[-2.28125, -1.28125]], [[-0.75, 0.25]]]
        ),
        "V is that of the same time step, not of the next": np.array([[[0.125, 2.0]], [[1.0, 2.0]]]),
        "that is Q minus its plain mean over actions: V weighs them with the policy, so take off value": np.array(
            [[[-0.9375, 0.9375]], [[-0.5, 0.5]]]
        ),
    }
    expect_rows(
        advantages(value, ONE_STATE.rewards, ONE_STATE.dynamics), expected, known, "for one state and two actions:"
    )
    answers = []
    for states, actions, steps, scale in [(3, 2, 4, 1.0), (2, 5, 30, 1e3), (6, 3, 1, 1.0), (1, 2, 7, 1e-3)]:
        world = draw_world(states, actions, steps, scale)
        value = np.zeros((steps + 1, states + 1))
        value[:-1, :-1] = scale * np.random.normal(size=(steps, states))  # of no policy: none is asked for
        expected = np.zeros((steps, states, actions))
        for step, state, action in np.ndindex(expected.shape):
            follows = world.dynamics[state, action] @ value[step + 1]
            expected[step, state, action] = world.rewards[state, action] + follows - value[step, state]
        got = advantages(value, world.rewards, world.dynamics)
        answers.append((got, expected, f"for {states} states, {actions} actions and {steps} steps:"))
    for got, expected, said in answers:
        expect_rows(got, expected, {}, said)


def fit_by_hand(model, optimizer, observations, targets, gradient_steps, mistake="", scale=1.0):
    """Take the gradient steps of a mean-square fit, or those of a known mistake."""
    targets = torch.as_tensor(targets, dtype=torch.float32)
    for _ in range(gradient_steps):
        outputs = model(torch.as_tensor(observations))
        errors = outputs - targets if mistake == "shape" else outputs.reshape(-1) - targets
        loss = errors.abs().mean() if mistake == "absolute" else (errors**2).mean()
        loss = loss * {"sum": len(targets), "half": 0.5, "sign": -1, "outputs": scale**2}.get(mistake, 1)
        if mistake != "zero":
            optimizer.zero_grad()
        loss.backward()
        optimizer.step()


FIT_MISTAKES = {
    "shape": "outputs (steps, 1) minus targets (steps,) are (steps, steps) errors: make the shapes agree",
    "sum": "that is the sum of the square errors: take their mean",
    "half": "that is half of the mean square error",
    "sign": "it climbs: descend the mean square error, without a minus",
    "absolute": "those are absolute errors: square them",
    "zero": "gradients of the step before are still there: zero_grad",
}


def expect_fits(fit_value, model, make_optimizer, examples, scale, gradient_steps, known):
    """Assert that fit_value moves a model as a mean-square fit does.

    known has, for every mistake, its sentence and what fit_by_hand would be given: targets, gradient steps,
    mistake, scale.
    """
    observations, targets = examples

    def move(fit, *arguments, **more):
        moved = copy.deepcopy(model)
        fit(moved, make_optimizer(moved.parameters()), observations, *arguments, **more)
        return flatten(moved.parameters()) - flatten(model.parameters())

    got = move(fit_value, targets, scale=scale, gradient_steps=gradient_steps)
    assert got.any(), "the network did not move: does optimizer.step() come?"
    expected = move(fit_by_hand, targets / scale, gradient_steps)
    for said, *arguments in known:
        mistaken = move(fit_by_hand, *arguments)
        if not is_close_in_length(mistaken, expected, 0.01):
            assert not is_close_in_length(got, mistaken), said
    far = (got - expected).norm() / expected.norm()
    assert far < 2e-3, f"{gradient_steps} gradient steps with scale = {scale} lead elsewhere, {far:.1%} of the way off"


def adam(parameters):
    return torch.optim.Adam(parameters, lr=0.01, foreach=False)


def gentle_descent(parameters):
    return torch.optim.SGD(parameters, lr=0.003)


def draw_examples(steps, features=4, spread=1.0):
    random = np.random.default_rng()
    return random.normal(size=(steps, features)).astype(np.float32), random.normal(3 * spread, spread, steps)


@claim("fit_value", "descends the mean square error")
def _(fit_value):
    expect_defaults(fit_value, scale=1.0, gradient_steps=80)
    for model, features in [(nn.Linear(4, 1), 4), (vpg_helpers.create_model(6, 1, 8), 6)]:
        for steps in (1, 40):
            examples = draw_examples(steps, features)
            known = [(said, examples[1], 1, mistake) for mistake, said in FIT_MISTAKES.items()]
            expect_fits(fit_value, model, gentle_descent, examples, 1.0, 1, known)


@claim("fit_value", "takes as many fresh gradient steps as it is asked for")
def _(fit_value):
    for gradient_steps, make_optimizer in itertools.product((2, 5, 17), (gentle_descent, adam)):
        examples = draw_examples(30)
        counts = [
            ("it took one gradient step: repeat all of it, gradient_steps times", 1),
            ("it took 80 gradient steps: is gradient_steps used?", 80),
            ("that is one gradient step too few", gradient_steps - 1),
            ("that is one gradient step too many", gradient_steps + 1),
        ]
        known = [(said, examples[1], count, "") for said, count in counts]
        known.append((FIT_MISTAKES["zero"], examples[1], gradient_steps, "zero"))
        expect_fits(fit_value, nn.Linear(4, 1), make_optimizer, examples, 1.0, gradient_steps, known)
    large = draw_examples(30, spread=1e6)  # 16 bits end at 65,504
    expect_fits(fit_value, nn.Linear(4, 1), gentle_descent, large, 1.0, 17, [])
    # What a step before left behind, an optimizer that remembers, and one that holds another network as well.
    model, other = nn.Linear(4, 1), nn.Linear(4, 1)
    twin, before = copy.deepcopy(model), flatten(other.parameters())
    optimizer = adam([*model.parameters(), *other.parameters()])
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, 1e3)
    for _ in range(2):
        fit_value(model, optimizer, *examples, gradient_steps=3)
    assert torch.equal(before, flatten(other.parameters())), "it moved another network: the error is this one's alone"
    fit_by_hand(twin, adam(twin.parameters()), *examples, 6)
    assert is_close(flatten(model.parameters()), flatten(twin.parameters())), (
        "two calls of 3 gradient steps should do what one of 6 does, whatever gradient was there before: use the "
        "optimizer that it is given, and zero_grad in time"
    )


@claim("fit_value", "divides the targets by scale")
def _(fit_value):
    for scale, spread in [(50.0, 50.0), (7.0, 1.0), (0.1, 0.1)]:
        examples = draw_examples(25, spread=spread)
        outputs = examples[1] / scale, 3, "outputs", scale  # three steps: with more, this mistake overflows
        known = [
            (f"with scale = {scale} it does the same as without", examples[1], 3),
            (f"with scale = {scale} the targets are multiplied: divide by it", examples[1] * scale, 3),
            (f"with scale = {scale} the outputs are multiplied: divide the targets, and leave the outputs", *outputs),
        ]
        expect_fits(fit_value, nn.Linear(4, 1), gentle_descent, examples, scale, 3, known)
