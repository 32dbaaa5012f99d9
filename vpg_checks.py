"""What judges: the checks of the exercises, a verdict in one plain line, and the file that keeps a learner's functions.

In reading order: (1) what every exercise must do, a function a claim, in lesson order, the known mistakes beside it;
(2) how claims become verdicts; (3) the learner's own file. Section 1 reads as the specification of the exercises. To
add one, write its claims here, put `check(...)` behind it in the lesson, and answers into the two catalogues.
"""

import ast
import base64
import builtins
import contextlib
import copy
import functools
import importlib.util
import inspect
import io
import itertools
import json
import linecache
import math
import os
import re
import symtable
import sys
import time
import traceback
from collections.abc import Callable, Iterable
from numbers import Integral, Real
from pathlib import Path
from typing import NamedTuple
from unittest.mock import patch

import gymnasium as gym
import numpy as np
import torch
from gymnasium.envs.classic_control import CartPoleEnv
from IPython import get_ipython
from torch import Tensor, nn
from torch.distributions import Categorical
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

import vpg_companion
import vpg_helpers

# The functions that an agent is made of: what a learner writes of these is kept and used by later lessons.
KEPT_FUNCTIONS = ("create_model", "get_policy", "get_action", "calculate_loss", "train_one_epoch", "train")

# ---- 1. What the exercises must do -----------------------------------------------------------------------------------

CLAIMS: dict[str, dict[str, Callable]] = {}  # exercise -> claim -> the function that asserts it


def claim(exercise: str, text: str = "does what it should") -> Callable:
    """Register a function that asserts what an exercise does; its first argument is the learner's function.

    What else it needs from the lesson are its other arguments; `check` hands them on.
    """

    def register(function):
        claims = CLAIMS.setdefault(exercise, {})
        if text in claims:
            raise ValueError(f"{exercise} has a claim {text!r} already; give this one words of its own")
        claims[text] = function
        return function

    return register


def expect_type(value: object, kind: type | tuple[type, ...], what: str, hint: str = ""):
    """Assert a type, where `what` names the type that is asked for."""
    assert isinstance(value, kind), f"expected {what}, got {type(value).__name__}{hint}"


def expect_shape(value: object, shape: tuple[int, ...], said: str):
    """Assert a shape; {} in the sentence stands for the shape that was got."""
    got = tuple(np.shape(value))
    assert got == shape, said.format(got)


def expect_value(got: object, expected: object, said: str, known: dict | None = None):
    """Assert a value exactly; known tells which mistake gives which value."""
    mistake = (known or {}).get(tuple(got) if isinstance(got, list) else got)
    assert got == expected, f"{said}, got {got}{f': {mistake}' if mistake else ''}"


def expect_number(got: float, expected: float, said: str, known: dict[float, str], show: str = "", tolerance=1e-5):
    """Assert a number within a tolerance; known tells which mistake gives which number, to four digits."""
    mistakes = [f": {mistake}" for number, mistake in known.items() if abs(got - number) <= 5.01e-5]
    assert abs(got - expected) < tolerance, f"{said}, got {got:{show}}{''.join(mistakes[:1])}"


def expect_defaults(function: Callable, **defaults: object):
    """Assert which values arguments have where a caller does not give them."""
    parameters = inspect.signature(function).parameters
    for name, value in defaults.items():
        got = parameters[name].default if name in parameters else "no such argument"
        assert got == value, f"{name} should be {value} where it is not given, got {got}; leave the first line as it is"


def is_close(got: object, expected: object, relative: float = 1e-4, absolute: float = 1e-6) -> bool:
    """Tell whether all numbers agree, in whatever precision they come."""
    got, expected = (torch.as_tensor(value).detach().double() for value in (got, expected))
    return torch.allclose(got, expected, rtol=relative, atol=absolute)


def is_close_in_length(got: Tensor, expected: Tensor, share: float = 1e-3) -> bool:
    """Tell whether two vectors differ by no more than a share of their length."""
    return bool((got.double() - expected.double()).norm() <= share * expected.double().norm() + 1e-7)


def flatten(tensors: Iterable[Tensor]) -> Tensor:
    """Return all entries in one vector, detached; gradients need not be contiguous."""
    return torch.cat([tensor.detach().reshape(-1) for tensor in tensors])


def redraw(model: nn.Module, spread: float = 1.0) -> nn.Module:
    """Give every parameter a new number, in place, so that the policy is sure of some actions and not of others."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=spread)
    return model


def log_probabilities_of(model: nn.Module, observations: np.ndarray | Tensor) -> Tensor:
    """Return the log-probabilities of all actions that a model gives, by PyTorch's own log_softmax."""
    return torch.log_softmax(model(torch.as_tensor(observations)), dim=-1)


def expect_samples(actions: np.ndarray, policy: Tensor, suspects: dict[str, Tensor]):
    """Assert that actions are samples from a policy, and not from a suspect, which is named by what its player does.

    Policies are log-probabilities, (steps, actions). Samples from the policy are 10 million times likelier under a
    suspect once in 10 million tries at most, however few they are (Markov's inequality).
    """
    policy = policy.detach().double()
    coin = torch.full_like(policy, -math.log(policy.shape[-1]))
    rare, likely = [
        f"{which} actions come up too often: sample from the policy as it is" for which in ("rare", "likely")
    ]
    known = [
        ("the actions come from a coin, whatever the policy says", coin),
        ("the likeliest action is taken: sample, do not take the best", mix(coin, policy * 1e3, 0.99)),
        (rare, mix(policy, coin, 0.03)),
        (rare, mix(policy, coin, 0.2)),
        *(
            (rare if factor < 1 else likely, torch.log_softmax(factor * policy, -1))
            for factor in (0.6, 0.95, 1.05, 1.3)
        ),
    ]
    taken = torch.as_tensor(actions).long()[:, None]
    gains = [
        ((suspect.detach().double() - policy).gather(-1, taken).sum().item(), said)
        for said, suspect in [*suspects.items(), *known]
    ]
    gain, said = max(gains)
    assert gain < math.log(1e7), f"{said} (e^{gain:.0f} times likelier than chance)"


def mix(policy: Tensor, other: Tensor, share: float) -> Tensor:
    """Return the log-probabilities of a player who follows another policy for a share of the time."""
    policy, other = torch.log_softmax(policy, dim=-1), torch.log_softmax(other, dim=-1)
    return torch.logaddexp(policy + math.log(1 - share), other + math.log(share))


# Lesson 1


@claim("count_parameters")
def _(count_parameters):
    got = count_parameters(4, 32, 2)
    expect_value(
        got,
        226,
        "for 4, 32, 2 expected 226",
        {
            192: "the biases are missing",
            194: "the hidden units have biases too",
            224: "the outputs have biases too",
            256: "the layers follow each other, so their counts add up",
        },
    )
    expect_type(got, Integral, "a whole number")
    sizes = np.random.randint(1, 2_000, 3).tolist()
    for inputs, hidden_units, outputs in [(1, 1, 1), (7, 32, 9), *itertools.permutations(sizes), (4, sizes[1], 2)]:
        sizes = (inputs, hidden_units), (hidden_units, outputs)
        layers = [nn.Linear(*size, device="meta") for size in sizes]  # shapes without numbers
        expected = sum(parameter.numel() for layer in layers for parameter in layer.parameters())
        said = f"for {inputs}, {hidden_units}, {outputs} expected {expected}"
        expect_value(count_parameters(inputs, hidden_units, outputs), expected, said)


LOST = "the logits do not carry the gradient of all parameters: no detach, no_grad or .data on the way"
NOT_REGISTERED = "the layers are not registered: nn.Sequential does it, and attributes of an nn.Module"


@claim("create_model", "turns observations into logits")
def _(create_model):
    model, batch = create_model(4, 2), torch.randn(100, 4)
    expect_type(model, nn.Module, "an nn.Module")
    model.train()  # where dropout drops
    logits = model(batch)
    expect_shape(logits, (100, 2), "expected logits of shape (100, 2), got {}")
    assert torch.equal(model(batch), logits), "asked twice, it answers in two ways: no dropout"
    assert is_close(model(batch[7]), logits[7], absolute=1e-5), (
        "a row alone should get the logits that it gets in a batch"
    )
    for shape in [(20, 5), (100, 1, 1)]:
        many = model(batch.reshape(*shape, 4))
        expect_shape(many, (*shape, 2), f"observations ({', '.join(map(str, shape))}, 4) gave logits of shape {{}}")
        assert is_close(many.reshape(100, 2), logits, absolute=1e-5), "each observation of a batch has its own logits"
    assert [*model.parameters()], f"it has no parameters: {NOT_REGISTERED}"
    assert all(parameter.requires_grad for parameter in model.parameters()), (
        "some of its parameters are frozen (requires_grad is False): no optimizer can move them"
    )
    for sizes in [(4, 2, 32), (3, 7, 5), (6, 3, 2), (5, 40, 9)]:
        expect_network(create_model(*sizes), *sizes)
    expect_one_bend(redraw(create_model(4, 30, 1)))


def expect_one_bend(model):
    """Assert that the logits are those of one hidden unit with a ReLU, however its parameters are laid out.

    Along a ray, far out, half of the observations leave such a unit at 0, and the others make it grow in a straight
    line. With thirty actions some output weights are positive, and some negative.
    """
    if sum(parameter.numel() for parameter in model.parameters()) != 65:
        return  # it has other layers, and the next claim counts them
    rays = torch.randn(400, 4)
    first, second, third = [model(distance * rays) for distance in (1e4, 2e4, 3e4)]
    growing = (second - first).abs().amax(dim=-1) > 10
    share = growing.float().mean()
    assert share > 0.1, "with one hidden unit and huge inputs no logit grows: nothing may squash them"
    assert share < 0.9, "with one hidden unit every input moves the logits: is the ReLU, max(h, 0), missing?"
    assert is_close_in_length(third - second, second - first), "with one hidden unit the logits bend far out, too"
    assert first.min() < -10 and first.max() > 10, "no logit is ever positive, or none negative: hand them on"
    near, middle, far = [model(distance * rays) for distance in (0.9, 1.0, 1.1)]
    curved = (near + far - 2 * middle).abs().amax(dim=-1) > 1e-5 * middle.abs().max()
    assert curved.float().mean() < 0.3, "with one hidden unit the logits are curved: max(h, 0) has straight pieces"
    weights = torch.randn(400, 30)
    gradient = torch.autograd.grad((model(rays) * weights).sum(), model.parameters(), allow_unused=True)
    assert all(part is not None for part in gradient), LOST
    for _ in range(8):
        nudge, ends = [torch.randn_like(parameter) for parameter in model.parameters()], []
        for sign in (1, -1):
            nudged = copy.deepcopy(model)
            with torch.no_grad():
                for parameter, move in zip(nudged.parameters(), nudge, strict=True):
                    parameter += sign * 1e-4 * move
                ends.append((nudged(rays).double() * weights).sum())
        slope = (flatten(gradient) * flatten(nudge)).sum()
        # A nudge that carries an observation over the bend makes a little difference, a layer that is lost a large one.
        assert abs((ends[0] - ends[1]) / 2e-4 - slope) < 0.3 * flatten(gradient).norm(), LOST


def expect_network(model, inputs, outputs, hidden_units):
    """Assert that logits and gradients are those of a hidden layer with a ReLU, for whatever parameters it has.

    The sizes must differ, and be above 1: they tell which parameter is which. Where they do not, nothing is said.
    """
    sizes = [(inputs, hidden_units), (hidden_units,), (hidden_units, outputs), (outputs,)]
    found = {tuple(sorted(size for size in parameter.shape if size > 1)): parameter for parameter in model.parameters()}
    if {*found} != {tuple(sorted(size)) for size in sizes} or len(found) != len([*model.parameters()]):
        return  # it has other layers, and the next claim counts them
    w1, b1, w2, b2 = [
        parameter.reshape(size) if parameter.shape[0] == size[0] or len(size) == 1 else parameter.T
        for size, parameter in ((size, found[tuple(sorted(size))]) for size in sizes)
    ]

    def close(other):
        return bool(((got - other).abs() <= 1e-4 * other.abs().amax(dim=-1, keepdim=True) + 1e-5).all())

    distinct = len(torch.unique(torch.cat([w1, b1[None]]).detach(), dim=1).T)
    assert distinct == hidden_units, (
        f"of its {hidden_units} hidden units {distinct} begin differently: alike they learn alike, so draw at random"
    )
    alive = ((torch.randn(200, inputs) @ w1 + b1) > 0).any(dim=0).float().mean()
    assert alive > 0.1, "its hidden units begin at 0 for every observation, where a ReLU has no slope"
    redraw(model)  # a start may be as small as one likes
    observations = torch.randn(60, inputs) * torch.logspace(-2, 6, 60)[:, None]  # near and far, where nothing is cut
    got = model(observations.clone())
    hidden = observations @ w1 + b1
    expected = hidden.relu() @ w2 + b2
    known = {
        "the model is a straight line in its input: is the ReLU missing?": hidden @ w2 + b2,
        "the logits of a row sum to 1: leave the softmax out": expected.softmax(dim=-1),
        "no logit is ever positive: leave the log_softmax out": expected.log_softmax(dim=-1),
        "no logit is ever negative: the last layer's output goes out as it is": expected.relu(),
        "the hidden units are max(h, 0), not squashed by tanh": hidden.tanh() @ w2 + b2,
        "the hidden units are max(h, 0), not squashed by a sigmoid": hidden.sigmoid() @ w2 + b2,
    }
    for mistake, mistaken in known.items():
        assert close(expected) or not close(mistaken), mistake
    wrong = [f"[{', '.join(f'{value:.4g}' for value in row)}]" for row in (expected[20, :2], got[20, :2])]
    assert close(expected), (
        f"with its own parameters the first logits should be max(W1 s + b1, 0) W2 + b2 = {wrong[0]}, got {wrong[1]}; "
        "with huge and tiny inputs it shows. Nothing else may happen on the way"
    )
    assert got.requires_grad, LOST
    weights = torch.randn_like(expected) / expected.detach().abs().amax(dim=-1, keepdim=True)
    gradients = [
        torch.autograd.grad((logits * weights).sum(), found.values(), allow_unused=True) for logits in (got, expected)
    ]
    assert all(gradient is not None for gradient in gradients[0]), LOST
    assert is_close_in_length(*map(flatten, gradients)), LOST


@claim("create_model", "has the sizes it is asked for")
def _(create_model):
    known = {
        0: NOT_REGISTERED,
        10: "there is no hidden layer",
        192: "the biases are missing",
        1282: "there are two hidden layers",
        226: "CartPole's sizes are written in; use the arguments",
        293: "hidden_units is not used",
    }
    random = [tuple(sizes) for sizes in np.random.randint(1, 70, (4, 3)).tolist()]
    for sizes in [(4, 2), (6, 3), (3, 5, 7), (2, 2, 1), *random]:
        inputs, outputs, hidden_units = (*sizes, 32)[:3]
        expected = (inputs + 1) * hidden_units + (hidden_units + 1) * outputs
        model = create_model(*sizes)
        got = sum(parameter.numel() for parameter in model.parameters())
        mistake = known.get(got, "expected one hidden layer")
        assert got == expected, f"create_model{sizes}: expected {expected} parameters, got {got}; {mistake}"
        expect_shape(model(torch.randn(5, inputs)), (5, outputs), f"create_model{sizes}: got logits of shape {{}}")
    first, second = create_model(4, 2), create_model(4, 2)
    shared = {*map(id, first.parameters())} & {*map(id, second.parameters())}
    assert not shared and not torch.equal(flatten(first.parameters()), flatten(second.parameters())), (
        "two calls gave the same network: build a new one in every call"
    )
    starts = []
    with torch.random.fork_rng(devices=[]):
        for _ in range(2):
            torch.manual_seed(1)
            starts.append(flatten(create_model(4, 2).parameters()))
    assert torch.equal(*starts), "torch.manual_seed should decide the first parameters: draw them with torch"


