"""Lesson 4: the small world's trajectories, and the pseudo-loss."""

import contextlib
import time
from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor, nn

from vpg_lab import small_world
from vpg_lab.checks.expect import expect_number, expect_shape, expect_type, is_close, is_close_in_length
from vpg_lab.checks.verdicts import claim


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
        chances = small_world.START[trajectory[0][0]] * np.prod([world[step] for step in trajectory])
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
