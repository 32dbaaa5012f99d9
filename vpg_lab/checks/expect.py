"""What claims are written with: assertions that speak, and comparisons that take any precision."""

import inspect
import math
from collections.abc import Callable, Iterable

import numpy as np
import torch
from torch import Tensor, nn


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