# Lesson 2


@claim("probability_of_right")
def _(probability_of_right):
    expect_number(
        float(probability_of_right(torch.tensor(math.log(3)))),
        0.75,
        "for a difference of log 3 expected 0.75",
        {
            0.25: "that is left's probability; look at the sign of the exponent",
            3.0: "that is how many times likelier right is than left",
            0.8: "that is the hyperbolic tangent, which goes from -1 to 1",
            1.0: "a softmax over a single number is always 1",
            1.5: "the two terms in the bottom add up",
        },
        show=".4f",
    )
    pairs = torch.randn(1_000, 2)
    got = probability_of_right(pairs[:, 1] - pairs[:, 0])
    expect_shape(got, (1_000,), "1,000 differences gave shape {}")
    assert is_close(got, torch.softmax(pairs, dim=-1)[:, 1], absolute=1e-5), (
        "for random logits it differs from the softmax"
    )
    # Far out, where a bound would show; the tolerance is what 32 bits leave of 1 minus a small number.
    for shape in [(), (2,), (7, 5), (1, 40), (1, 1)]:
        differences = (40 * torch.randn(shape)).clamp(-80, 80)
        differences.view(-1)[-1:] = 0
        got = probability_of_right(differences)
        expect_shape(got, shape, f"differences of shape {shape} gave shape {{}}")
        assert is_close(got, torch.sigmoid(differences.double()), absolute=2e-7), (
            "for large differences it differs from the softmax: nothing may cut them off"
        )
    differences = (2 * torch.randn(100)).requires_grad_()
    lost = "its gradient should be p · (1 - p): leave it to autograd, with no math, detach or .item() on the way"
    got = probability_of_right(differences)
    assert isinstance(got, Tensor) and got.requires_grad, lost
    (gradient,) = torch.autograd.grad(got.sum(), differences)
    p = torch.sigmoid(differences)
    assert is_close(gradient, p * (1 - p), absolute=1e-4), lost


def echo_model():
    """Return a model that gives back its input, so that the observation is the logits."""
    model = nn.Linear(2, 2, bias=False)
    nn.init.eye_(model.weight)
    return model


@claim("get_policy", "gives the softmax of the logits")
def _(get_policy):
    policy = get_policy(echo_model(), torch.tensor([0.0, math.log(3)]))
    expect_type(policy, Categorical, "a Categorical")
    expect_shape(policy.probs, (2,), "one observation should give probabilities of shape (2,), got {}")
    expect_number(
        policy.probs[1].item(),
        0.75,
        "logits 0 and log 3 should give right 0.75",
        {
            0.6225: "the softmax was applied twice; Categorical(logits=...) applies it itself",
            0.5: "is the observation used?",
            0.25: "left and right are swapped",
            1.0: "the logits were taken for probabilities, or the largest was made certain",
        },
        show=".4f",
    )
    assert policy.log_prob(torch.tensor(1)).requires_grad, (
        "the gradient is lost: is the model asked, with no detach, no_grad or .item() on the way?"
    )
    # A constant on top of all logits changes nothing, and shows where something cuts them off.
    model, observation = vpg_helpers.create_model(3, 4), 2 * torch.randn(3)
    for offset in (0, 1_000, -1_000):
        for parameter in redraw(model, 0.3).parameters():
            parameter.grad = torch.ones_like(parameter)  # someone's, and not to be touched
        with torch.no_grad():
            model[-1].bias += offset
        dice = torch.get_rng_state()
        policy, expected = get_policy(model, observation), log_probabilities_of(model, observation)
        assert torch.equal(dice, torch.get_rng_state()), (
            "it draws random numbers: a policy only says what is how likely"
        )
        expect_shape(policy.probs, (4,), "a model with four logits should give four probabilities, got shape {}")
        assert is_close(policy.probs, expected.exp(), relative=2e-3), (
            f"probabilities {policy.probs.tolist()} for logits {model(observation).tolist()}, expected "
            f"{expected.exp().tolist()}: ask the model anew in every call, and cut nothing off"
        )
        weights, actions = torch.randn(4), torch.arange(4)
        gradients = [
            torch.autograd.grad((weights * values).sum(), model.parameters())
            for values in (torch.stack([policy.log_prob(action) for action in actions]), expected)
        ]
        assert is_close_in_length(*map(flatten, gradients), share=1e-2), (
            "the gradient of the log-probabilities differs from autograd's: hand on all logits as they come out of "
            "the model that was handed over"
        )


@claim("get_policy", "takes batches and arrays")
def _(get_policy):
    observations = 3 * np.random.standard_normal((7, 5, 2)).astype(np.float32)
    probabilities = get_policy(echo_model(), observations).probs
    expect_shape(probabilities, (7, 5, 2), "observations (7, 5, 2) should give as many probabilities, got {}")
    expected = torch.softmax(torch.as_tensor(observations), dim=-1)
    assert is_close(probabilities, expected, absolute=1e-5), (
        "each pair of logits should have its own softmax, over the last dimension"
    )
    for shape, actions in [((), 4), ((1,), 2), ((1, 1), 3), ((6,), 5), ((3, 1), 2), ((2, 3, 4), 3)]:
        features = np.random.randint(1, 6)
        model, observations = (
            redraw(vpg_helpers.create_model(features, actions), 0.6),
            10 * torch.randn(*shape, features),
        )
        for given in (observations, observations.numpy()):
            policy, expected = get_policy(model, given), log_probabilities_of(model, observations)
            expect_shape(
                policy.probs,
                (*shape, actions),
                f"{actions} actions, observations {tuple(observations.shape)}: got probabilities of shape {{}}",
            )
            assert is_close(policy.probs, expected.exp(), relative=1e-3), (
                f"for observations of shape {tuple(observations.shape)} the probabilities differ from the softmax"
            )
            policy, expected = get_policy(model, given / 30), log_probabilities_of(model, observations / 30)
            taken = torch.randint(actions, shape)
            values = policy.log_prob(taken), expected.gather(-1, taken[..., None])
            assert values[0].requires_grad, (
                f"the gradient is lost for a {type(given).__name__} of shape {tuple(given.shape)}: no detach or no_grad"
            )
            gradients = [torch.autograd.grad(value.sum(), model.parameters()) for value in values]
            assert is_close_in_length(*map(flatten, gradients), share=1e-2), (
                "in a batch the gradient of the log-probabilities differs from autograd's: hand on all the logits"
            )


# Lesson 3


@claim("gradient_of_log_probability")
def _(gradient_of_log_probability):
    got = gradient_of_log_probability(torch.tensor([0.25, 0.75]), 1)
    expect_type(got, Tensor, "a tensor")
    expect_shape(got, (2,), "expected one derivative per logit, got {}")
    expect_value(
        [round(float(derivative), 2) for derivative in got],
        [-0.25, 0.25],
        "expected [-0.25, 0.25]",
        {
            (0.25, -0.25): "the signs are swapped",
            (0.0, 0.25): "the other action's logit changes the sum, too",
            (-0.25, -0.75): "the first term, the logit of the action taken, is missing",
            (0.75, 0.25): "only the logit of the action taken has a 1 in front",
            (0.0, 1.0): "the second term, the logarithm of the sum, is missing",
            (0.0, 1.33): "that is the derivative by the probability; take it by the logits",
        },
    )
    answers = []
    for actions in (5, 2, 12):
        logits = (3 * torch.randn(actions)).requires_grad_()
        log_probability = torch.log_softmax(logits, dim=-1)
        for action in range(actions):
            (expected,) = torch.autograd.grad(log_probability[action], logits, retain_graph=True)
            answers.append((gradient_of_log_probability(log_probability.exp().detach(), action), expected, action))
    # Compared at the end: an answer must not change when another one is given.
    for got, expected, action in answers:
        expect_shape(got, tuple(expected.shape), f"{len(expected)} actions should have as many derivatives, got {{}}")
        assert is_close(got, expected, absolute=1e-5), (
            f"action {action} of {'five' if len(expected) == 5 else len(expected)}: autograd has "
            f"{expected.tolist()}, got {got.tolist()}"
        )


@claim("get_action", "samples")
def _(get_action):
    policy = Categorical(logits=torch.tensor([[0.0, math.log(3)]] * 10_000, requires_grad=True))
    returned = get_action(policy)
    pair = isinstance(returned, (tuple, list)) and len(returned) == 2
    assert pair, f"expected an action and its log-probability, got {type(returned).__name__}"
    actions, log_probabilities = returned
    assert not isinstance(log_probabilities, np.ndarray), "the order is turned round: action first"
    expect_type(actions, np.ndarray, "the actions as a NumPy array")
    expect_shape(actions, (10_000,), "10,000 policies gave actions of shape {}")
    assert np.issubdtype(actions.dtype, np.integer), f"env.step wants integers, got {actions.dtype}"
    # Five standard errors: a correct function fails this about once in two million tries.
    frequency, error = actions.mean(), np.sqrt(0.75 * 0.25 / 10_000)
    assert frequency < 1, "left never came up in 10,000 tries at 0.25: sample, do not take the best"
    assert abs(frequency - 0.75) < 5 * error, (
        f"right came up {frequency:.3f} of the time, expected 0.75: sample from the policy"
    )
    for first, second in [(actions[::2], actions[1::2]), (actions[1:-1:2], actions[2::2]), np.split(actions, 2)]:
        assert abs(np.corrcoef(first, second)[0, 1]) * np.sqrt(len(first)) < 6, (
            "within a batch actions depend on each other: every step rolls a die of its own"
        )
    assert not np.array_equal(actions, get_action(policy)[0]), (
        "10,000 dice fell alike in two calls: roll them in every call, and seed nothing"
    )
    counts = [get_action(policy.expand((50,)))[0].sum() for policy in 200 * [Categorical(logits=policy.logits[0])]]
    assert 0.4 < np.var(counts) / (50 * 0.75 * 0.25) < 1.8, (
        f"right came up {min(counts)} to {max(counts)} times in batches of 50: every step rolls a die of its own"
    )
    rolled = []
    with torch.random.fork_rng(devices=[]):
        for seed in (7, 7):
            torch.manual_seed(seed)
            rolled.append(get_action(policy)[0])
    assert np.array_equal(*rolled), "torch.manual_seed should decide the actions: roll torch's dice"
    # Dice of many sides, each with chances of its own, so that a few wrong rolls in a hundred show.
    dice = [
        2 * torch.randn(20_000, 2),
        3 * torch.randn(20_000, 4),
        torch.randn(20_000, 9),
        math.log(59) * torch.eye(60),
    ]
    for logits in dice:
        policy = Categorical(logits=logits)
        actions = get_action(policy)[0]
        known, sides = len(np.unique(actions)), logits.shape[-1]
        assert known == sides or len(actions) < 1_000, f"of {sides} actions only {known} ever come up: is 2 written in?"
        expect_samples(actions, policy.logits, {})
    # One by one: dice that are sure, and dice with many rare sides; a roll must not depend on the one before.
    for logits in [8 * torch.randn(600, 4), math.log(59) * torch.eye(60)[:1].repeat(300, 1)]:
        policy = Categorical(logits=logits)
        actions = np.array([get_action(Categorical(logits=each))[0] for each in logits])
        expect_samples(actions, policy.logits, {})
        last = torch.nn.functional.one_hot(torch.as_tensor(actions).long(), logits.shape[-1]).roll(1, dims=0)
        last[0] = 0
        suspects = {
            "an action makes itself likelier the next time: roll the die anew": torch.log_softmax(
                policy.logits + last, dim=-1
            ),
            "an action makes itself less likely the next time: roll the die anew": torch.log_softmax(
                policy.logits - last, dim=-1
            ),
        }
        expect_samples(actions, policy.logits, suspects)


class Unlikely(Categorical):
    """A policy whose die always shows the least likely side."""

    def sample(self, sample_shape=()):
        return self.probs.argmin(dim=-1).expand(torch.Size(sample_shape) + self.batch_shape)


@claim("get_action", "returns each action's own log-probability")
def _(get_action):
    for shape in [(1_000,), ()]:
        logits = torch.tensor([0.0, math.log(3)]).expand(*shape, 2).clone().requires_grad_()
        actions, log_probabilities = get_action(Categorical(logits=logits))
        expect_shape(actions, shape, f"a policy of shape {shape}: actions {{}}")
        expect_type(log_probabilities, Tensor, "the log-probability as a tensor")
        expect_shape(log_probabilities, shape, f"expected log-probabilities of shape {shape}, got {{}}")
        expected = torch.where(torch.as_tensor(actions) == 1, 0.75, 0.25)
        assert not is_close(log_probabilities, expected, absolute=1e-4), "got probabilities: take their logarithm"
        assert is_close(log_probabilities, expected.log(), absolute=1e-4), (
            "a log-probability belongs to another action than the one returned with it"
        )
        assert log_probabilities.requires_grad, (
            "the log-probability lost its gradient: no detach, no_grad, .item() or NumPy"
        )
    for shape, sides in [((), 3), ((1,), 2), ((7, 5), 4), ((1, 1), 6), ((40,), 12)]:
        for kind, spread in [(Categorical, 2), (Unlikely, 20)]:
            logits = (spread * torch.randn(*shape, sides)).requires_grad_()
            actions, log_probabilities = get_action(kind(logits=logits))
            expect_type(actions, np.ndarray, "the actions as a NumPy array, of shape () for one")
            expect_shape(actions, shape, f"policies of shape {shape}: actions {{}}")
            expect_shape(log_probabilities, shape, f"policies of shape {shape}: log-probabilities {{}}")
            taken = torch.as_tensor(actions).long().unsqueeze(-1)
            expected = torch.log_softmax(logits, dim=-1).gather(-1, taken).squeeze(-1)
            assert is_close(log_probabilities, expected, absolute=1e-4), (
                f"log-probability {log_probabilities.flatten()[0]:.3f} for an action with {expected.flatten()[0]:.3f}"
            )
            gradients = [torch.autograd.grad(value.sum(), logits)[0] for value in (log_probabilities, expected)]
            assert is_close(*gradients, absolute=1e-4), (
                "the log-probability has another gradient than the policy's log_prob: hand it on as it is"
            )


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
        assert not self.ended, f"the loop plays on after {self.ended} was True; it ends an episode"
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


@claim("play_episode", "plays one whole episode by the policy")
def _(play_episode):
    model = vpg_helpers.create_model(3, 4)
    for end in Script.ENDS:
        script = Script(3, 4, ends=[end])
        play_episode(script, model)
        lengths = [len(episode) for episode in script.begun]
        assert lengths == [script.length], (
            f"an episode of {script.length} steps, ended by {end}: it began {len(lengths)} times and played {lengths} "
            "steps; reset once, and play until it is over"
        )
    script = Script(3, 4, random=True)
    asked = watch_questions(redraw(model, 0.5))
    for _ in range(40):
        play_episode(script, model)
    expect_seen(asked, script)
    observations, _, actions, _, lengths = columns(script)
    starts = np.repeat(lengths.cumsum() - lengths, lengths)
    suspects = {
        "every step is played as the first one; ask with the observation of the moment": log_probabilities_of(
            model, observations[starts]
        )
    }
    expect_samples(actions, log_probabilities_of(model, observations), suspects)


