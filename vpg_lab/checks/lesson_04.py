"""Lesson 4: the small world's trajectories, and the pseudo-loss."""

import random
import time

import numpy as np
import torch
from torch import Tensor, nn

from vpg_lab.checks.expect import call, case, expect_reference, expect_shape, expect_type, mistakes
from vpg_lab.checks.verdicts import claim
from vpg_lab.small_world import DYNAMICS, START

TINY = torch.tensor([[0.0, 0.5], [0.5, 0.0]])  # the weights of the lesson's tiny_model
lesson = {}  # "model": tiny_model itself, which sum_of_log_policy asks and is not handed


def policy_of(weight):
    return torch.softmax(weight.T, dim=-1)  # π(action | state), (states, actions), of a linear model without biases


def random_trajectory(steps):
    return [*zip(*np.random.randint(2, size=(3, steps)).tolist(), strict=True)]  # never fallen before its end


def expect_value_and_gradient(answer, reference, known, cases, ask, weight_of, hint=""):
    """Assert that a scalar has its value, and then its gradient by the weights of a model."""

    def ask_value(function, *inputs):
        value = ask(function, *inputs)
        expect_type(
            value,
            Tensor,
            "a tensor with its gradient",
            ": take what the policy says, with no .item(), math.log or NumPy",
        )
        expect_shape(value, (), "expected a scalar, got shape {}")
        assert value.requires_grad, "the gradient is lost: no .item(), detach or torch.tensor() on the way"
        return value

    def ask_gradient(function, *inputs):
        return torch.autograd.grad(ask_value(function, *inputs), weight_of(*inputs))[0]

    expect_reference(answer, reference, known, cases, ask_value, "", hint, tolerance=1e-4)
    hint = "the value is right, its gradient is not"
    expect_reference(answer, reference, known, cases, ask_gradient, "a gradient of ", hint, tolerance=1e-4)


def probability_of(model, trajectory, dynamics=DYNAMICS):
    states, actions, next_states = map(list, zip(*trajectory, strict=True))
    chances = START[states[0]] * dynamics[states, actions, next_states].prod()
    return chances * policy_of(model.weight)[states, actions].prod()


@mistakes("trajectory_probability")
def probabilities_gone_wrong(model, trajectory, dynamics=DYNAMICS):
    states, actions, next_states = map(list, zip(*trajectory, strict=True))
    start, chances, policy = START[states[0]], dynamics[states, actions, next_states], policy_of(model.weight)
    tiny = policy_of(model.weight - model.weight.detach() + TINY)[states, actions]
    chosen, right, world = policy[states, actions], probability_of(model, trajectory, dynamics), start * chances.prod()
    swapped = dynamics[actions, states, next_states].prod() * policy[actions, states].prod()
    return {
        "the chance of the start is missing": right / start,
        "the first state decides which chance of the start it is": right / start * START[0],
        "the chances of the next states are missing": start * chosen.prod(),
        "use the dynamics that are handed over": probability_of(model, trajectory),
        "every step has its own state, and so its own row of policy.probs": world * policy[states[0], actions].prod(),
        "policy.logits are log-probabilities; take policy.probs": world * chosen.log().prod(),
        "that is tiny_model's; use the model that is handed over": world * tiny.prod(),
        "the state comes first, then the action": start * swapped,
        "what happens step after step is multiplied, not added": start + (chosen * torch.tensor(chances)).sum(),
        "that is the logarithm; return the probability": right.log(),
        "the start has its chance once": right * start ** (len(trajectory) - 1),
        "the first step is all there is; return behind the loop": start * chances[0] * chosen[0],
    }


@claim("trajectory_probability")
def trajectory_has_its_probability_and_gradient(trajectory_probability, trajectories):
    def model_of(weight):
        model = nn.Linear(2, 2, bias=False, dtype=torch.float64)
        model.register_forward_pre_hook(lambda _, inputs: inputs[0].double())  # get_policy may hand over 32 bits
        model.weight.data = weight
        return model

    by_hand, known = torch.tensor([[0.0, 0.0], [np.log(3), 0.0]], dtype=torch.float64), probabilities_gone_wrong
    said = "where a push has 0.75 upright and 0.5 leaning, [(0, 1, 1), (1, 0, 2)] has 0.8 · 0.75 · 0.6 · 0.5 · 0.6:"
    cases = [case(said, model_of(by_hand), [(0, 1, 1), (1, 0, 2)])]
    worlds = [(random_trajectory(steps), np.random.dirichlet(np.full(3, 0.4), (2, 2))) for steps in (1, 1, 2, 2, 3, 5)]
    for trajectory, *world in [*zip(random.sample(trajectories, 8), strict=True), *worlds]:
        said = f"{trajectory[:4]}, {len(trajectory)} steps, another model{', other dynamics' * len(world)}:"
        cases.append(case(said, model_of(4 * torch.rand(2, 2).double() - 2), trajectory, *world))
    weight_of = lambda model, *_: model.weight  # noqa: E731
    expect_value_and_gradient(trajectory_probability, probability_of, known, cases, call, weight_of)


def sum_over_steps(trajectory):
    states, actions, _ = map(list, zip(*trajectory, strict=True))
    return policy_of(lesson["model"].weight).log()[states, actions].sum()


