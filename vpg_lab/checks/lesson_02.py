"""Lesson 2: from logits to a policy."""

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn
from torch.distributions import Categorical

from vpg_lab.checks.expect import Case, case, expect_reference, expect_type, is_close, mistakes, redraw
from vpg_lab.checks.verdicts import claim
from vpg_lab.checks.worlds import echo_model


@mistakes("probability_of_right")
def logistic_gone_wrong(difference):
    return {
        "that is left's probability; look at the sign of the exponent": torch.sigmoid(-difference),
        "that is how many times likelier right is than left": difference.exp(),
        "that is the logarithm of the probability": nn.functional.logsigmoid(difference),
        "the two terms in the bottom add up": 1 / (1 - (-difference).exp()),
        "that is the hyperbolic tangent, which goes from -1 to 1": difference.tanh(),
        "the hyperbolic tangent rises twice as fast: halve the difference first": (1 + difference.tanh()) / 2,
        "a softmax over a single number is always 1": torch.ones_like(difference),
        "a softmax over the differences weighs one against another; each stands alone": difference.softmax(dim=-1),
    }


@claim("probability_of_right")
def probability_is_the_softmax_s(probability_of_right):
    cases = [case("for a difference of log 3", torch.tensor(math.log(3)))]
    # As far out as e to the power of it can be written with 32 bits.
    for shape, reach in [((1_000,), 4), ((2,), 3), ((7, 6), 80), ((1, 40), 30), ((1, 1), 2)]:
        differences = torch.linspace(reach, -reach, torch.Size(shape).numel()).reshape(shape)
        cases.append(case(f"for differences of shape {shape}", differences))
    hint = "e to right's logit over the sum of both, for each difference alone, with nothing cut off"
    expect_reference(probability_of_right, lambda d: d.double().sigmoid(), logistic_gone_wrong, cases, hint=hint)
    difference = torch.randn(100, requires_grad=True)
    got, p = probability_of_right(difference), difference.sigmoid()
    lost = "its gradient should be p · (1 - p): leave it to autograd, with no math, detach or .item() on the way"
    assert isinstance(got, Tensor) and got.requires_grad, lost
    assert is_close(torch.autograd.grad(got.sum(), difference)[0], p * (1 - p), absolute=1e-4), lost


@mistakes("get_policy")
def policies_gone_wrong(model, observation):
    logits = model(torch.as_tensor(observation))
    best = nn.functional.one_hot(logits.argmax(dim=-1), logits.shape[-1])
    return {
        "the softmax was applied twice; logits= applies it itself": Categorical(logits=logits.softmax(dim=-1)),
        "the logits were taken for probabilities: Categorical(logits=...)": Categorical(probs=logits.abs()),
        "the largest was made certain; leave the choice to the die": Categorical(logits=1e3 * best + 0 * logits),
        "the order of the actions is turned round": Categorical(logits=logits.flip(-1)),
        "the signs are turned round": Categorical(logits=-logits),
        "is the observation used?": Categorical(logits=model(torch.zeros(np.shape(observation)))),
        "each row of logits has its own softmax, over the last dimension": Categorical(probs=logits.softmax(dim=0)),
        "add no dimension: one observation gives one distribution": Categorical(logits=logits[None]),
        "keep dimensions of length 1, too: no squeeze": Categorical(logits=logits.squeeze()),
        "keep the shape of the batch: no flatten, no reshape": Categorical(logits=logits.flatten()),
    }


def expect_policies(get_policy: Callable, cases: list[Case], hint: str):
    """Assert that policies have the softmax of the logits, and that their log-probabilities reach the model."""

    def ask(function, model, observation):
        policy = function(model, observation)
        expect_type(policy, Categorical, "a Categorical")
        return policy.probs

    def softmax(model, observation):
        return Categorical(logits=model(torch.as_tensor(observation)))

    expect_reference(get_policy, softmax, policies_gone_wrong, cases, ask, "probabilities of ", hint, tolerance=1e-5)
    for said, (model, observation) in cases:
        policy = get_policy(model, observation)
        total = policy.log_prob(torch.zeros(policy.batch_shape)).sum()
        lost = "the gradient is lost: is the model asked, with no detach, no_grad, .item() or copy on the way?"
        found = torch.autograd.grad(total, model.parameters(), allow_unused=True) if total.requires_grad else [None]
        assert all(gradient is not None for gradient in found), f"{said} {lost}"


@claim("get_policy", "gives the softmax of the logits")
def policy_is_the_softmax_of_the_logits(get_policy):
    cases = [case("for logits 0 and log 3", echo_model(), torch.tensor([0.0, math.log(3)]))]
    cases += [case("for two logits above 0", echo_model(), 3 * torch.rand(2)) for _ in range(3)]
    expect_policies(get_policy, cases, "Categorical(logits=...), with the logits as the model gives them")
    hint = "one probability for each logit of the model that is handed over, and nothing cut off"
    for offset in (0, 1_000, -1_000):  # it changes nothing, and shows where something cuts logits off
        model = redraw(nn.Linear(3, 4))
        model.bias.data += offset
        expect_policies(get_policy, [case(f"for four logits near {offset}", model, 2 * torch.randn(3))], hint)


@claim("get_policy", "takes batches and arrays")
def policies_of_batches_and_arrays_are_their_own(get_policy):
    cases = []
    for shape, actions in [((7, 5), 2), ((1,), 2), ((1, 1), 3), ((6,), 5), ((2, 3, 4), 3)]:
        features = np.random.randint(2, 6)
        model, observations = redraw(nn.Linear(features, actions)), torch.randn(*shape, features)
        cases.append(case(f"for an array of shape {(*shape, features)}", model, observations.numpy()))
        cases.append(case(f"for a tensor of shape {(*shape, features)}", model, observations))
    expect_policies(get_policy, cases, "each observation has its own distribution, over the last dimension")