@claim("play_episode", "returns what was seen, done and earned")
def _(play_episode):
    played = []
    for features, sides in [(4, 2), (3, 5), (1, 2), (6, 3)]:
        script, model = Script(features, sides, random=True), redraw(vpg_helpers.create_model(features, sides))
        for _ in range(3):
            script.begun = []
            played.append((play_episode(script, model), script.episodes[0], features))
    # Compared at the end: what was handed over must not change when another episode is played.
    for returned, episode, features in played:
        three = isinstance(returned, (tuple, list)) and len(returned) == 3
        assert three, f"expected observations, actions and rewards, got {type(returned).__name__}"
        observations, actions, rewards = returned
        seen, later, done, earned = map(np.array, zip(*episode, strict=True))
        steps = len(episode)
        expect_type(observations, np.ndarray, "the observations as one array", ": np.stack joins them")
        known = {
            (steps, features): "; the one in which it ended, or the first one, is missing",
            (steps + 2, features): "; one is there twice",
        }
        got = observations.shape
        assert got == (steps + 1, features), (
            f"{steps} steps: expected observations of shape {(steps + 1, features)}, got {got}{known.get(got, '')}"
        )
        assert np.array_equal(observations, [*seen, later[-1]]), (
            "expected the first observation, and then the one after every step, in this order"
        )
        for name, values, expected in [("actions", actions, done), ("rewards", rewards, earned)]:
            expect_shape(values, (steps,), f"{steps} steps: expected as many {name}, got shape {{}}")
            assert is_close(np.asarray(values, dtype=float), expected), (
                f"expected the {name} {expected.tolist()}, got {list(values)}: one for every step, as they came"
            )


# Lesson 4: the world of three states; its trajectories and its model come from the lesson


def random_trajectories(steps: Iterable[int]) -> list[list[tuple[int, int, int]]]:
    """Return trajectories of these many steps through the two states in which the pole has not fallen."""
    return [[*zip(*np.random.randint(2, size=(3, number)).tolist(), strict=True)] for number in steps]


def chosen_log_probabilities(model, trajectory):
    """Return log π(action | state) for every step."""
    states, actions, _ = map(list, zip(*trajectory, strict=True))
    return torch.log_softmax(model.weight.T, dim=-1)[states, actions]


@contextlib.contextmanager
def other_weights(model: nn.Linear, spread: float):
    """Give the model random weights for a while, and a gradient that is somebody else's; assert that both stay."""
    before = model.weight.detach().clone()
    nn.init.normal_(model.weight, std=spread)
    model.weight.grad = torch.ones_like(model.weight)
    now = model.weight.detach().clone()
    try:
        yield
        assert torch.equal(model.weight, now) and model.weight.grad is not None and model.weight.grad.eq(1).all(), (
            "it changes the model, or clears its gradient: ask it, and leave it as it is"
        )
    finally:
        model.weight.data.copy_(before)
        model.weight.grad = None


def expect_gradient(got: Tensor, expected: Tensor, parameter: Tensor, said: str):
    """Assert that two scalars have the same gradient by a parameter."""
    gradients = [torch.autograd.grad(scalar, parameter, retain_graph=True)[0] for scalar in (got, expected)]
    assert is_close_in_length(*gradients), f"{said}: expected {gradients[1].tolist()}, got {gradients[0].tolist()}"


@claim("trajectory_probability")
def _(trajectory_probability, trajectories):
    # This policy pushes with 0.75 when upright and with 0.5 when leaning.
    model, falling = nn.Linear(2, 2, bias=False, dtype=torch.float64), [(0, 1, 1), (1, 0, 2)]
    model.weight.grad = torch.ones_like(model.weight)  # someone's, and not to be touched
    # A learner's get_policy may hand over 32 bits.
    model.register_forward_pre_hook(lambda model, inputs: inputs[0].double())
    model.weight.data = torch.tensor([[0.0, 0.0], [np.log(3), 0.0]], dtype=torch.float64)
    got = trajectory_probability(model, falling)
    hint = ": multiply by policy.probs, no .item() or detach"
    expect_type(got, Tensor, "a tensor with its gradient", hint)
    expect_shape(got, (), "expected a scalar, got shape {}")
    assert got.requires_grad, f"expected a tensor with its gradient, got Tensor{hint}"
    expect_number(
        got.item(),
        0.108,  # 0.8 · 0.75 · 0.6 · 0.5 · 0.6
        "expected 0.108 for the trajectory by hand",
        {
            0.135: "the chance of the start is missing",
            0.3: "the chances of the next states are missing",
            0.054: "every step has its own state, and so its own row of policy.probs",
            0.0574: "policy.logits are log-probabilities; take policy.probs",
            0.1116: "that is tiny_model's; use the model that is handed over",
            0.012: "the state comes first, then the action",
        },
        show=".4g",
        tolerance=1e-6,
    )
    got = trajectory_probability(model, falling, np.full((2, 2, 3), 1 / 3)).item()
    assert abs(got - 0.3 / 9) < 1e-6, f"other dynamics: expected 0.0333, got {got:.4f}; are they used?"
    nn.init.normal_(model.weight)
    total = sum(trajectory_probability(model, trajectory).item() for trajectory in trajectories)
    assert abs(total - 1) < 1e-5, f"the sum over all trajectories should be 1, got {total:.4f}"
    # Long ones too, in worlds with chances of their own.
    for trajectory in random_trajectories([1, 1, 1, 2, 2, 3, 5, 8, 13, 25]):
        nn.init.normal_(model.weight)
        world = np.random.dirichlet(np.full(3, 0.5), (2, 2))
        if len(trajectory) == 2:
            world[trajectory[-1]] = 0  # what cannot happen
        chances = vpg_helpers.START[trajectory[0][0]] * np.prod([world[step] for step in trajectory])
        expected = chances * chosen_log_probabilities(model, trajectory).sum().exp()
        got = trajectory_probability(model, trajectory, dynamics=world)
        assert is_close(got, expected, relative=1e-3, absolute=0), (
            f"{len(trajectory)} steps from state {trajectory[0][0]}, in other dynamics: expected "
            f"{expected.item():.3g}, got {got.item():.3g}"
        )
        scale = expected.item() or 1  # chances may be tiny, and gradients are compared by their length
        expect_gradient(got / scale, expected / scale, model.weight, "the probability is right, its gradient is not")


@claim("sum_of_log_policy")
def _(sum_of_log_policy, model):
    # The lesson's model pushes upright with 0.6225 and leaning with 0.3775.
    got = sum_of_log_policy([(0, 1, 1), (1, 1, 2)])
    hint = ": no .item() or math.log"
    expect_type(got, Tensor, "a tensor with its gradient", hint)
    expect_shape(got, (), "expected a scalar, got shape {}")
    assert got.requires_grad, f"expected a tensor with its gradient, got Tensor{hint}"
    expect_number(
        round(got.item(), 3),
        -1.448,  # log 0.6225 + log 0.3775
        "expected -1.448",
        {
            1.0: "those are probabilities; take their logarithms",
            0.235: "that is the product of the probabilities; line 5 adds logarithms",
            -0.724: "that is the mean; line 5 has the sum over all steps",
            -0.974: "that is the last step's; line 5 has the sum over all steps",
            1.448: "a probability below 1 has a negative logarithm",
            -3.792: "start and next states do not contain θ; leave them out",
        },
    )
    # By the logits: 1 - 0.6225 for the push upright, -0.3775 for the wait; 1 - 0.3775 and -0.6225 leaning.
    (gradient,) = torch.autograd.grad(got, model.weight)
    expected = torch.tensor([[-0.3775, -0.6225], [0.3775, 0.6225]])
    assert is_close(gradient, expected, absolute=1e-4), (
        f"expected the gradient {expected.tolist()}, got {gradient.tolist()}: "
        "policy.logits has the state first, then the action"
    )
    every_step = [[(state, action, 2)] for state in (0, 1) for action in (0, 1)]
    # 300 steps are too many for a product of 32-bit numbers, and few enough for one of 64 bits, or for a recursion.
    for trajectory in [*every_step, *random_trajectories([2, 3, 4, 10, 40, 300])]:
        with other_weights(model, spread=1 if len(trajectory) == 300 else 4):
            got, expected = sum_of_log_policy(trajectory), chosen_log_probabilities(model, trajectory).sum()
            assert is_close(got, expected), (
                f"for {trajectory[:3]}{'...' if trajectory[3:] else ''} and other weights of the model expected "
                f"{expected.item():.3f}, got {got.item():.3f}: ask for the policy in every call, and use every step's "
                "own state and action"
            )
            expect_gradient(got, expected, model.weight, "the sum is right, its gradient is not")


@claim("calculate_loss", "has the right value")
def _(calculate_loss):
    log_probabilities = torch.tensor([-1.0, -3.0], requires_grad=True)
    loss = calculate_loss(log_probabilities, torch.tensor([2.0, 5.0]))
    expect_type(loss, Tensor, "a tensor")
    expect_shape(loss, (), "expected a scalar, got shape {}: take the mean")
    expect_number(
        round(loss.item(), 4),
        8.5,
        "expected -(-1*2 + -3*5) / 2 = 8.5",
        {
            -8.5: "optimizers descend, so the minus sign belongs in front",
            17.0: "take the mean over the steps, not the sum",
            2.0: "are the weights used?",
            7.0: "multiply entry by entry first, then take the mean",
            2.4286: "divide by the number of steps, not by the sum of the weights",
            1.5: "the weights come as they are to be used; subtract nothing",
            0.7071: "the weights come as they are to be used; do not normalize them",
            -0.4923: "the log-probabilities come as logarithms; no exponential is needed",
        },
    )
    for steps, scale in [(1, 1), (3, 1e5), (200, 1e-3), (999, 30), (5_000, 1e3)]:
        weights, leaf = scale * torch.randn(steps), (-500 * torch.rand(steps)).requires_grad_()
        weights[1::3], log_probabilities = 0, 1 * leaf  # the outcome of a computation, as a model's are
        loss = calculate_loss(log_probabilities, weights)
        expect_shape(loss, (), f"{steps} steps: expected a scalar, got shape {{}}")
        products = log_probabilities.detach().double() * weights.double()
        assert is_close(loss, -products.mean(), absolute=1e-5 * products.abs().max().item()), (
            f"{steps} steps, weights up to {weights.abs().max():.4g}: expected {-products.mean():.6g}, got "
            f"{loss.item():.6g}; everything comes as it is to be used, large or small"
        )


@claim("calculate_loss", "has the right gradient")
def _(calculate_loss):
    for weights in [torch.tensor([2.0, 5.0]), *(50 * torch.randn(3, 40)), 1e4 * torch.randn(300), torch.randn(1)]:
        log_probabilities = (-200 * torch.rand(len(weights))).requires_grad_()
        loss = calculate_loss(log_probabilities, weights)
        assert loss.requires_grad, "the loss lost its gradient: no detach, .item(), torch.tensor() or NumPy on the way"
        loss.backward()
        expected, got = -weights / len(weights), log_probabilities.grad
        assert not is_close(got, -expected, absolute=1e-5), "the gradient has the wrong sign"
        assert is_close(got, expected, absolute=1e-5), (
            f"weights {weights[:2].tolist()}, {len(weights)} steps: expected a gradient that "
            f"begins {expected[:2].tolist()}, got {got[:2].tolist()}"
        )
    start = time.perf_counter()
    calculate_loss(torch.zeros(5_000, requires_grad=True), torch.ones(5_000)).backward()
    if time.perf_counter() - start > 0.03:
        print("Right, but slow, and lesson 6 will wait for it: multiply whole tensors, in no loop.")


# Lesson 5


def expected_move(model, observations, actions, weights):
    """Return how plain gradient descent with learning rate 1 moves the parameters."""
    taken = log_probabilities_of(model, observations)[range(len(actions)), actions]
    mean = (taken * torch.as_tensor(weights, dtype=torch.float32)).mean()
    return flatten(torch.autograd.grad(mean, model.parameters()))


