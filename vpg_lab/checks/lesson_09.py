"""Lesson 9: Gaussian policies."""

import math

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Normal, TransformedDistribution
from torch.nn.functional import softplus

from vpg_lab.checks.expect import (
    case,
    expect_defaults,
    expect_reference,
    expect_shape,
    expect_type,
    flatten,
    is_close,
    is_close_in_length,
    mistakes,
    name_mistake,
    redraw,
)
from vpg_lab.checks.verdicts import claim


def density_by_pytorch(actions, means, log_stds):
    return Normal(means, log_stds.exp()).log_prob(actions).sum(dim=-1)


@mistakes("gaussian_log_likelihood")
def densities_gone_wrong(actions, means, log_stds):
    right, distances, dimensions = density_by_pytorch(actions, means, log_stds), actions - means, means.shape[-1]
    stds, half = log_stds.exp(), 0.5 * math.log(2 * math.pi)

    def density(squares=(distances / stds) ** 2, logarithms=log_stds):
        return (-0.5 * squares - logarithms - half).sum(dim=-1)

    return {
        "a standard deviation is asked for, and it got the variance": density_by_pytorch(actions, means, 2 * log_stds),
        "the square is divided by the variance, not by the standard deviation": density(distances**2 / stds),
        "the constant, half of log 2π for each dimension, is missing": right + dimensions * half,
        "the constant belongs to every dimension, not once to an action": right + (dimensions - 1) * half,
        "the log of the standard deviation has the wrong sign": density(logarithms=-log_stds),
        "the log of the standard deviation is missing": density(logarithms=0 * log_stds),
        "the squares are to be halved": density(2 * (distances / stds) ** 2),
        "the sign is turned round": -right,
        "log_stds is the logarithm already; its exp is the standard deviation": density((distances / log_stds) ** 2),
        "log_stds is the logarithm already; another log of it is too many": density(logarithms=log_stds.log()),
        "that is the density; its logarithm is asked for": right.exp(),
        "stay in logarithms: far from the mean the density is 0 in 32 bits": right.exp().log(),
        "log_stds is kept within bounds: take it as it is": density_by_pytorch(actions, means, log_stds.clamp(-20, 2)),
        "that is the mean over the dimensions: independent log-densities add up": right / dimensions,
    }


@claim("gaussian_log_likelihood")
def likelihood_is_that_of_independent_gaussians(gaussian_log_likelihood):
    by_hand = [torch.tensor(numbers) for numbers in ([[0.5, -1.0]], [[0.2, -0.4]], [-0.5, 0.3])]
    cases = [case("for actions (0.5, -1), means (0.2, -0.4), log_stds (-0.5, 0.3)", *by_hand)]
    for *shape, distance in [(7, 1, 3), (40, 3, 3), (2, 5, 4, 3), (6, 3), (5, 2, 60)]:
        actions, means, log_stds = distance * torch.randn(shape).sign(), torch.randn(shape), torch.randn(shape[-1:]) / 3
        log_stds = log_stds + torch.linspace(2.5, -2.5, shape[-1])
        cases.append(case(f"for random actions of shape {tuple(shape)}", actions, means, log_stds))

    def ask(function, actions, means, log_stds):
        expect_type(got := function(actions, means, log_stds), Tensor, "a tensor")
        shapes = f"actions of shape {tuple(actions.shape)} gave shape {tuple(got.shape)}"
        assert got.shape == actions.shape[:-1], f"{shapes}: add up the last axis, and only that"
        return got

    def ask_for_gradient(function, actions, *rest):
        leaves = [each.clone().requires_grad_() for each in rest]
        got, lost = function(actions, *leaves), "the gradients of means and log_stds are lost: no detach, item or NumPy"
        assert got.requires_grad, lost
        slopes = torch.autograd.grad(got.sum(), leaves, allow_unused=True)
        assert None not in slopes, lost
        return flatten(slopes)

    answer_and_table = gaussian_log_likelihood, density_by_pytorch, densities_gone_wrong, cases
    for how, what in ((ask, ""), (ask_for_gradient, "a gradient of ")):
        expect_reference(*answer_and_table, how, what, tolerance=1e-4)


def ask_for_policy(actor: nn.Module, observations) -> Distribution:
    """Assert that an actor gives a distribution, and that no tanh stands around its actions; return it."""
    expect_type(actor, nn.Module, "an nn.Module")
    expect_type(policy := actor(observations), Distribution, "a distribution from forward")
    squashed = isinstance(policy, TransformedDistribution)
    assert not squashed, "expected a Gaussian as it is, got a transformed one: nothing is put around an action"
    return policy


