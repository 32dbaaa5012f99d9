"""What claims are written with: assertions that say what was expected, what was got, and which mistake that is.

For an exercise that returns values, `expect_reference` asks an answer and a reference about the same inputs. What
people get wrong is a function of the inputs, too: it returns, under a sentence for its author, what each mistake would
give. An answer that gives what a mistake gives, in every case, hears that sentence. Comparisons never broadcast.
"""

import functools
import inspect
import math
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

MISTAKES: dict[str, list[Callable]] = {}  # exercise -> its functions from inputs to {sentence: what a mistake gives}


def mistakes(exercise: str) -> Callable:
    """Register a function from an exercise's inputs to {sentence: what that mistake gives}; a test tries each one.

    Where an exercise does something and returns nothing, a mistake is a function without arguments that does it.
    """

    def register(function):
        MISTAKES.setdefault(exercise, []).append(function)
        return function

    return register


def make_mistake(mistakes: Callable, sentence: str) -> Callable:
    """Return an answer that makes one mistake of a table; its first line is the table's."""

    @functools.wraps(mistakes)
    def answer(*inputs):
        gives = mistakes(*inputs)[sentence]
        return gives() if inspect.isfunction(gives) else gives

    return answer


class Case(NamedTuple):
    """What an answer is asked, and how a verdict calls it."""

    said: str
    inputs: tuple


def case(said: str, *inputs: object) -> Case:
    """Return a case: case("for 1, 2 and 4", np.array([1.0, 2.0, 4.0]))."""
    return Case(said, inputs)


def call(function: Callable, *inputs: object) -> object:
    """Ask a function as it stands: how expect_reference asks, unless an exercise has its own way."""
    return function(*inputs)


def expect_reference(
    answer: Callable,
    reference: Callable,
    mistakes: Callable,
    cases: Iterable[Case],
    ask: Callable = call,
    what: str = "",
    hint: str = "",
    tolerance: float = 1e-6,
    absolute: float = 1e-12,
):
    """Assert that an answer gives what the reference gives; if not, say in which case, and which mistake it is.

    ask(function, *inputs) returns the numbers to compare, of the answer, of the reference and of a mistake alike; what
    it asserts of the answer comes first. `what` names the numbers ("a gradient of "), `hint` is said where no mistake
    is known. The tolerance is a share of the largest number that is expected, and `absolute` is added to it.
    """
    cases, gave, copies = [*cases], [], []
    for each in cases:
        gave.append(ask(answer, *each.inputs))
        copies.append(to_numbers(gave[-1]).copy())
    for each, got in zip(cases, copies, strict=True):
        right = ask(reference, *each.inputs)
        if not agree(got, right, tolerance, absolute):
            known = {sentence: make_mistake(mistakes, sentence) for sentence in sentences_of(mistakes, ask, cases[0])}
            mistake = name_mistake(known, lambda wrong: _gives(wrong, cases, copies, ask, tolerance, absolute))
            raise AssertionError(f"{each.said} {say_difference(got, right, what)}{mistake or ': ' * bool(hint) + hint}")
    pairs = zip(gave, copies, strict=True)
    changed = any(not np.array_equal(to_numbers(got), kept, equal_nan=True) for got, kept in pairs)
    assert not changed, "what it gave changed when it was asked again: make something new in every call"


def _gives(wrong, cases, gave, ask, *tolerances):
    pairs = zip(cases, gave, strict=True)
    return all(agree(ask(wrong, *case.inputs), got, *tolerances) for case, got in pairs)


def name_mistake(known: Mapping[str, object], is_it: Callable[[object], bool]) -> str:
    """Return ": " and the sentence of the first known mistake that it is; nothing where it is none of them."""
    return next((f": {sentence}" for sentence, gives in known.items() if is_it(gives)), "")


def sentences_of(mistakes: Callable, ask: Callable, case: Case) -> list[str]:
    """Return the sentences of a table of mistakes, as its exercise would be asked in a case."""
    found = []

    def look(*inputs):
        found.extend(mistakes(*inputs))
        raise LookupError

    try:
        ask(look, *case.inputs)
    except LookupError:
        return found
    raise ValueError(f"{ask} does not ask the function that it is given")


def to_numbers(value: object) -> np.ndarray:
    """Return tensors, arrays, numbers and lists of them as one array of 64 bits, without a graph."""
    if isinstance(value, (tuple, list)):
        return np.array([to_numbers(each) for each in value])
    try:
        return np.asarray(value.detach().numpy() if isinstance(value, Tensor) else value, dtype=float)
    except (TypeError, ValueError):
        raise AssertionError(f"expected numbers, got {type(value).__name__}") from None