def random_batch(
    features: int, actions: int, steps: int, scale: float = 1.0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return observations, actions and weights, from -20 to 50 scales, of a batch that nobody has played."""
    return (
        np.random.standard_normal((steps, features)).astype(np.float32),
        np.random.randint(actions, size=steps),
        scale * np.random.uniform(-20, 50, size=steps),
    )


@claim("take_one_gradient_step", "moves the parameters against the gradient of the loss")
def _(take_one_gradient_step):
    worlds = [(4, 2, 30, 0.01, 1), (3, 5, 7, 10, 1e-2), (1, 3, 200, 1e-5, 1e4), (6, 2, 1, 0.003, 1), (3, 4, 50, 0.1, 1)]
    for features, actions, steps, rate, scale in worlds:
        model = redraw(vpg_helpers.create_model(features, actions, 8), 1.5 if steps == 50 else 0.5)
        batch = random_batch(features, actions, steps, scale)
        start, optimizer = copy.deepcopy(model), torch.optim.SGD(model.parameters(), lr=rate)
        gradient_steps = []
        optimizer.register_step_post_hook(lambda *_, seen=gradient_steps: seen.append(1))
        take_one_gradient_step(model, optimizer, *batch)
        number = len(gradient_steps)
        assert number == 1, f"expected one step of the optimizer that is handed over, got {number}"
        got, right = flatten(model.parameters()) - flatten(start.parameters()), rate * expected_move(start, *batch)
        known = {
            "nothing moved: loss.backward(), and only then optimizer.step()": 0 * right,
            "it goes downhill: look at the sign": -right,
            "it takes the sum over the steps, calculate_loss the mean": steps * right,
            "the weights are not used": rate * expected_move(start, *batch[:2], np.ones(steps)),
        }
        if not is_close_in_length(got, right, share=5e-5):
            mistakes = [f"; {said}" for said, move in known.items() if is_close_in_length(got, move, share=1e-2)]
            raise AssertionError(
                f"{steps} steps, {actions} actions: the parameters should move by {right.norm():.4g}, got a move of "
                f"{got.norm():.4g}, {(got - right).norm():.4g} away from it{''.join(mistakes[:1])}"
            )


@claim("take_one_gradient_step", "begins with a fresh gradient every time")
def _(take_one_gradient_step):
    model = vpg_helpers.create_model(4, 2)
    optimizer, moves = torch.optim.SGD(model.parameters(), lr=0.01), []
    for steps in (20, 50, 5):
        start, batch = copy.deepcopy(model), random_batch(4, 2, steps)
        take_one_gradient_step(model, optimizer, *batch)
        moves.append(flatten(model.parameters()) - flatten(start.parameters()))
        assert is_close_in_length(moves[-1], 0.01 * expected_move(start, *batch), share=1e-2), (
            f"step number {len(moves)} has the gradients of those before in it: optimizer.zero_grad()?"
            if len(moves) > 1
            else "the first step is not that of gradient descent"
        )


def move_of_one_epoch(train_one_epoch, model, script, optimizer, budget=40):
    """Return how an epoch moves the parameters; assert that it takes one gradient step."""
    gradient_steps, before = [], flatten(model.parameters())
    hook = optimizer.register_step_post_hook(lambda *_: gradient_steps.append(1))
    script.begun = []
    train_one_epoch(script, model, optimizer, max_timesteps=budget)
    hook.remove()
    assert script.ended or not script.begun[-1], "the last episode was cut short: play it to its end"
    number, played = len(gradient_steps), sum(map(len, script.begun))
    assert number == 1, f"expected one optimizer step in one epoch, got {number}"
    assert played >= budget, f"a budget of {budget}: it played {played} steps; play until the budget is met"
    assert model.training, "it leaves the model in eval mode: leave it as it came"
    return flatten(model.parameters()) - before


def known_mistakes(script):
    """Return well-known mistakes, each with the observations and weights that it would use."""
    observations, later, _, rewards, lengths = columns(script)
    each = np.split(rewards, lengths.cumsum()[:-1])
    returns = np.repeat([sum(own) for own in each], lengths)
    centered = returns - returns.mean()
    starts = np.repeat(lengths.cumsum() - lengths, lengths)
    to_go = returns - np.concatenate([own.cumsum() - own for own in each])
    return {
        "each step is weighted with its own reward": (observations, rewards),
        "the weights are rewards-to-go": (observations, to_go),
        "the weights are the rewards up to each step": (observations, returns - to_go + rewards),
        "every weight is 1": (observations, np.ones_like(rewards)),
        "each episode is averaged by itself": (observations, returns / np.repeat(lengths, lengths)),
        "the weights are lengths": (observations, np.repeat(lengths, lengths)),
        "the weights are shifted by one step": (observations, np.roll(returns, -1)),
        "every step has the last episode's return": (observations, 0 * returns + returns[-1]),
        "every step has the mean return": (observations, 0 * returns + sum(rewards) / len(each)),
        "the weights are normalized": (observations, centered / returns.std(ddof=1)),
        "the weights are divided by their spread": (observations, centered / returns.std()),
        "the mean of the weights is taken off": (observations, centered),
        "each action goes with the observation after it": (later, returns),
        "all steps of an episode have its first observation": (observations[starts], returns),
    }


def returns_of(script):
    """Return the return of every episode, and the weight of every step."""
    returns = [sum(reward for *_, reward in episode) for episode in script.episodes]
    return returns, np.repeat(returns, [len(episode) for episode in script.episodes])


def expect_mean_return(got, script):
    """Assert that an epoch gave the mean of its episodes' returns."""
    expect_type(got, Real, "the mean return as a number")
    returns, weights = returns_of(script)
    known = {sum(returns): "that is the sum of the returns", np.mean(weights): "that is the mean over all steps"}
    known |= {returns[-1]: "that is the last return", sum(returns) / len(weights): "that is the mean reward"}
    said = f"expected a mean return of {np.mean(returns):.2f}"
    expect_number(got, np.mean(returns), said, known, show=".2f", tolerance=1e-5 * (10 + np.abs(returns).max()))


@claim("train_one_epoch", "plays whole episodes to the budget")
def _(train_one_epoch):
    expect_defaults(train_one_epoch, max_timesteps=5_000)
    # Four episodes, 3 + 2 + 3 + 2, meet a budget of 10 exactly, and one of 9 because the last one is finished.
    for budget in (10, 9):
        lengths = play_one_epoch(train_one_epoch, Script(), vpg_helpers.create_model(4, 2), budget)[-1].tolist()
        known = {13: ": one too many, the budget was met", 9: ": the last episode was cut short"}
        known |= dict.fromkeys((23, 25), ": the budget counts steps, and not episodes")
        assert sum(lengths) == 10, (
            f"a budget of {budget}: expected episodes of 3, 2, 3 and 2 steps, got {lengths}"
            f"{known.get(sum(lengths), '')}"
        )
    expect_budget(train_one_epoch, Script(3, 4, random=True), 120)


@claim("train_one_epoch", "ends an episode that is truncated, too")
def _(train_one_epoch):
    for ends in (Script.ENDS[1:2], Script.ENDS):
        expect_budget(train_one_epoch, Script(3, 4, random=True, ends=ends), 60)


def play_one_epoch(train_one_epoch, script, model, budget):
    """Let an epoch play without learning; return the mean return and what the script wrote down, column by column."""
    script.begun = []
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    return train_one_epoch(script, model, optimizer, max_timesteps=budget), *columns(script)


def expect_budget(train_one_epoch, script, budget):
    """Assert that an epoch stops with the first whole episode that meets its budget."""
    model = vpg_helpers.create_model(script.observation_space.shape[0], script.action_space.n)
    *_, lengths = play_one_epoch(train_one_epoch, script, model, budget)
    assert sum(lengths) >= budget > sum(lengths[:-1]), (
        f"a budget of {budget}: it played {sum(lengths)} steps in {len(lengths)} episodes, the last of "
        f"{lengths[-1]}; play until the budget is met, and finish the last episode"
    )


@claim("train_one_epoch", "plays by the policy")
def _(train_one_epoch):
    # In worlds of several sizes, with policies that are sure of much, or of little.
    for features, sides, budget, spread in [(7, 3, 100, 0.3), (3, 4, 120, 5.0)]:
        script, model = Script(features, sides, random=True), vpg_helpers.create_model(features, sides, 8)
        for _ in range(2):
            before = copy.deepcopy(model)
            redraw(model, spread)  # the second epoch has another policy than the first
            drawn, seed, asked = copy.deepcopy(model), np.random.randint(2**31), watch_questions(model)
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                _, observations, _, actions, _, lengths = play_one_epoch(train_one_epoch, script, model, budget)
                assert torch.initial_seed() == seed, "it seeds torch: every epoch would roll the same dice"
            expect_seen(asked, script)
            assert torch.equal(flatten(model.parameters()), flatten(drawn.parameters())), (
                "the learning rate is 0 and the parameters changed: only the optimizer may move them"
            )
            starts = np.repeat(lengths.cumsum() - lengths, lengths)
            earlier = np.maximum(np.arange(len(observations)) - 1, starts)
            late = "ask with the observation of the moment"
            suspects = {
                f"every step of an episode is played as the first one; {late}": (model, starts),
                f"each step is played by the observation before; {late}": (model, earlier),
                "the model before plays; ask the one that was handed over": (before, slice(None)),
            }
            suspects = {said: log_probabilities_of(asked, observations[at]) for said, (asked, at) in suspects.items()}
            expect_samples(actions, log_probabilities_of(model, observations), suspects)


@claim("train_one_epoch", "returns the mean return")
def _(train_one_epoch):
    for script, budget in [(Script(), 10), (Script(), 9), (Script(3, 4, random=True), 120)]:
        model = vpg_helpers.create_model(script.observation_space.shape[0], script.action_space.n)
        expect_mean_return(play_one_epoch(train_one_epoch, script, model, budget)[0], script)


@claim("train_one_epoch", "weighs each step with its episode's return")
def _(train_one_epoch):
    script, model = Script(), vpg_helpers.create_model(4, 2)
    start, optimizer = copy.deepcopy(model), torch.optim.SGD(model.parameters(), lr=1.0)
    got = move_of_one_epoch(train_one_epoch, model, script, optimizer)
    assert got.abs().max() > 0, "the parameters did not move: backward, and only then step?"
    observations, _, actions, _, _ = columns(script)
    right = expected_move(start, observations, actions, returns_of(script)[1])
    assert not torch.allclose(got, -right, atol=1e-4), "it goes downhill: look at the sign"
    for mistake, (mistaken, weights) in known_mistakes(script).items():
        move = expected_move(start, mistaken, actions, weights)
        assert not torch.allclose(got, move, atol=1e-4), (
            f"{mistake}; expected each step's own observation, weighted with its episode's return"
        )
    unlike = "does the loss have the actions that were played, each with its observation and weight?"
    assert torch.allclose(got, right, atol=1e-4), (
        f"the parameters should move by {right.norm():.4f}, got a move of {got.norm():.4f}: {unlike}"
    )
    # Returns from tiny to huge, of either sign; a policy that is sure of much; more actions and features.
    worlds = [(3, 2, 0.01, 60, 0), (6, 3, 1.0, 1_500, 0), (5, 40, 2_000.0, 60, 0), (2, 2, 1, 1, 0), (3, 4, 1, 1, 501)]
    for features, sides, scale, budget, length in worlds:
        script, model = Script(features, sides, True, scale, length), vpg_helpers.create_model(features, sides, 16)
        start, optimizer = copy.deepcopy(redraw(model, 0.6)), torch.optim.SGD(model.parameters(), lr=1 / scale)
        got = move_of_one_epoch(train_one_epoch, model, script, optimizer, budget)
        observations, _, actions, _, _ = columns(script)
        right = expected_move(start, observations, actions, returns_of(script)[1] / scale)
        assert is_close_in_length(got, right, share=5e-3), (
            f"{len(actions)} steps, {sides} actions, returns up to {np.abs(returns_of(script)[0]).max():.4g}: the "
            f"parameters should move by {right.norm():.4g}, got a move of {got.norm():.4g}, "
            f"{(got - right).norm():.4g} away from it; {unlike} Nothing is clipped, scaled or added."
        )


@claim("train_one_epoch", "takes one fresh gradient step an epoch")
def _(train_one_epoch):
    script, model = Script(), vpg_helpers.create_model(4, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0, momentum=0.5)
    first = move_of_one_epoch(train_one_epoch, model, script, optimizer)
    start = copy.deepcopy(model)
    got = move_of_one_epoch(train_one_epoch, model, script, optimizer)
    settings = optimizer.param_groups[0]
    assert settings["lr"] == 1.0, f"the optimizer came with learning rate 1, and has {settings['lr']} now: leave it"
    observations, _, actions, _, _ = columns(script)
    fresh = expected_move(start, observations, actions, returns_of(script)[1])
    assert not torch.allclose(got, fresh + 1.5 * first, atol=1e-4), (
        "the second epoch's step has the first one's gradient in it: optimizer.zero_grad()?"
    )
    assert not torch.allclose(got, fresh, atol=1e-4), "the optimizer has a memory of the first epoch: do not clear it"
    expected = fresh + 0.5 * first
    assert torch.allclose(got, expected, atol=1e-4), (
        f"the second epoch should move the parameters by {expected.norm():.4f}, got {got.norm():.4f}"
    )
    # Adam remembers more, and a gradient stood there before; a twin takes the same steps.
    model = vpg_helpers.create_model(4, 2)
    twin, optimizer = copy.deepcopy(model), torch.optim.Adam(model.parameters(), lr=0.01)
    adam = torch.optim.Adam(twin.parameters(), lr=0.01)
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, 1e3)
    for epoch in (1, 2, 3):
        before = flatten(twin.parameters())
        got = move_of_one_epoch(train_one_epoch, model, script, optimizer)
        observations, _, actions, _, _ = columns(script)
        adam.zero_grad()
        log_probabilities = log_probabilities_of(twin, observations)[range(len(actions)), actions]
        (-log_probabilities * torch.as_tensor(returns_of(script)[1], dtype=torch.float32)).mean().backward()
        adam.step()
        assert is_close_in_length(got, flatten(twin.parameters()) - before, share=2e-2), (
            f"epoch {epoch} with Adam differs from Adam's own step: clear the gradient that stood there before, and "
            "nothing that the optimizer remembers"
        )


# train makes its own environment, model and optimizer, so we watch CartPole and the optimizers themselves


class GradientStep(NamedTuple):
    """One step of an optimizer: gradients, parameters before and after, how many episodes had been played.

    Besides, the seed that torch had, and what its dice had come to.
    """

    optimizer: torch.optim.Optimizer
    gradients: list[Tensor]
    before: Tensor
    after: Tensor
    episodes_before: int
    seed: int
    dice: bytes


class Training(NamedTuple):
    """What was seen of one training; rewards has a list per episode, starts their first observations."""

    model: nn.Module
    mean_returns: list[float]
    starts: list[tuple[float, ...]]
    rewards: list[list[float]]
    gradient_steps: list[GradientStep]

    def returns_by_epoch(self) -> list[list[float]]:
        """Return what the episodes earned that were played before every gradient step and after the one before it."""
        ends = [0, *(step.episodes_before for step in self.gradient_steps)]
        returns = [sum(episode) for episode in self.rewards]
        return [returns[begin:end] for begin, end in itertools.pairwise(ends)]


def watch_training(train: Callable, world: str = "CartPole", **settings) -> Training:
    """Train and watch: every episode of CartPole, every step of an optimizer.

    In the world "steep" the pole has fallen after one step. In the world "endless" no pole falls, so only the clock
    ends an episode. In the world "fading", besides, a step of each episode earns less than a step of the one before,
    so that the first epoch is the best.
    """
    starts, rewards, gradient_steps, before, begun, printed = [], [], [], [], [], io.StringIO()
    reset, step = CartPoleEnv.reset, CartPoleEnv.step

    def watched_reset(env, *, seed=None, options=None):
        observation, info = reset(env, seed=seed, options=options)
        if world != "CartPole":
            env.theta_threshold_radians = env.x_threshold = 0 if world == "steep" else np.inf
        begun[:] = [tuple(observation.tolist())]
        return observation, info

    def watched_step(env, action):
        if begun:  # an episode counts once something is played in it
            starts.append(begun.pop())
            rewards.append([])
            epochs, budget = settings["epochs"], settings["max_timesteps"]
            assert len(rewards) <= 2 * epochs * budget, (
                f"more than {2 * epochs * budget} episodes for {epochs} epochs and a budget of {budget} steps: hand "
                "max_timesteps on"
            )
        observation, reward, *rest = step(env, action)
        reward *= 1 - 0.0041234 * (len(rewards) - 1) if world == "fading" else 1
        rewards[-1].append(reward)
        return observation, reward, *rest

    def parameters_of(optimizer):
        return [parameter for group in optimizer.param_groups for parameter in group["params"]]

    def before_step(optimizer, *_):
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in parameters_of(optimizer)]
        before[:] = [gradients, flatten(parameters_of(optimizer))]

    def after_step(optimizer, *_):
        dice = torch.initial_seed(), torch.get_rng_state().numpy().tobytes()
        gradient_steps.append(GradientStep(optimizer, *before, flatten(parameters_of(optimizer)), len(rewards), *dice))

    hooks = [register_optimizer_step_pre_hook(before_step), register_optimizer_step_post_hook(after_step)]
    try:
        with (
            patch.object(CartPoleEnv, "reset", watched_reset),
            patch.object(CartPoleEnv, "step", watched_step),
            contextlib.redirect_stdout(printed),
        ):
            trained = train(**settings)
    finally:
        for hook in hooks:
            hook.remove()
    pair = isinstance(trained, (tuple, list)) and len(trained) == 2
    assert pair, f"expected the model and the mean returns, got {type(trained).__name__}"
    expect_type(trained[0], nn.Module, "the model first")
    assert not printed.getvalue(), f"it prints {printed.getvalue()[:40]!r}: watching is the watcher's work"
    return Training(*trained, starts, rewards, gradient_steps)