def gaussian_by_hand(actor, observations):
    """Return what parameters for 3 features, 7 hidden units and 2 actions give, matrices either way round."""
    left = [parameter for parameter in actor.parameters() if parameter is not actor.log_stds]
    first, last = (next(p for p in left if sorted(p.shape) == sizes) for sizes in ([3, 7], [2, 7]))
    biases = [next(p for p in left if p.shape == size) for size in ((7,), (2,))]
    hidden = observations @ (first.T if len(first) == 7 else first) + biases[0]
    return Normal(hidden.tanh() @ (last.T if len(last) == 2 else last) + biases[1], actor.log_stds.exp())


@claim("GaussianActor", "gives a Gaussian for every observation")
def actor_gives_a_gaussian_for_every_observation(gaussian_actor):
    actor, observations = gaussian_actor(3, 2, 7), torch.randn(50, 3)
    policy, alone = ask_for_policy(actor, observations), ask_for_policy(actor, observations[0])
    actions = policy.sample()
    expect_shape(actions, (50, 2), "50 observations and 2 actions should give samples of shape (50, 2), got {}")
    together = ": an action is all of its dimensions together, Independent(..., 1) adds them up"
    expect_shape(policy.log_prob(actions), (50,), "50 actions gave log-probabilities of shape {}" + together)
    expect_shape(alone.log_prob(alone.sample()), (), "one action gave a log-probability of shape {}: it is one number")
    log_stds = getattr(actor, "log_stds", None)
    hint = ": made in __init__ under that name, the same for every observation"
    expect_type(log_stds, nn.Parameter, "an nn.Parameter as log_stds", hint)
    expect_shape(log_stds, (2,), "for 2 actions log_stds should have shape (2,), got {}")
    assert is_close(log_stds, [-0.5, -0.5]), f"log_stds should start at -0.5, got {log_stds[0]:.4f}"
    got, expected = sorted(sorted(p.shape) for p in actor.parameters()), [[2], [2], [2, 7], [3, 7], [7]]
    assert got == expected, f"GaussianActor(3, 2, 7): expected parameters of shapes {expected}, got {got}"
    redraw(actor, 0.7)
    log_stds.data = torch.tensor([-2.5, 2.5])  # narrow and wide, so that no bound on them goes unnoticed
    policy, right = ask_for_policy(actor, observations.numpy()), gaussian_by_hand(actor, observations)
    assert is_close(policy.mean, right.mean, absolute=1e-4), "the means are not W2 tanh(W1 s + b1) + b2"
    known = {
        "that is the variance, and Normal takes the standard deviation": right.variance,
        "that is softplus of log_stds": softplus(actor.log_stds).expand(50, 2),
        "log_stds is kept within bounds": actor.log_stds.clamp(-20, 2).exp().expand(50, 2),
    }
    mistake = name_mistake(known, lambda wrong: is_close(policy.stddev, wrong))
    assert is_close(policy.stddev, right.stddev), f"the standard deviations are not exp(log_stds){mistake}"
    got, expected = policy.log_prob(actions), right.log_prob(actions).sum(dim=-1)
    assert is_close(got, expected, absolute=1e-4), "its log_prob is not the sum of its dimensions'"
    lost = "the log-probability does not carry the gradient of all parameters: no detach, no_grad or .data on the way"
    assert got.requires_grad, lost
    slopes = [torch.autograd.grad(each.sum(), [*actor.parameters()], allow_unused=True) for each in (got, expected)]
    assert None not in slopes[0] and is_close_in_length(*map(flatten, slopes)), lost
    expect_defaults(gaussian_actor, hidden_units=32)


@claim("GaussianActor", "samples from it")
def actor_samples_from_its_gaussian(gaussian_actor):
    expect_type(actor := gaussian_actor(4, 3, 8), nn.Module, "an nn.Module")
    redraw(actor, 0.5)
    policy = ask_for_policy(actor, torch.randn(1, 4).expand(20_000, 4))
    actions = policy.sample()
    expect_shape(actions, (20_000, 3), "20,000 observations and 3 actions should give shape (20000, 3), got {}")
    assert not actions.requires_grad, "a sample is data: it carries no gradient"
    scores = (actions - policy.mean.detach()) / policy.stddev.detach()
    # Means of 20,000 have a standard error of 0.007; that all six numbers are within seven of them is nearly certain.
    assert (scores.mean(dim=0).abs() < 0.05).all(), "the samples' mean is not the policy's"
    assert ((scores.std(dim=0) - 1).abs() < 0.035).all(), "the samples spread more or less than the policy says"
