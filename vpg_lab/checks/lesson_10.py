"""Lesson 10: probes for a training, and a doctor who reads them."""

import itertools
import math

import numpy as np
import torch
from torch import Tensor, nn
from torch.distributions import Categorical

from vpg_lab.checks.expect import expect_number, expect_type, flatten, is_close, log_probabilities_of, redraw
from vpg_lab.checks.verdicts import claim
from vpg_lab.checks.worlds import echo_model


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