@claim("train", "is decided by its seed")
def _(train):
    expect_defaults(train, epochs=40, max_timesteps=5_000, learning_rate=1e-2, seed=0, after_epoch=None)
    # Where the pole has fallen after one step, the budget is the number of episodes.
    for seed, different in [(5, 1_005), (0, 1)]:
        one, again, other = [
            watch_training(train, "steep", epochs=3, max_timesteps=10, seed=each) for each in (seed, seed, different)
        ]
        number = len(one.mean_returns)
        assert number == 3, f"expected one mean return per epoch, 3, got {number}"
        assert one.gradient_steps, "no optimizer took a step"
        number = len(one.rewards)
        assert number == 30, f"3 epochs, a budget of 10, episodes of 1 step: expected 30 episodes, got {number}"
        assert one.model is not again.model, "two trainings gave the same model: make a new one in every call"
        same = torch.equal(*(flatten(training.model.parameters()) for training in (one, again)))
        assert same and one.starts == again.starts, (
            "the same seed gave two trainings: seed the environment once, and torch before the model is made"
        )
        assert not torch.equal(*(flatten(training.model.parameters()) for training in (one, other))), (
            f"seeds {seed} and {different} gave the same model: is the seed used?"
        )
        assert not {*one.starts} & {*other.starts}, (
            f"seeds {seed} and {different} gave the same starts: hand the seed to env.reset(seed=seed)"
        )
        assert not torch.equal(one.gradient_steps[0].before, other.gradient_steps[0].before), (
            f"seeds {seed} and {different} began with the same model: torch.manual_seed(seed), before it is made"
        )


@claim("train", "seeds everything, once")
def _(train):
    for seed in (5, 0):
        training = watch_training(train, "steep", epochs=3, max_timesteps=10, seed=seed)
        assert len(set(training.starts)) == len(training.starts), (
            "two episodes began exactly alike: seed the environment once, before the loop"
        )
        seeds, dice = [{*kept} for kept in zip(*[step[-2:] for step in training.gradient_steps], strict=True)]
        assert len(seeds) == 1 and len(dice) == 3, "torch is seeded in every epoch: seed it before the loop"


@claim("train", "calls the watcher after every epoch")
def _(train):
    seen, counts, told = [], [], []

    def watcher(model, mean_returns):
        seen.append((model, flatten(model.parameters())))
        counts.append(len(mean_returns))
        told.append(list(mean_returns))

    training = watch_training(train, epochs=3, max_timesteps=30, after_epoch=watcher)
    assert counts == [1, 2, 3], f"expected after_epoch to see 1, 2, 3 mean returns, got {counts}"
    assert all(model is training.model for model, _ in seen), (
        "after_epoch saw another model than the one returned: make it once, and hand on no copies"
    )
    assert told == [list(training.mean_returns[:count]) for count in counts], (
        f"after_epoch saw {told}, and train returned {list(training.mean_returns)}: hand on the returns so far"
    )
    pairs = [(step.after, now) for step, (_, now) in zip(training.gradient_steps, seen, strict=False)]
    assert all(torch.equal(after, now) for after, now in pairs if after.shape == now.shape), (
        "what after_epoch saw is not the model after the epoch's gradient step: change it in no other way"
    )
    expect_mean_returns(training)
    for answer in (True, False):
        training = watch_training(
            train, "steep", epochs=3, max_timesteps=2, after_epoch=lambda *_, answer=answer: answer
        )
        number = len(training.mean_returns)
        assert number == 3, (
            f"after_epoch returned {answer}, and it trained {number} epochs of 3: the watcher only watches"
        )
    for error in (ValueError, KeyboardInterrupt):

        def stop(*_, error=error):
            raise error

        with contextlib.suppress(error):
            watch_training(train, "steep", epochs=3, max_timesteps=2, after_epoch=stop)
            raise AssertionError(f"after_epoch raised {error.__name__}, and train went on: let it through")


def expect_mean_returns(training):
    """Assert that train gave the mean return of every epoch."""
    expected = [float(np.mean(returns)) for returns in training.returns_by_epoch()]
    got = list(training.mean_returns)
    assert len(got) == len(expected) and is_close(got, expected, relative=3e-6), (
        f"expected the mean returns {expected}, got {got}: as they come, one an epoch"
    )


def expect_adam(training, learning_rate, epochs):
    """Assert that the parameters moved as torch's own Adam moves them, with this learning rate in every epoch."""
    number = len(training.gradient_steps)
    assert number == epochs, f"expected one optimizer step an epoch, {epochs}, got {number}"
    assert len({id(step.optimizer) for step in training.gradient_steps}) == 1, (
        "every step looks like Adam's first: make the optimizer once, before the loop"
    )
    first = training.gradient_steps[0]
    held = [parameter for group in first.optimizer.param_groups for parameter in group["params"]]
    assert [*map(id, held)] == [*map(id, training.model.parameters())], (
        f"the optimizer holds {sum(p.numel() for p in held)} parameters, the model has "
        f"{sum(p.numel() for p in training.model.parameters())}: hand it model.parameters(), all of them"
    )
    replay = [torch.zeros_like(gradient).requires_grad_() for gradient in first.gradients]
    adam, place = torch.optim.Adam(replay, lr=learning_rate), flatten(replay)
    for epoch, step in enumerate(training.gradient_steps, start=1):
        for parameter, gradient in zip(replay, step.gradients, strict=True):
            parameter.grad = gradient.clone()
        adam.step()
        expected, place = flatten(replay) - place, flatten(replay)
        moves = step.after - step.before
        assert (moves - expected).abs().max() < 1e-3 * learning_rate, (
            f"epoch {epoch}: the largest move of a parameter is {moves.abs().max() / learning_rate:.3f} learning "
            f"rates, Adam's is {expected.abs().max() / learning_rate:.3f}, and one differs by "
            f"{(moves - expected).abs().max() / learning_rate:.3f}: is it Adam, with this learning rate in "
            "every epoch?"
        )
    for before, after in itertools.pairwise(training.gradient_steps):
        assert torch.equal(before.after, after.before), (
            "between two epochs the parameters changed: only the optimizer may move them"
        )
    assert torch.equal(training.gradient_steps[-1].after, flatten(training.model.parameters())), (
        "the model returned is not the model after the last epoch: hand back what training has made, best or not"
    )


@claim("train", "uses its settings")
def _(train):
    # Long trainings are cheap where every episode has one step.
    for epochs, learning_rate in [(3, 0.03), (60, 1e-3), (12, 0.2)]:
        training = watch_training(train, "steep", epochs=epochs, max_timesteps=2, learning_rate=learning_rate)
        expect_adam(training, learning_rate, epochs)
        size = sum(parameter.numel() for parameter in training.model.parameters())
        assert size == 226, f"its model has {size} parameters, create_model(4, 2) makes 226"
        ready = training.model.training and all(parameter.requires_grad for parameter in training.model.parameters())
        assert ready, "the model comes back frozen, or in eval mode: hand it back as it was made, ready for more"


@claim("train", "plays episodes of 200 steps at most")
def _(train):
    # Where the pole may lean as far as it likes, on an endless track, only the clock ends an episode. The best epoch
    # is the first, and still all of them are trained, told and kept.
    training = watch_training(train, "fading", epochs=12, max_timesteps=1)
    assert training.rewards, 'no CartPole was played: gym.make("CartPole-v1", max_episode_steps=200)'
    lengths = [len(episode) for episode in training.rewards]
    assert set(lengths) == {200}, (
        f"no pole can fall, and the mean return is {max(lengths):g}, expected 200: max_episode_steps?"
    )
    number = len(training.mean_returns)
    assert number == 12, f"the goal was reached at once, and of 12 epochs it trained {number}: stop at none"
    expect_mean_returns(training)
    expect_adam(training, 1e-2, epochs=12)
    training = watch_training(train, "endless", epochs=1, max_timesteps=1_300)
    said = "a budget of 1,300 and episodes of 200 steps: expected 7 episodes"
    expect_value(len(training.rewards), 7, said)


# Lesson 6


@claim("bootstrap_interval")
def _(bootstrap_interval):
    expect_defaults(bootstrap_interval, repetitions=2_000, seed=0)
    # For 100 numbers from a bell curve the interval is close to the mean ± 1.96 standard errors.
    curves = np.random.default_rng().normal(50, 10, size=(100, 10))
    interval = bootstrap_interval(curves)
    assert interval is not None, "got None"
    expect_shape(interval, (2, 10), "100 seeds and 10 epochs should give shape (2, 10), got {}: draw seeds, not epochs")
    low, high = np.asarray(interval)
    assert np.all(low <= high), "the low bound comes first"
    expected = 2 * 1.96 * curves.std(axis=0) / np.sqrt(100)
    ratio = np.mean((high - low) / expected)
    known = [
        (0.0, 0.01, ": it has no width; draw with replacement"),
        (0.15, 0.4, ": np.percentile takes 2.5 and 97.5, not 0.025 and 0.975"),
        (0.45, 0.6, ": a 95 % interval has two on either side"),
        (0.78, 0.92, ": that is a 90 % interval; cut off 2.5 % on either side"),
        (1.6, 1.95, ": does each draw have 32 seeds? Take as many as there are"),
        (5.0, 50.0, ": as wide as the curves are spread; take the mean of every draw first"),
    ]
    mistakes = [mistake for lowest, highest, mistake in known if lowest <= ratio < highest]
    said = f"expected ± 1.96 standard errors, got {1.96 * ratio:.2f} of them{''.join(mistakes)}"
    assert 0.92 < ratio < 1.08, said
    assert np.all(np.abs((low + high) / 2 - curves.mean(axis=0)) < expected / 4), "not at the mean"


@claim("bootstrap_interval", "keeps to the numbers that it has")
def _(bootstrap_interval):
    low, high = bootstrap_interval(np.full(20, 7.0))
    assert abs(low - 7) < 1e-9 and abs(high - 7) < 1e-9, f"twenty sevens gave {low} to {high}"
    # The mean of a draw is never below zero, and now and then the hundred is drawn twice.
    low, high = bootstrap_interval(np.array([0.0] * 19 + [100.0]))
    assert low >= 0, f"nineteen zeros and a hundred gave a low bound of {low:.1f}: draw, do not use ±"
    assert high > 0, "nineteen zeros and a hundred gave 0 to 0: is the last seed ever drawn?"
    assert 5 <= high <= 25, f"nineteen zeros and a hundred: expected a high bound near 15, got {high}"
    # How often the hundred is drawn is binomial: at most 3 times with 98.4 %, at most 2 times with 92.5 %.
    # The chance that 8,000 draws give a percentile elsewhere is below 1e-9.
    low, high = bootstrap_interval(100 * np.eye(20), repetitions=8_000)
    for place, bounds in enumerate(zip(low, high, strict=True)):
        assert bounds == (0, 15), (
            f"nineteen zeros and a hundred at place {place}: expected 0 to 15, got {bounds[0]} to {bounds[1]}; draw "
            "twenty of the twenty, each as likely as the others, with replacement"
        )
    curves = np.random.default_rng().normal(0, 100, size=(15, 3))
    dice = np.random.get_state()[1].tobytes(), *np.random.get_state()[2:]
    first, again = [[np.array(bootstrap_interval(curves, seed=seed)).tobytes() for seed in range(6)] for _ in range(2)]
    assert first == again, "the same seed gave two intervals: np.random.default_rng(seed)"
    assert len({*first}) == 6, "two seeds gave the same interval: is the seed used?"
    assert dice == (np.random.get_state()[1].tobytes(), *np.random.get_state()[2:]), (
        "it seeds or rolls NumPy's global dice, which are everyone's: np.random.default_rng(seed)"
    )
    low, high = bootstrap_interval(curves, repetitions=1)
    assert np.array_equal(low, high), "a single draw has a single mean: is repetitions used?"
    # More draws, and more columns, tiny and huge, make the same comparison sharp: 2 % and 98 % are 4.8 % too wide.
    means = 5 * (-1) ** np.arange(25)  # in spreads, above and below zero
    curves = np.random.default_rng().normal(means, 1, size=(40, 25)) * np.logspace(-4, 4, 25)
    low, high = bootstrap_interval(curves, repetitions=6_000)
    expected = 1.96 * curves.std(axis=0) / np.sqrt(40)
    for bound, name in [(curves.mean(axis=0) - low, "low"), (high - curves.mean(axis=0), "high")]:
        ratio = np.mean(bound / expected)
        assert 0.97 < ratio < 1.03, (
            f"the {name} bound lies {1.96 * ratio:.3f} standard errors from the mean, expected 1.96: cut off 2.5 % on "
            "either side"
        )
    # Of 2,041 means the 52nd from either side is the bound, so that it is a mean of whole numbers itself.
    sums = 20 * np.array(bootstrap_interval(np.random.randint(10**6, size=(20, 9)).astype(float), repetitions=2_041))
    assert np.allclose(sums, sums.round(), rtol=0, atol=1e-3), (
        "of 2,041 draws the bounds lie between two means: take as many draws as repetitions says"
    )


@claim("reward_to_go")
def _(reward_to_go):
    got = tuple(float(weight) for weight in reward_to_go(np.array([1.0, 2.0, 4.0])))
    assert len(got) == 3, f"expected one weight per step, 3, got {len(got)}"
    expect_value(
        got,
        (7, 6, 4),
        "expected (7, 6, 4)",
        {
            (7, 7, 7): "that is the whole return; leave out what came before the step",
            (1, 3, 7): "those are the rewards up to each step; sum from the step on",
            (6, 4, 0): "each step's own reward belongs to it, it comes after the action",
            (4, 6, 7): "the sums are right and their order is turned round",
            (7, 3, 1): "those are the rewards up to each step, turned round",
        },
    )
    got = np.asarray(reward_to_go(np.array([0.5, 0.25])), dtype=float).tolist()
    expect_value(got, [0.75, 0.25], "for rewards 0.5, 0.25 expected [0.75, 0.25]")
    random, answers = np.random.default_rng(), []
    for steps, scale in [(200, 1), (1, 1), (2, 1e-3), (500, 1e4), (7, 1e6)]:
        rewards = scale * random.normal(size=steps)
        rewards[1::3] = 0
        expected = [rewards[step:].sum() for step in range(steps)]
        answers.append((reward_to_go(rewards), expected, scale))
    # Compared at the end: an answer must not change when another one is given.
    for got, expected, scale in answers:
        expect_shape(got, (len(expected),), f"{len(expected)} rewards gave weights of shape {{}}")
        assert np.allclose(got, expected, rtol=1e-6, atol=1e-6 * scale), (
            f"for {len(expected)} random rewards it differs"
        )


# Lesson 7


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


# Lesson 8


def discounted(values, discount):
    """Return the discounted sums from each step on, by their definition: a matrix of powers times the values."""
    away = np.arange(len(values)) - np.arange(len(values))[:, np.newaxis]
    return np.where(away < 0, 0.0, float(discount) ** np.maximum(away, 0)) @ np.asarray(values, dtype=float)


def expect_steps(got: object, expected: np.ndarray, said: str):
    """Assert an array with one number per step, within a millionth of the largest."""
    expect_shape(got, expected.shape, f"{len(expected)} steps gave shape {{}}")
    assert isinstance(got, np.ndarray), f"expected an array, got {type(got).__name__}: np.array(...) makes one"
    assert np.abs(got - expected).max() <= 1e-6 * np.abs(expected).max() + 1e-9, said


