"""Lesson 1: how many parameters there are, and the model."""

import copy
import itertools
from numbers import Integral

import numpy as np
import torch
from torch import nn

from vpg_lab.checks.expect import expect_shape, expect_type, expect_value, flatten, is_close, is_close_in_length, redraw
from vpg_lab.checks.verdicts import claim


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
