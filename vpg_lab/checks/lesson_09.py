"""Lesson 9: Gaussian policies."""

import math

import torch
from torch import Tensor, nn

from vpg_lab.checks.expect import (
    expect_defaults,
    expect_number,
    expect_shape,
    expect_type,
    expect_value,
    flatten,
    is_close,
    is_close_in_length,
    redraw,
)
from vpg_lab.checks.verdicts import claim


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