def expect_pair(got: object, expected: tuple[float, float], said: str, known: dict):
    """Assert the two numbers of a path of two steps."""
    expect_shape(got, (2,), "two steps gave shape {}: one number per step")
    expect_value(np.asarray(got, dtype=float).round(6).tolist(), [*expected], f"{said} expected {[*expected]}", known)


def random_paths():
    """Yield rewards, values, a last value, gamma and lam, of paths long and short, large and small."""
    random = np.random.default_rng()
    for steps, scale in [(1, 1.0), (2, 1e-3), (7, 1e4), (60, 1.0), (500, 1.0)]:
        rewards, values, last_value = scale * random.normal(size=steps), scale * random.normal(size=steps), scale * 3.0
        yield rewards, values, last_value, random.uniform(0.5, 1), random.choice([0.0, 1.0, random.uniform(0.2, 0.98)])


@claim("discount_cumsum")
def _(discount_cumsum):
    got = discount_cumsum(np.array([1.0, 2.0, 4.0]), 0.5)
    expect_shape(got, (3,), "three values gave shape {}: one sum per step")
    expect_value(
        np.asarray(got, dtype=float).tolist(),
        [3, 4, 4],
        "for 1, 2, 4 and a discount of 0.5 expected [3, 4, 4]",
        {
            (7, 6, 4): "the discount is not used",
            (1, 2.5, 5.25): "those are sums of what came before each step; sum from the step on",
            (4, 4, 3): "the sums are right and their order is turned round",
            (3, 2, 1): "the discount counts from the path's first step; count it from each step on",
            (1.5, 2, 2): "a step's own value is not discounted",
            (4, 4, 0): "a step's own value belongs to its sum",
            (1, 2, 4): "nothing is added up",
        },
    )
    got = np.asarray(discount_cumsum(np.array([1, 1]), 0.5), dtype=float).tolist()
    expect_value(got, [1.5, 1], "for the whole numbers 1, 1 and 0.5 expected [1.5, 1]")
    answers = []
    for values, _, _, gamma, _ in random_paths():
        answers += [(discount_cumsum(values, discount), values, discount) for discount in (gamma, 0.0, 1.0)]
    # Compared at the end: an answer must not change when another one is given.
    for got, values, discount in answers:
        said = f"for {len(values)} random values and a discount of {discount:.3g} it differs"
        expect_steps(got, discounted(values, discount), said)


@claim("gae")
def _(gae):
    got = gae(np.array([1.0, 1.0]), np.array([4.0, 2.0, 8.0]), 0.5, 0.25)
    said = "for rewards 1, 1, values 4, 2, 8, gamma 0.5 and lam 0.25"
    known = {
        (-0.5, 3): "lam is missing: the errors are discounted by gamma times lam",
        (-1.25, 3): "the errors are discounted by lam alone: by gamma times lam",
        (-2, 3): "those are the errors of single steps; add up what follows, discounted",
        (-0.125, 7): "the next value is not discounted in the errors",
        (1.625, -3): "the sign is turned round: got minus expected",
        (-2.125, -1): "the last value, of what follows the path, is left out",
        (2.625, 5): "the step's own value is not taken off",
        (-1, 0): "values[:-1] are those of the steps themselves; the next ones are values[1:]",
        (0.25, -6): "the next value takes the place of the step's own, and the other way round",
    }
    expect_pair(got, (-1.625, 3), said, known)
    answers = []
    for rewards, values, last_value, gamma, lam in random_paths():
        values = np.append(values, last_value)
        answers.append((gae(rewards, values, gamma, lam), rewards + gamma * values[1:] - values[:-1], gamma, lam))
    for got, errors, gamma, lam in answers:
        said = f"for {len(errors)} random steps, gamma {gamma:.3g} and lam {lam:.3g} it differs"
        expect_steps(got, discounted(errors, gamma * lam), said)


def expected_path(rewards, values, last_value, terminated, gamma, lam):
    """Return advantages and targets by their definition."""
    values = np.append(values, 0.0 if terminated else last_value)
    errors = rewards + gamma * values[1:] - values[:-1]
    return discounted(errors, gamma * lam), discounted(np.append(rewards, values[-1]), gamma)[:-1]


def finished(finish_path, *path):
    """Return what finish_path gives for a path; assert that it is a pair."""
    got = finish_path(*path)
    assert isinstance(got, tuple) and len(got) == 2, f"expected advantages and targets, got {type(got).__name__}"
    return got


TWO_STEPS = np.array([1.0, 1.0]), np.array([4.0, 2.0]), 8.0


@claim("finish_path", "gives the advantages")
def _(finish_path):
    said = "for rewards 1, 1, values 4, 2, a last value of 8, gamma 0.5 and lam 0.25, {}, expected advantages".format
    expect_pair(
        finished(finish_path, *TWO_STEPS, np.False_, 0.5, 0.25)[0],
        (-1.625, 3),
        said("cut"),
        {
            (-2.125, -1): "a path that was cut has its last value still to come",
            (3.5, 5): "those are the targets; the advantages come first",
            (-0.5, 3): "lam is missing",
        },
    )
    expect_pair(
        finished(finish_path, *TWO_STEPS, np.True_, 0.5, 0.25)[0],
        (-2.125, -1),
        said("terminated"),
        {(-1.625, 3): "where a path terminated nothing is to come: its last value does not count"},
    )
    expect_random_paths(finish_path, which=0)


@claim("finish_path", "gives the targets")
def _(finish_path):
    said = "for rewards 1, 1, values 4, 2, a last value of 8, gamma 0.5 and lam 0.25, {}, expected targets".format
    got = finished(finish_path, *TWO_STEPS, np.False_, 0.5, 0.25)[1]
    expect_shape(got, (2,), "two steps gave targets of shape {}: leave out what belongs to no step")
    expect_pair(
        got,
        (3.5, 5),
        said("cut"),
        {
            (1.5, 1): "a path that was cut has its last value still to come, in the targets too",
            (2.375, 5): "those are advantages plus values; the targets are discounted rewards-to-go",
            (1.25, 2): "there is no lam in the targets",
            (10, 9): "the targets are not discounted",
            (-0.5, 3): "the discounted errors add up to the target minus the value",
            (5, 8): "the targets are shifted by one step",
        },
    )
    expect_pair(
        finished(finish_path, *TWO_STEPS, np.True_, 0.5, 0.25)[1],
        (1.5, 1),
        said("terminated"),
        {(3.5, 5): "where a path terminated nothing is to come: its last value does not count"},
    )
    expect_random_paths(finish_path, which=1)


def expect_random_paths(finish_path, which):
    """Assert the advantages (0) or the targets (1) of random paths that end either way."""
    answers = []
    for *path, gamma, lam in random_paths():
        for terminated in (True, False):
            path_and_end = *path, terminated, gamma, lam
            answers.append((finished(finish_path, *path_and_end)[which], path_and_end))
    for got, path in answers:
        name, end = ("advantages", "targets")[which], "terminated" if path[3] else "was cut"
        said = f"the {name} of a random path of {len(path[0])} steps that {end} differ (gamma {path[4]:.3g})"
        expect_steps(got, expected_path(*path)[which], said)


class VectorScript(gym.vector.VectorEnv):
    """Worlds without physics, side by side: everything is random, and what happened is written down in steps.

    A step is (observations, actions, rewards, playing, terminated, truncated, observations after), each per world.
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

    def mean_return(self, begin, end, latest):
        """Return the mean over worlds of the first return that ended between; latest, (worlds,), is brought forward."""
        reported, running = np.zeros(self.num_envs, bool), np.zeros(self.num_envs)
        for number in range(end):
            _, _, rewards, playing, terminated, truncated, _ = self.steps[number]
            running = playing * (running + rewards)
            first = (terminated | truncated) & ~reported & (number >= begin)
            latest[first], reported = running[first], reported | first
        return latest.mean()


class Move(NamedTuple):
    """A step of an optimizer: of which model, its gradient, the world's steps so far, both models before it."""

    name: str
    gradient: Tensor
    steps: int
    model: nn.Module
    value_model: nn.Module
    optimizer: torch.optim.Optimizer


def watch_vpg(
    train_vpg: Callable, *get_policy: Callable, **changes
) -> tuple[VectorScript, vpg_companion.Settings, list[Move], object]:
    """Train in a made-up world; return it, the settings, every optimizer's step and what train_vpg returned."""
    worlds, (features, actions) = np.random.randint(5, 9), np.random.randint(2, 5, 2).tolist()
    world, model, value_model = (
        VectorScript(worlds, features, actions),
        nn.Linear(features, actions),
        nn.Linear(features, 1),
    )
    chosen = dict(epochs=2, steps=11, gamma=0.8, lam=0.7, learning_rate=0.05, value_steps=3, value_unit=4.0, seed=5)
    settings, moves = vpg_companion.Settings(**chosen | changes), []
    redraw(model), redraw(value_model)

    def before_step(optimizer, *_):
        held = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        owners = {model: "model", value_model: "value_model"}
        names = [name for each, name in owners.items() if {*map(id, each.parameters())} & {*map(id, held)}]
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in held]
        copies = copy.deepcopy(model), copy.deepcopy(value_model)
        moves.append(Move(" and ".join(names), flatten(gradients), len(world.steps), *copies, optimizer))

    hook = register_optimizer_step_pre_hook(before_step)
    try:
        returned = train_vpg(world, model, value_model, settings, *get_policy)
    finally:
        hook.remove()
    return world, settings, moves, returned


@claim("train_vpg", "plays on and takes its gradient steps")
def _(train_vpg):
    world, settings, moves, returned = watch_vpg(train_vpg, epochs=3)
    assert len(world.seeds) == 1, (
        f"the environment was reset {len(world.seeds)} times: make the batches once, they go on"
    )
    assert world.seeds == [5], f"settings.seed is 5, the environment was given {world.seeds[0]}"
    number, steps = len(world.steps), settings.steps
    assert number == 3 * steps, f"3 epochs of {steps} steps each, and the environment was asked for {number}"
    names = [move.name for move in moves]
    assert "model and value_model" not in names, "one optimizer holds both models: make one for each"
    expected = (["model"] + ["value_model"] * 3) * 3
    counts = names.count("model"), names.count("value_model")
    assert counts == (3, 9), f"3 epochs, 3 value steps: expected 3 steps of model, 9 of value_model, got {counts}"
    assert names == expected or names == (["value_model"] * 3 + ["model"]) * 3, (
        "in every epoch model takes its one step, then value_model all of its own"
    )
    late = [move.steps for move in moves]
    assert late == [steps] * 4 + [2 * steps] * 4 + [3 * steps] * 4, "gradient steps follow each batch, not the last one"
    optimizers = {id(move.optimizer): move.optimizer for move in moves}
    assert len(optimizers) == 2, "the optimizers are made anew on the way: once, before the loop, or Adam forgets"
    for optimizer in optimizers.values():
        rate = optimizer.param_groups[0]["lr"]
        assert isinstance(optimizer, torch.optim.Adam), f"the optimizers are Adam's, got {type(optimizer).__name__}"
        assert rate == 0.05, f"settings.learning_rate is 0.05, an optimizer has {rate}"
    assert returned is not None and len(returned) == 3, "expected three mean returns, one an epoch"
    latest = np.zeros(world.num_envs)
    for epoch, got in enumerate(returned):
        mean = world.mean_return(epoch * steps, (epoch + 1) * steps, latest)
        expect_number(
            float(got), mean, f"epoch {epoch + 1}: expected the mean of its returns, {mean:.3f}", {}, ".3f", 1e-4
        )
    asked = []

    def own_policy(model, observations):
        asked.append(len(observations))
        return vpg_helpers.get_policy(model, observations)

    world, settings, *_ = watch_vpg(train_vpg, own_policy)
    assert asked, "the get_policy that it is given is not used"
    played = asked.count(world.num_envs)
    assert played >= settings.epochs * settings.steps, (
        "it plays with another policy than the get_policy that it is given"
    )
    assert len(asked) > played, "its log-probabilities are of another policy than the get_policy that it is given"


def batch_of(world, settings, value_model, number):
    """Return a batch's observations and actions, and what gives its advantages and targets for any settings."""
    paths = world.paths(number * settings.steps, (number + 1) * settings.steps)
    observations, actions = (np.concatenate([columns[which] for columns, *_ in paths]) for which in (0, 1))

    def ask(seen):
        return settings.value_unit * value_model(torch.as_tensor(np.atleast_2d(seen))).detach().double().numpy()[:, 0]

    def finish(lam=settings.lam, gamma=settings.gamma, bootstrap=settings.bootstrap):
        pairs = [
            expected_path(rewards, ask(seen), ask(after)[0], terminated or not bootstrap, gamma, lam)
            for (seen, _, rewards), after, terminated in paths
        ]
        return [np.concatenate(each) for each in zip(*pairs, strict=True)]

    return torch.as_tensor(observations), actions, finish


def normalized(advantages):
    return (advantages - advantages.mean()) / advantages.std()


@claim("train_vpg", "moves the policy along the advantages")
def _(train_vpg):
    for changes in [{}, {"normalize": False}, {"bootstrap": False, "lam": 1.0}]:
        world, settings, moves, _ = watch_vpg(train_vpg, **changes)
        value_model = moves[0].value_model
        steps_of_model = [move for move in moves if move.name == "model"]
        for epoch, move in enumerate(steps_of_model):
            observations, actions, finish = batch_of(world, settings, value_model, epoch)
            advantages, targets = finish()

            def gradient_of(weights, move=move, observations=observations, actions=actions):
                taken = log_probabilities_of(move.model, observations)[range(len(actions)), actions]
                loss = -(taken * torch.as_tensor(weights).float()).mean()
                return flatten(torch.autograd.grad(loss, move.model.parameters()))

            scale = normalized if settings.normalize else lambda advantages: advantages
            expected = gradient_of(scale(advantages))
            if not is_close_in_length(move.gradient, expected):
                late = batch_of(world, settings, move.value_model, epoch)[2]()[0]
                known = {
                    "it goes against the advantages: calculate_loss has the minus already": -scale(advantages),
                    "the weights are the targets; the advantages come first": targets,
                    "the weights are the targets in value_unit": targets / settings.value_unit,
                    "value_model was fitted before it was asked: its first answer, then the fit": scale(late),
                    "settings.normalize is not heeded": advantages if settings.normalize else normalized(advantages),
                    "settings.bootstrap is not heeded": scale(finish(bootstrap=not settings.bootstrap)[0]),
                    "settings.lam is not heeded": scale(finish(lam=vpg_companion.WHOLE.lam)[0]),
                    "settings.gamma is not heeded": scale(finish(gamma=vpg_companion.WHOLE.gamma)[0]),
                    "every weight is 1": np.ones_like(advantages),
                }
                mistakes = [
                    said for said, weights in known.items() if is_close_in_length(move.gradient, gradient_of(weights))
                ]
                raise AssertionError(
                    f"epoch {epoch + 1}: model's gradient should have length {expected.norm():.4f} and is off by "
                    f"{(move.gradient - expected).norm():.4f}{''.join(f': {said}' for said in mistakes[:1])}"
                )
            if epoch + 1 < len(steps_of_model):
                value_model = next(each for each in moves if each.steps > move.steps).value_model