def agree(got: object, expected: object, tolerance: float, absolute: float = 1e-12) -> bool:
    """Tell whether shapes and numbers are the same, within a share of the largest number expected and a bit."""
    got, expected = to_numbers(got), to_numbers(expected)
    bound = tolerance * np.abs(expected[np.isfinite(expected)]).max(initial=0) + absolute
    return got.shape == expected.shape and np.allclose(got, expected, rtol=0, atol=bound, equal_nan=True)


def say_difference(got: object, expected: object, what: str = "") -> str:
    """Say what was expected and what was got: all of it where it is short, else the first place that differs."""
    got, expected = to_numbers(got), to_numbers(expected)
    if got.shape != expected.shape:
        return f"expected {what}shape {expected.shape}, got {got.shape}"
    if expected.size <= 4:
        return f"expected {what}{show(expected)}, got {show(got)}"
    off = np.nan_to_num(np.abs(got - expected), nan=np.inf)
    place = np.unravel_index(np.argmax(off > min(0.1 * off.max(), 1e300)), off.shape)
    where = ", ".join(map(str, place))
    return f"it differs: at [{where}] expected {what}{show(expected[place])}, got {show(got[place])}"


def show(numbers: object) -> str:
    """Write one number, or a few in brackets, to six digits at most."""
    numbers = to_numbers(numbers)
    return f"[{', '.join(map(show, numbers))}]" if numbers.ndim else f"{numbers:.6g}"


def expect_type(value: object, kind: type | tuple[type, ...], what: str, hint: str = ""):
    """Assert a type, where `what` names the type that is asked for."""
    got = "None" if value is None else type(value).__name__
    assert isinstance(value, kind), f"expected {what}, got {got}{hint}"


def expect_pair(value: object, what: str):
    """Assert that two things were returned."""
    got = f"{len(value)} things" if isinstance(value, (tuple, list)) else type(value).__name__
    assert isinstance(value, (tuple, list)) and len(value) == 2, f"expected {what}, got {got}"


def expect_shape(value: object, shape: tuple[int, ...], said: str):
    """Assert a shape; {} in the sentence stands for the shape that was got."""
    got = tuple(np.shape(value))
    assert got == shape, said.format(got)


def expect_defaults(function: Callable, **defaults: object):
    """Assert which values arguments have where a caller does not give them."""
    parameters = inspect.signature(function).parameters
    for name, value in defaults.items():
        got = parameters[name].default if name in parameters else "no such argument"
        assert got == value, f"{name} should be {value} where it is not given, got {got}; leave the first line as it is"


def is_close(got: object, expected: object, relative: float = 1e-4, absolute: float = 1e-6) -> bool:
    """Tell whether shapes are the same and all numbers agree, in whatever precision they come."""
    got, expected = to_numbers(got), to_numbers(expected)
    return got.shape == expected.shape and np.allclose(got, expected, rtol=relative, atol=absolute)


def is_close_in_length(got: Tensor, expected: Tensor, share: float = 1e-3) -> bool:
    """Tell whether two vectors of one shape differ by no more than a share of their length."""
    return got.shape == expected.shape and bool(
        (got.double() - expected.double()).norm() <= share * expected.double().norm() + 1e-7
    )


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


def expect_samples(actions: np.ndarray, policy: Tensor, suspects: Mapping[str, Tensor]):
    """Assert that actions are samples from a policy, and not from a suspect, which is named by what its player does.

    Policies are log-probabilities, (steps, actions). Samples from the policy are 10 million times likelier under a
    suspect once in 10 million tries at most, however few they are (Markov's inequality).
    """
    policy = policy.detach().double()
    coin = torch.full_like(policy, -math.log(policy.shape[-1]))
    known = {
        "the actions come from a coin, whatever the policy says": coin,
        "the likeliest action is taken: sample, do not take the best": mix(coin, policy * 1e3, 0.99),
        "rare actions come up too often: sample from the policy as it is": mix(policy, coin, 0.1),
        "rare actions come up too often: something flattens the policy": torch.log_softmax(0.7 * policy, -1),
        "likely actions come up too often: something sharpens the policy": torch.log_softmax(1.3 * policy, -1),
    }
    taken = torch.as_tensor(actions).long()[:, None]
    gains = {
        said: (suspect.detach().double() - policy).gather(-1, taken).sum().item()
        for said, suspect in {**suspects, **known}.items()
    }
    likeliest = max(gains, key=gains.get)
    gain = gains[likeliest]
    assert gain < math.log(1e7), f"{likeliest} (e^{gain:.0f} times likelier than chance)"


def mix(policy: Tensor, other: Tensor, share: float) -> Tensor:
    """Return the log-probabilities of a player who follows another policy for a share of the time."""
    policy, other = torch.log_softmax(policy, dim=-1), torch.log_softmax(other, dim=-1)
    return torch.logaddexp(policy + math.log(1 - share), other + math.log(share))