@mistakes("sum_of_log_policy")
def sums_gone_wrong(trajectory):
    states, actions, next_states = map(list, zip(*trajectory, strict=True))
    weight, world = lesson["model"].weight, START[states[0]] * DYNAMICS[states, actions, next_states].prod()
    logs, right, chosen = policy_of(weight).log(), sum_over_steps(trajectory), policy_of(weight)[states, actions]
    return {
        "those are probabilities; take their logarithms": chosen.sum(),
        "that is the product of the probabilities; line 5 adds logarithms": chosen.prod(),
        "the model's logits are not normalized; policy.logits are": weight.T[states, actions].sum(),
        "take the logarithms first, then the sum": chosen.sum().log(),
        "that is the mean; line 5 has the sum over all steps": right / len(trajectory),
        "that is the last step's; line 5 has the sum over all steps": logs[states[-1], actions[-1]],
        "the sign is turned round; a probability below 1 has a negative logarithm": -right,
        "start and next states do not contain θ; leave them out": right + torch.tensor(world).log(),
        "policy.logits has the state first, then the action": logs[actions, states].sum(),
        "every step has its own state": logs[states[0], actions].sum(),
        "every step has its own action": logs[states, 1].sum(),
        "ask for the policy in every call": policy_of(weight - weight.detach() + TINY).log()[states, actions].sum(),
    }


@claim("sum_of_log_policy")
def sum_over_steps_has_its_value_and_gradient(sum_of_log_policy, model):
    def ask(function, trajectory, weight):
        model.weight.data.copy_(weight)
        return function(trajectory)

    cases = [case("for [(0, 1, 1), (1, 1, 2)]", [(0, 1, 1), (1, 1, 2)], TINY)]  # log 0.6225 + log 0.3775
    for trajectory in [[(0, 0, 2)], [(1, 0, 2)], *map(random_trajectory, (2, 3, 4, 10, 40))]:
        said = f"for {trajectory[:3]}{'...' * bool(trajectory[3:])} and other weights of the model"
        cases.append(case(said, trajectory, 10 * torch.rand(2, 2) - 5))
    hint = "ask for the policy in every call, and use every step's own state and action"
    weight_of, lesson["model"], own = lambda *_: model.weight, model, model.weight.detach().clone()
    try:
        expect_value_and_gradient(sum_of_log_policy, sum_over_steps, sums_gone_wrong, cases, ask, weight_of, hint)
    finally:
        model.weight.data.copy_(own)


def minus_the_mean_product(log_probabilities, weights):
    return -(log_probabilities.double() * weights.double()).mean()


@mistakes("calculate_loss")
def losses_gone_wrong(logs, weights):
    products, centered, steps = logs * weights, weights - weights.mean(), len(weights)
    return {
        "optimizers descend, so the minus sign belongs in front": products.mean(),
        "take the mean over the steps, not the sum": -products.sum(),
        "divide by the number of steps, not by one less": -products.sum() / (steps - 1),
        "divide by the number of steps, not by the sum of the weights": -products.sum() / weights.sum(),
        "are the weights used?": -logs.mean(),
        "multiply entry by entry first, then take the mean": -logs.mean() * weights.mean(),
        "the weights come as they are to be used; subtract nothing": -(logs * centered).mean(),
        "the weights come as they are to be used; do not normalize them": -(logs * centered).mean() / weights.std(),
        "the weights come as they are to be used; no spread is needed": -(logs * centered).mean()
        / weights.std(correction=0),
        "the weights come as they are to be used; do not clip them": -(logs * weights.clamp(-1, 1)).mean(),
        "the weights come as they are to be used; discount nothing": -(products * 0.99 ** torch.arange(steps)).mean(),
        "the log-probabilities come as logarithms; no exponential is needed": -(logs.exp() * weights).mean(),
        "the log-probabilities come as logarithms; take none of them": -(logs.log() * weights).mean(),
    }


def batches(by_hand):
    cases = [case(by_hand, torch.tensor([-1.0, -3.0]), torch.tensor([2.0, 5.0]))]
    for steps, scale in [(40, 1e5), (200, 1e-2), (999, 30), (5_000, 1e3)]:
        weights = scale * (1 + torch.randn(steps)) * (torch.arange(steps) % 3 > 0)  # tiny, huge, zero and negative
        cases.append(case(f"{steps} steps, weights up to {weights.max():.4g}:", -500 * torch.rand(steps), weights))
    return cases


def ask_loss(function, log_probabilities, weights):
    loss = function(1 * log_probabilities.requires_grad_(), weights)  # a model's are the outcome of a computation
    expect_type(loss, Tensor, "a tensor")
    expect_shape(loss, (), "expected a scalar, got shape {}: take the mean")
    return loss


def ask_gradient_of_loss(function, log_probabilities, weights):
    loss = ask_loss(function, log_probabilities, weights)
    gradient = torch.autograd.grad(loss, log_probabilities, allow_unused=True)[0] if loss.requires_grad else None
    assert gradient is not None, "the loss lost its gradient: no detach, .item(), torch.tensor() or NumPy on the way"
    return gradient


AS_IT_COMES = "everything comes as it is to be used, large or small"


@claim("calculate_loss", "has the right value")
def loss_has_the_right_value(calculate_loss):
    known, cases = losses_gone_wrong, batches("-(-1*2 + -3*5) / 2:")
    expect_reference(calculate_loss, minus_the_mean_product, known, cases, ask_loss, "", AS_IT_COMES, 1e-4)


@claim("calculate_loss", "has the right gradient")
def loss_has_the_right_gradient(calculate_loss):
    known, cases, ask, what = losses_gone_wrong, batches("weights [2, 5]:"), ask_gradient_of_loss, "a gradient of "
    expect_reference(calculate_loss, minus_the_mean_product, known, cases, ask, what, AS_IT_COMES, 1e-4)
    start = time.perf_counter()
    calculate_loss(torch.zeros(5_000, requires_grad=True), torch.ones(5_000)).backward()
    if time.perf_counter() - start > 0.03:
        print("Right, but slow, and lesson 6 will wait for it: multiply whole tensors, in no loop.")