@claim("train_vpg", "fits the value function")
def _(train_vpg):
    world, settings, moves, _ = watch_vpg(train_vpg)
    for epoch in range(settings.epochs):
        steps = [move for move in moves if move.steps == (epoch + 1) * settings.steps]
        observations, _, finish = batch_of(world, settings, steps[0].value_model, epoch)
        advantages, targets = (torch.as_tensor(each).float() / settings.value_unit for each in finish())
        for number, move in enumerate((step for step in steps if step.name == "value_model"), start=1):

            def direction_of(goal, across=False, move=move, observations=observations):
                values = move.value_model(observations)
                loss = ((values - goal if across else values[:, 0] - goal) ** 2).mean()
                return nn.functional.normalize(flatten(torch.autograd.grad(loss, move.value_model.parameters())), dim=0)

            # A loss that is a sum, or half of it, has the same direction, and Adam does not see the difference.
            got = nn.functional.normalize(move.gradient, dim=0)
            if not is_close_in_length(got, direction_of(targets)):
                known = {
                    "shape (steps, 1) minus (steps,) is (steps, steps): take column 0": direction_of(
                        targets, across=True
                    ),
                    "it learns the advantages; the targets are what finish_paths gives second": direction_of(
                        advantages
                    ),
                    "it learns the normalized advantages": direction_of(
                        torch.as_tensor(normalized(finish()[0])).float()
                    ),
                    "the targets are in value_unit already": direction_of(targets / settings.value_unit),
                    "the targets that it learns are not in value_unit": direction_of(targets * settings.value_unit),
                    "it climbs: the loss is to fall": -direction_of(targets),
                }
                mistakes = [said for said, mistaken in known.items() if is_close_in_length(got, mistaken)]
                raise AssertionError(
                    f"epoch {epoch + 1}, value step {number}: value_model's gradient is not that of the mean squared "
                    f"difference to the targets{''.join(f': {said}' for said in mistakes[:1])}"
                )


# Lesson 9


@claim("gaussian_log_likelihood")
def _(gaussian_log_likelihood):
    given = [torch.tensor(numbers) for numbers in ([[0.5, -1.0]], [[0.2, -0.4]], [-0.5, 0.3])]
    got = gaussian_log_likelihood(*given)
    expect_type(got, Tensor, "a tensor")
    expect_shape(got, (1,), "actions of shape (1, 2) should give (1,), got {}: add up the last axis, and only that")
    taken = "log_stds is the logarithm already; its exp is the standard deviation"
    assert not got.isnan().any(), f"it gives nan: {taken}"
    known = {
        -1.8246: "a standard deviation is asked for, and it got the variance",
        -0.0211: "the constant, half of log 2π for each dimension, is missing",
        -0.9400: "the constant belongs to every dimension, not once to an action",
        -2.2590: "the log of the standard deviation has the wrong sign",
        -2.0590: "the log of the standard deviation is missing",
        1.8590: "the sign is turned round",
        -2.0801: "the squares are to be halved",
        -3.8179: taken,
        0.1558: "that is the density; its logarithm is asked for",
        -0.9295: "that is the mean over the dimensions: independent log-densities add up",
    }
    said = "for actions (0.5, -1), means (0.2, -0.4), log_stds (-0.5, 0.3) expected -1.8590"
    expect_number(got.item(), -1.858986, said, known, show=".4f")
    answers = []
    for shape in [(7, 1), (40, 3), (2, 5, 4), (6,)]:
        actions, means, log_stds = 3 * torch.randn(shape), 3 * torch.randn(shape), torch.randn(shape[-1:])
        means, log_stds = means.requires_grad_(), log_stds.requires_grad_()
        expected = torch.distributions.Normal(means, log_stds.exp()).log_prob(actions).sum(dim=-1)
        answers.append((gaussian_log_likelihood(actions, means, log_stds), expected, means, log_stds))
    for got, expected, means, log_stds in answers:
        expect_shape(got, tuple(expected.shape), f"means of shape {tuple(means.shape)} gave shape {{}}")
        assert is_close(got, expected), f"for random actions of {means.shape[-1]} dimensions it differs"
        lost = "the gradients of means and log_stds are lost: no detach, item or NumPy on the way"
        assert got.requires_grad, lost
        slopes = [
            torch.autograd.grad(value.sum(), (means, log_stds), retain_graph=True, allow_unused=True)
            for value in (got, expected)
        ]
        assert None not in slopes[0] and is_close(flatten(slopes[0]), flatten(slopes[1]), absolute=1e-4), lost


def expected_gaussian(actor, observations, sizes):
    """Return the distribution that an actor's tanh network and its log_stds give."""
    inputs, outputs, hidden_units = sizes
    parameters = [parameter for parameter in actor.parameters() if parameter is not actor.log_stds]
    first, last = (
        next(p for p in parameters if sorted(p.shape) == sorted(size) and p.dim() == 2)
        for size in ((inputs, hidden_units), (hidden_units, outputs))
    )
    biases = [next(p for p in parameters if p.shape == (size,)) for size in (hidden_units, outputs)]
    means = torch.tanh(observations @ first.T + biases[0]) @ last.T + biases[1]
    return torch.distributions.Normal(means, actor.log_stds.exp())


@claim("GaussianActor", "gives a Gaussian for every observation")
def _(gaussian_actor):
    expect_defaults(gaussian_actor, hidden_units=32)
    sizes = inputs, outputs, hidden_units = 3, 2, 7
    actor, observations = gaussian_actor(*sizes), torch.randn(50, inputs)
    expect_type(actor, nn.Module, "an nn.Module")
    policy = actor(observations)
    expect_type(policy, torch.distributions.Distribution, "a distribution from forward")
    actions = policy.sample()
    expect_shape(actions, (50, outputs), "50 observations and 2 actions should give samples of shape (50, 2), got {}")
    expect_shape(
        policy.log_prob(actions),
        (50,),
        "50 actions gave log-probabilities of shape {}: an action is all of "
        "its dimensions together, Independent(..., 1) adds them up",
    )
    alone = actor(observations[0])
    expect_shape(alone.log_prob(alone.sample()), (), "one action gave a log-probability of shape {}: it is one number")
    parameters = [*actor.parameters()]
    number = sum(parameter.numel() for parameter in parameters)
    known = {44: "log_stds is not registered: make it an nn.Parameter", 60: "log_stds is not to depend on the state"}
    expect_value(number, 46, "GaussianActor(3, 2, 7): expected 46 parameters", known)
    shared = {*map(id, parameters)} & {*map(id, gaussian_actor(*sizes).parameters())}
    assert not shared, "two actors share parameters: make them in __init__"
    named = getattr(actor, "log_stds", None)
    expect_type(named, nn.Parameter, "an nn.Parameter as log_stds", ": the attribute is to have that name")
    expect_shape(named, (outputs,), f"log_stds should have shape ({outputs},), got {{}}")
    assert is_close(named, torch.full((outputs,), -0.5)), f"log_stds should start at -0.5, got {named[0]:.4f}"
    started = policy.stddev
    assert is_close(started, torch.full((50, outputs), math.exp(-0.5))), (
        f"standard deviations should start at exp(-0.5) = {math.exp(-0.5):.4f}, got {started[0, 0]:.4f}"
    )
    redraw(actor)
    named.data = torch.tensor([-1.5, 1.5])  # narrow and wide, so that no bound on them goes unnoticed
    policy = actor(observations.numpy())
    expected = expected_gaussian(actor, observations, sizes)
    assert is_close(policy.mean, expected.mean, absolute=1e-4), (
        "with its own parameters, the means are not W2 tanh(W1 s + b1) + b2"
    )
    ratio = (policy.stddev / expected.stddev).log() / expected.stddev.log()
    assert is_close(policy.stddev, expected.stddev), "the standard deviations are not exp(log_stds)" + (
        ": that is their square, the variance" if is_close(ratio, torch.ones(50, outputs)) else ""
    )
    got, wanted = policy.log_prob(actions), expected.log_prob(actions).sum(dim=-1)
    assert is_close(got, wanted, absolute=1e-4), "its log_prob is not the sum of its dimensions'"
    slopes = [torch.autograd.grad(value.sum(), parameters, allow_unused=True) for value in (got, wanted)]
    lost = "the log-probability does not carry the gradient of all parameters: no detach, no_grad or .data on the way"
    assert None not in slopes[0] and is_close_in_length(*map(flatten, slopes)), lost


@claim("GaussianActor", "samples from it")
def _(gaussian_actor):
    actor = redraw(gaussian_actor(4, 3, 8), 0.5)
    policy = actor(torch.randn(1, 4).expand(20_000, 4))
    actions = policy.sample()
    assert not actions.requires_grad, "a sample is data: it carries no gradient"
    scores = (actions - policy.mean.detach()) / policy.stddev.detach()
    # Means of 20,000 have a standard error of 0.007; that all six numbers are within seven of them is nearly certain.
    assert (scores.mean(dim=0).abs() < 0.05).all(), "the samples' mean is not the policy's"
    assert ((scores.std(dim=0) - 1).abs() < 0.035).all(), "the samples spread more or less than the policy says"
    together = (scores[:, 0] * scores[:, 1]).mean().abs()
    assert together < 0.05, "the dimensions of an action go together: draw each by itself"


# Lesson 10


def expect_float(value: object) -> float:
    """Assert that an answer is a plain number, for a log has no place for a tensor with its graph; return it."""
    hint = "; .item() makes a number of it" if isinstance(value, Tensor) else ""
    expect_type(value, (float, np.floating), "a float", hint)
    return float(value)


@claim("log_probability_surplus")
def _(log_probability_surplus):
    model, observations = echo_model(), torch.tensor([[0.0, math.log(3)]] * 2)
    expect_number(
        expect_float(log_probability_surplus(model, observations, torch.tensor([1, 0]))),
        -0.2747,
        "for (0.25, 0.75), right and then left taken, expected -0.2747",
        {
            -0.5493: "that is the sum over the steps; take the mean",
            -1.3993: "that is the log-probability minus the entropy; add them",
            -0.8370: "that is the mean log-probability alone; the entropy is missing",
            0.5623: "that is the entropy alone; the log-probability is missing",
            0.2747: "the sign is turned round: log-probability plus entropy",
            -0.3962: "that is in bits; the logarithm is the natural one",
            1.0623: "that is with the probability in place of its logarithm",
        },
        show=".4f",
        tolerance=5e-4,
    )
    for steps, features, actions in [(50, 4, 2), (7, 3, 5), (1, 2, 3), (400, 6, 4)]:
        model, observations = redraw(nn.Linear(features, actions), 2.0), torch.randn(steps, features)
        log_policy = log_probabilities_of(model, observations).detach()
        for taken in (torch.randint(actions, (steps,)), log_policy.argmax(dim=-1)):
            log_probability = log_policy.gather(-1, taken[:, None])[:, 0]
            entropy = -(log_policy.exp() * log_policy).sum(dim=-1)
            expected = (log_probability + entropy).mean().item()
            got = expect_float(log_probability_surplus(model, observations, taken))
            suspects = {
                "that is the sum over the steps; take the mean": expected * steps,
                "that is without the entropy": log_probability.mean().item(),
                "the entropy is that of the mean policy; take each step's own": (
                    log_probability.mean() + Categorical(probs=log_policy.exp().mean(dim=0)).entropy()
                ).item(),
                "it has the log-probability of the likeliest action; take that of the action given": (
                    log_policy.amax(dim=-1) + entropy
                )
                .mean()
                .item(),
            }
            said = [mistake for mistake, value in suspects.items() if is_close(got, value, absolute=1e-5)]
            assert is_close(got, expected, absolute=1e-5), (
                f"for {steps} steps and {actions} actions expected {expected:.4f}, got {got:.4f}"
                f"{': ' + said[0] if said else ''}"
            )
    # The largest that two actions can show is 0.28; of eleven, one with a probability of 0.5 shows more.
    with torch.no_grad():
        (model := nn.Linear(1, 11)).bias.copy_(torch.tensor([10.0] + [1.0] * 10).log())
    got = expect_float(log_probability_surplus(model, torch.zeros(3, 1), torch.zeros(3, dtype=torch.long)))
    assert is_close(got, 1.151293), f"for the likeliest of 11 actions, three times, expected 1.1513, got {got:.4f}"


@claim("cosine_of_gradients")
def _(cosine_of_gradients):
    gradients = [torch.tensor([3.0]), torch.tensor([[0.0, 4.0]])]
    others = [torch.tensor([0.0]), torch.tensor([[5.0, 12.0]])]
    expect_number(
        expect_float(cosine_of_gradients(gradients, others)),
        48 / 65,
        "for (3, 0, 4) and (0, 5, 12) expected 0.7385",
        {
            48.0: "that is the sum of the products; divide it by both lengths",
            9.6: "it is divided by the first length only",
            3.6923: "it is divided by the second length only",
            0.0114: "it is divided by the squares of the lengths; the length is the root",
            0.4615: "that is the mean of the cosines of the single tensors; all tensors together are one vector",
            0.9231: "that is the cosine of the last tensors alone; all tensors together are one vector",
            0.0: "that is the cosine of the first tensors alone; all tensors together are one vector",
            0.7400: "that is the angle; its cosine is asked for",
            0.2615: "that is 1 minus the cosine",
            0.5453: "that is the square of the cosine",
        },
        show=".4f",
        tolerance=1e-4,
    )
    for shapes in [[(7,)], [(32, 4), (32,), (2, 32), (2,)], [(1,), (3, 2, 2), (5, 1)]]:
        for scale in (1e-3, 1.0, 1e3):
            # Gradients need not be contiguous.
            first = [scale * torch.randn(*shape, 2)[..., 0] for shape in shapes]
            second = [torch.randn(shape) for shape in shapes]
            vectors = flatten(first).double(), flatten(second).double()
            expected = (vectors[0] @ vectors[1] / vectors[0].norm() / vectors[1].norm()).item()
            backward = [-tensor for tensor in first]
            for others, value in [(second, expected), (first, 1.0), (backward, -1.0)]:
                got = expect_float(cosine_of_gradients(first, others))
                known = ": the sign counts, -1 is the opposite direction" if is_close(got, -value) else ""
                assert is_close(got, value, absolute=1e-4), (
                    f"for random gradients of {len(shapes)} tensors, {scale:g} times as long, expected {value:.4f}, "
                    f"got {got:.4f}{known}"
                )


# What tells a bug from all others, for those who did not see it.
TELLING = {
    "no minus": "its gain is below 0 in every epoch",
    "late observation": "its first observations are no starts",
    "sampled twice": "it has a gap in the first epoch, and its starts are starts",
    "across borders": "its weights spread wider than the longest episode",
    "N by N policy loss": "its gradient is about 1e-8, rounding and not 0; ask for it first, its gain may be below 0",
    "N by N value loss": "its critic explains nothing, in the later epochs either",
    "softmax twice": "it is never sure, whatever it is asked",
    "inputs times 1000": "its policy is sure of itself before the first step",
    "plays the argmax": "its actions are likelier than samples: the mean of surplus",
    "optimizer of a copy": "its parameters do not move at all",
    "no zero_grad": "its cosine leaves 1 after the first epoch",
    "ten steps a batch": "its kl is large, and its first entropy is not small",
    "one batch for ever": "its gap comes after the first epoch",
}
SEEDS = 3
FORGIVEN = 3  # of 39 runs, one of a bug: some runs show nothing, and luck shall refuse no good doctor
_fresh: dict[tuple, dict[str, list]] = {}  # made once for every version of make_runs, for it takes seconds


