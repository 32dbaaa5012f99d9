"""Lesson 2: from logits to a policy."""

import math

import numpy as np
import torch
from torch import Tensor
from torch.distributions import Categorical

import vpg_helpers
from vpg_lab.checks.expect import (
    expect_number,
    expect_shape,
    expect_type,
    flatten,
    is_close,
    is_close_in_length,
    log_probabilities_of,
    redraw,
)
from vpg_lab.checks.verdicts import claim
from vpg_lab.checks.worlds import echo_model


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