def fresh_runs(make_runs, recipes):
    """Return runs with seeds that no lesson uses, by the name of the recipe, every array read-only."""
    key = make_runs.__code__, *recipes
    if key not in _fresh:
        seed = int(np.random.randint(1_000, 1_000_000))
        with torch.random.fork_rng(devices=[]):
            _fresh[key] = {name: make_runs(recipe, range(seed, seed + SEEDS)) for name, recipe in recipes.items()}
        for entry in itertools.chain.from_iterable(itertools.chain(*_fresh[key].values())):
            entry.setflags(write=False)
    return _fresh[key]


def diagnoses(diagnose, make_runs, recipes):
    """Return what an answer says of every fresh run, by the name of the recipe."""
    answers = {name: [diagnose(run) for run in some] for name, some in fresh_runs(make_runs, recipes).items()}
    known = [*TELLING, "healthy"]
    for answer in itertools.chain.from_iterable(answers.values()):
        assert isinstance(answer, str) and answer in known, f"expected a key of RECIPES or 'healthy', got {answer!r}"
    return answers


@claim("diagnose", "accuses no sound run")
def _(diagnose, make_runs, recipes):
    answers = diagnoses(diagnose, make_runs, recipes)
    for name in ("healthy", "slow"):
        accused = [answer for answer in answers[name] if answer != "healthy"]
        assert not accused, (
            f"of {SEEDS} fresh runs of {name!r} it calls {len(accused)} {accused[0]!r}; there is nothing wrong "
            f"with them: is the threshold too near to what a sound run shows, or to what a slow one does?"
        )


@claim("diagnose", "names the bug")
def _(diagnose, make_runs, recipes):
    answers = diagnoses(diagnose, make_runs, recipes)
    right = {bug: answers[bug].count(bug) for bug in TELLING}
    missed, runs = min(right, key=right.get), SEEDS * len(TELLING)
    wrong = next((answer for answer in answers[missed] if answer != missed), None)
    assert right[missed] >= SEEDS - 1 and sum(right.values()) >= runs - FORGIVEN, (
        f"it names {sum(right.values())} of {runs} fresh runs; of {missed!r}, {right[missed]} of "
        f"{SEEDS}, and calls one {wrong!r}. What tells it: {TELLING[missed]}"
    )


# ---- 2. From claims to verdicts --------------------------------------------------------------------------------------

_passed: dict[Callable, set[str]] = {}  # which claims a function was seen to keep
_interrupted: set[Callable] = set()  # functions that somebody, or a grader's time-out, had to stop
_references: set[Callable] = set()  # functions that go_on put in the place of a learner's
_TRAINERS = {"take_one_gradient_step", "train_one_epoch", "fit_value", "train_vpg"}  # their models are to be changed
_REMARKS = {  # what an error message is often about
    "None": "a function without a return gives None",
    "mat1 and mat2": "a layer takes as many numbers as the layer before it gives",
    "match the size of tensor": "one weight for each step; does a list live on from episode to episode?",
    "all input arrays": "does a list live on from one call to the next?",
    "unsized object": "np.stack joins a list of arrays of shape ()",
    "element tensor": "functions of math take one number; torch has them for tensors",
}


class CheckFailed(AssertionError):  # noqa: N818
    """A verdict: what was expected, what was got. A notebook shows this line instead of a traceback."""

    def _render_traceback_(self):
        return [f"{type(self).__name__}: {self}"]


class NotWrittenYet(CheckFailed):
    """The exercise is still blank."""


def check(exercise: Callable, claim: str | None = None, **given):
    """Check an exercise claim by claim, or one claim alone; print what holds.

    given is what the claims need from the lesson.
    Raises CheckFailed, one plain line, at the first claim that does not hold; NotWrittenYet where the exercise is
    blank; ValueError for a function that is no exercise, or a claim that it has not; TypeError where the lesson's
    part is missing.
    """
    name = _exercise_name(exercise, inspect.currentframe().f_back)
    claims = CLAIMS[name]
    if claim is not None and claim not in claims:
        raise ValueError(f"{name} has no claim {claim!r}; give one of {', '.join(map(repr, claims))}")
    for text in [claim] if claim else claims:
        needed = list(inspect.signature(claims[text]).parameters)[1:]
        if set(needed) != set(given):
            raise TypeError(f"check({name}) was given {sorted(given)} of the lesson; it needs {needed}")
        with checking(exercise, text, name):
            claims[text](_leaving_inputs(exercise, but=nn.Module if name in _TRAINERS else ()), **given)


def _leaving_inputs(exercise, but):
    """Return the function as claims call it, with an assertion that it leaves what it is given as it was.

    What is of the type `but` may change.
    """

    @functools.wraps(exercise)
    def call(*positional, **named):
        given = [*positional, *named.values()]
        before = [None if isinstance(value, but) else _snapshot(value) for value in given]
        returned = exercise(*positional, **named)
        for number, (value, was) in enumerate(zip(given, before, strict=True)):
            if was is not None and _snapshot(value) != was:
                parameters = [*inspect.signature(exercise).parameters][: len(positional)] + [*named]
                raise AssertionError(f"the {parameters[number]} that it was given changed: copy first")
        return returned

    return call


def _snapshot(value):
    """Return what an argument holds, in a form that can be compared; nothing of what cannot be changed."""
    if isinstance(value, nn.Module):
        parameters = [(_snapshot(parameter), _snapshot(parameter.grad)) for parameter in value.parameters()]
        return value.training, parameters, [_snapshot(buffer) for buffer in value.buffers()]
    if isinstance(value, Categorical):
        return _snapshot(value.logits)
    if isinstance(value, (Tensor, np.ndarray)):
        array = value.detach().numpy() if isinstance(value, Tensor) else value
        return array.shape, array.tobytes(), getattr(value, "requires_grad", None)
    if isinstance(value, list):
        return [entry if (held := _snapshot(entry)) is None else held for entry in value]
    return copy.deepcopy(value) if isinstance(value, dict) else None


def _exercise_name(exercise, frame):
    """Return which exercise a function answers: its own name, or the one under which the notebook holds it."""
    own_name = getattr(exercise, "__name__", "")
    if own_name in CLAIMS:
        return own_name
    held = [name for name in CLAIMS if frame.f_globals.get(name) is exercise]
    if not held:
        raise ValueError(f"{own_name or repr(exercise)} is no exercise; give one of {', '.join(CLAIMS)}")
    return held[0]


@contextlib.contextmanager
def checking(exercise: Callable, claim: str, name: str):
    """Run assertions about an exercise; say that it keeps the claim, or raise CheckFailed with one plain line.

    A function that still raises NotImplementedError is NotWrittenYet. One that had to be interrupted is not run
    again: an endless loop takes a grader one time-out, and not one for every check.
    """
    if exercise in _interrupted:
        raise CheckFailed(f"{name}: it was interrupted before; does its loop end? Run its cell again to try again")
    if exercise in _references:
        raise NotWrittenYet(f"{name}: not written yet; this is the reference. Run your own cell, then this check")
    if _is_older(exercise, name):
        raise CheckFailed(
            f"{name}: the cell that you ran last did not define it, so this is an older version; what did it say?"
        )
    if _leads_to_reference(exercise, name):
        raise CheckFailed(f"{name}: it calls the reference, vpg_helpers.{name}; what that does is yours to write")
    claims = _passed.setdefault(exercise, set())
    claims.discard(claim)
    try:
        yield
    except KeyboardInterrupt:
        _interrupted.add(exercise)
        raise
    except NotImplementedError as error:
        # PyTorch raises one, too: of a class that has no forward.
        if error.args and "not written yet" not in str(error):
            raise CheckFailed(f"{name}: {_locate(error, exercise)}") from None
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


def _leads_to_reference(function, name):
    """Tell whether a function is vpg_helpers' own of that name, or calls it, under whatever name, in the notebook."""
    to_see, seen = [function], set()
    while to_see:
        function = to_see.pop()
        function = inspect.unwrap(getattr(function, "func", function))  # functools.partial has a func
        code = getattr(function, "__code__", None)
        if code and code.co_filename == vpg_helpers.__file__ and code.co_name == name:
            return True
        if code and code not in seen and function.__module__ == "__main__":
            to_see += _mentioned(function)
        seen.add(code)
    return False


def _mentioned(function):
    """Return what the names in a function's code stand for in its notebook, and the names of modules there."""
    code, known, mentioned = function.__code__, dict(function.__globals__), []
    for part in ast.walk(ast.parse("".join(linecache.getlines(code.co_filename)))):
        lines = (
            [part.lineno, *(each.lineno for each in part.decorator_list)] if isinstance(part, ast.FunctionDef) else []
        )
        if isinstance(part, ast.Lambda):
            lines = [part.lineno]
        for node in ast.walk(part) if code.co_firstlineno in lines else []:
            if isinstance(node, (ast.Import, ast.ImportFrom)):
                for each in node.names:
                    module = sys.modules.get(getattr(node, "module", each.name))
                    value = getattr(module, each.name, None) if isinstance(node, ast.ImportFrom) else module
                    known[each.asname or each.name] = value
                    mentioned.append(value)
            elif _is_name(node):
                mentioned.append(known.get(node.id))
            elif isinstance(node, ast.Attribute) and _is_name(node.value):
                module = known.get(node.value.id)
                mentioned.append(getattr(module, node.attr, None) if inspect.ismodule(module) else None)
    return mentioned


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
    choices = ", ".join(f'"{choice}"' for choice in question["choices"])
    chosen = {_squeeze(choice): choice for choice in question["choices"]}.get(_squeeze(str(answer)))
    if answer is ...:
        raise NotWrittenYet(f"{name}: not written yet; put one of {choices} in place of the dots")
    if chosen is None:
        raise CheckFailed(f"{name}: got {answer!r}; write one of {choices}")
    sentence = question["choices"][chosen]
    if chosen != question["answer"]:
        raise CheckFailed(f'{name}: not "{chosen}". {sentence}')
    print("Right.", sentence)


def _squeeze(text):
    return re.sub(r"\s", "", text.lower())


def _unseal(sealed):
    return base64.b64decode(sealed).decode()


# ---- 3. The learner's own file ---------------------------------------------------------------------------------------

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


def go_on(name: str, namespace: dict, sealed_reference: str):
    """Go on with the learner's function, and keep it, if it passed its checks; with the reference if not.

    namespace is the notebook's globals().
    """
    function = namespace.get(name)
    if _passed.get(function, set()) >= set(CLAIMS[name]):
        print(f"{name}: yours from here on.", keep(name, function) if name in KEPT_FUNCTIONS else "")
    else:
        exec(_unseal(sealed_reference), namespace)
        _references.add(namespace[name])
        print(f"{name}: the reference from here on. Once yours passes its check, run this cell again.")


def keep(name: str, function: Callable) -> str:
    """Write one of the kept functions, with what else its cell defines, to LEARNERS_FILE; return what was done.

    The file is replaced in one move, and the version before stays beside it as my_agent.previous.py. A function
    that leans on another cell would not work there: it is not written, and the returned sentence says so.
    """
    _run_learners_file({})
    before = LEARNERS_FILE.read_text(encoding="utf-8") if LEARNERS_FILE.exists() else ""
    header, sections = _cut_into_sections(before)
    try:
        sections[name] = _definitions(name, function)
        _refuse_unknown_names(name, header, sections)
    except ValueError as error:
        return f"Not kept: {error}."
    parts = [header, *(f"\n# ---- {each} ----\n\n{sections[each]}" for each in KEPT_FUNCTIONS if each in sections)]
    if all(each in sections for each in KEPT_FUNCTIONS):
        parts.append(f"\n# ---- program ----\n\n{sections.get('program', _PROGRAM)}")
    text = "".join(parts)
    if before and text != before:
        _replace(LEARNERS_FILE.with_suffix(".previous.py"), before)
    if text != before:
        _replace(LEARNERS_FILE, text)
    return f"Kept in {LEARNERS_FILE}."


def _replace(path, text):
    new = path.with_suffix(".new")
    new.write_text(text, encoding="utf-8")
    os.replace(new, path)


def _cut_into_sections(text):
    """Return the header and the sections, {name: source}, of what the learner's file holds."""
    header, *rest = re.split(r"^\n# ---- (\w+) ----\n\n", text or _HEADER, flags=re.M)
    return header, dict(zip(rest[::2], rest[1::2], strict=True))


def _run_learners_file(given):
    """Execute the learner's file on top of the names given, and return all names; set a file that fails aside."""
    namespace = given | {"__name__": LEARNERS_FILE.stem}
    if not LEARNERS_FILE.exists():
        return namespace
    try:
        exec(compile(LEARNERS_FILE.read_text(encoding="utf-8"), str(LEARNERS_FILE), "exec"), namespace)
        return namespace
    except Exception as error:
        numbers = itertools.count(1)
        aside = next(path for n in numbers if not (path := LEARNERS_FILE.with_suffix(f".broken-{n}.py")).exists())
        os.replace(LEARNERS_FILE, aside)
        print(
            f"{LEARNERS_FILE} does not run ({type(error).__name__}: {error}). It is now {aside}; nothing is lost: "
            f"run your cells and their checks again, or mend it and copy its functions into a new {LEARNERS_FILE}."
        )
        return given


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
    if not kept:
        raise ValueError(f"{name} was not defined in a notebook cell")
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
        for each in KEPT_FUNCTIONS:
            own = dict(imported)
            exec(sections.get(each, ""), own)
            new = {key: own[key] for key in own.keys() - imported.keys()}
            both = [key for key in new if namespace.get(key, new[key]) is not new[key]]
            if both:
                raise ValueError(f"{name}'s cell and another one both define {', '.join(both)}; rename one")
            namespace.update(new)
    except NameError as error:
        raise ValueError(f"{error}: import or define it in the cell of {name}") from None
    missing = sorted(_outside_names(sections[name]) - {*namespace, *dir(builtins), *KEPT_FUNCTIONS})
    if "vpg" in missing:
        raise ValueError(f"{name} calls functions of vpg; write get_policy, say, and not vpg.get_policy")
    if missing:
        raise ValueError(f"{name} uses {', '.join(missing)} of another cell; define it in the cell of {name}")


def _outside_names(source):
    """Return the names that a piece of code uses and does not make itself."""
    top = symtable.symtable(source, "cell", "exec")
    tables, used = [top], set()
    for table in tables:  # the list grows while it is walked
        tables += table.get_children()
        used |= {each.get_name() for each in table.get_symbols() if each.is_referenced() and each.is_global()}
    return used - {each.get_name() for each in top.get_symbols() if each.is_assigned() or each.is_imported()}


def with_my_functions(*names: str):
    """Return a module like vpg_helpers in which the functions named are the learner's own, where the file has them.

    Whatever else the module holds, train_seeds say, calls the learner's functions too, and theirs call each other.
    """
    specification = importlib.util.spec_from_file_location("vpg_with_my_functions", vpg_helpers.__file__)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    # A namespace apart for the learner's cells, so that a helper of theirs may have any name.
    reference = {name: getattr(module, name) for name in KEPT_FUNCTIONS}
    own = _run_learners_file(reference)
    mine = [name for name in names if own[name] is not reference[name]]
    for name in mine:
        setattr(module, name, own[name])
    others = ", ".join(name for name in names if name not in mine)
    print(f"Yours: {', '.join(mine) or 'none'}. The reference: {others or 'none'}.")
    return module
