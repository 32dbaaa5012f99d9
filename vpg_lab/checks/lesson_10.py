"""Lesson 10: probes for a training, and a doctor who reads them."""

import itertools
import math
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn
from torch.distributions import Categorical

from vpg_lab.checks.expect import case, expect_reference, expect_type, flatten, log_probabilities_of, mistakes, redraw
from vpg_lab.checks.verdicts import claim
from vpg_lab.checks.worlds import echo_model


def ask_for_number(function, *inputs) -> float:
    """Assert that an answer is a plain number, for a log has no place for a tensor with its graph; return it."""
    got = function(*inputs)
    hint = "; .item() makes a number of it" if isinstance(got, Tensor) else ""
    expect_type(got, (float, np.floating), "a float", hint)
    return float(got)


def surplus_by_hand(model, observations, actions):
    policy = Categorical(logits=model(observations).detach())
    return (policy.log_prob(actions) + policy.entropy()).mean().item()


@mistakes("log_probability_surplus")
def surpluses_gone_wrong(model, observations, actions):
    policy = Categorical(logits=model(observations).detach())
    taken, entropy = policy.log_prob(actions), policy.entropy()
    rows, mean_policy = policy.logits, Categorical(probs=policy.probs.mean(dim=0))
    twice = Categorical(logits=policy.probs)
    wrong = {
        "that is the sum over the steps; take the mean": (taken + entropy).sum(),
        "the entropy comes in with the wrong sign: log-probability plus entropy, which is -Σ p log p": (
            taken - entropy
        ).mean(),
        "that is the entropy minus the log-probability; add them": (entropy - taken).mean(),
        "that is the mean log-probability alone; the entropy is missing": taken.mean(),
        "that is the entropy alone; the log-probability is missing": entropy.mean(),
        "the sign is turned round: log-probability plus entropy": -(taken + entropy).mean(),
        "its sign counts: below 0 the actions are less likely than samples": (taken + entropy).mean().abs(),
        "that is in bits; the logarithm is the natural one": (taken + entropy).mean() / math.log(2),
        "that is with the probability in place of its logarithm": (taken.exp() + entropy).mean(),
        "the entropy is that of the mean policy; take each step's own": taken.mean() + mean_policy.entropy(),
        "that is the likeliest action's log-probability; take that of the action given": rows.amax(-1).mean()
        + entropy.mean(),
        "that is the first action's log-probability; take that of the action given": rows[:, 0].mean() + entropy.mean(),
        "that is another action's log-probability; take that of the action given": (
            policy.log_prob((actions + 1) % rows.shape[1]) + entropy
        ).mean(),
        "that is the first step's alone; take the mean over all": (taken + entropy)[0],
        "probabilities are handed over as logits": (twice.log_prob(actions) + twice.entropy()).mean(),
    }
    return {sentence: value.item() for sentence, value in wrong.items()}


@claim("log_probability_surplus")
def surplus_is_log_probability_plus_entropy(log_probability_surplus):
    observations, actions = torch.tensor([[0.0, math.log(3)]] * 3), torch.tensor([1, 1, 0])
    cases = [case("for (0.25, 0.75), right, right and left taken,", echo_model(), observations, actions)]
    for steps, features, actions in [(50, 4, 2), (7, 3, 5), (1, 2, 3), (400, 6, 4), (3, 1, 11)]:
        # Right programs differ where a probability is nearly 0, so no policy is that sure.
        model, observations = redraw(nn.Linear(features, actions)), torch.rand(steps, features)
        likeliest = log_probabilities_of(model, observations).argmax(dim=-1)
        said = f"for {steps} steps and {actions} actions"
        cases.append(case(said, model, observations, torch.randint(actions, (steps,))))
        cases.append(case(f"{said}, the likeliest taken,", model, observations, likeliest))
    hint = "in every step the action given has a log-probability, and the policy an entropy; take the mean of the sums"
    expect_reference(
        log_probability_surplus, surplus_by_hand, surpluses_gone_wrong, cases, ask_for_number, "", hint, 1e-4, 1e-5
    )


def cosine_by_hand(gradients, others):
    first, second = flatten(gradients).double(), flatten(others).double()
    return (first @ second / first.norm() / second.norm()).item()


@mistakes("cosine_of_gradients")
def cosines_gone_wrong(gradients, others):
    first, second = flatten(gradients).double(), flatten(others).double()
    product, lengths, cosine = first @ second, (first.norm(), second.norm()), cosine_by_hand(gradients, others)
    alone = [torch.cosine_similarity(*map(torch.flatten, pair), dim=0) for pair in zip(gradients, others, strict=True)]
    wrong = {
        "that is the sum of the products; divide it by both lengths": product,
        "it is divided by the first length only": product / lengths[0],
        "it is divided by the second length only": product / lengths[1],
        "it is multiplied by the second length: put brackets around both": product / lengths[0] * lengths[1],
        "it is divided by the squares of the lengths; the length is the root": cosine / lengths[0] / lengths[1],
        "a length is the root of the sum of squares": product / first.abs().sum() / second.abs().sum(),
        "that is the mean of the cosines of the single tensors; all tensors together are one vector": sum(alone)
        / len(alone),
        "that is the cosine of the last tensors alone; all tensors together are one vector": alone[-1],
        "that is the cosine of the first tensors alone; all tensors together are one vector": alone[0],
        "the lengths of the tensors do not add up; the squares do": product
        / math.prod(sum(tensor.norm() for tensor in each) for each in (gradients, others)),
        "that is the angle; its cosine is asked for": math.acos(cosine),
        "that is 1 minus the cosine": 1 - cosine,
        "that is the square of the cosine": cosine**2,
        "the sign counts, -1 is the opposite direction": abs(cosine),
        "it subtracts the means first; that is a correlation": cosine_by_hand(
            [first - first.mean()], [second - second.mean()]
        ),
    }
    return {sentence: float(value) for sentence, value in wrong.items()}


@claim("cosine_of_gradients")
def cosine_is_that_of_the_whole_gradients(cosine_of_gradients):
    by_hand = [torch.tensor([3.0]), torch.tensor([[0.0, 4.0]])], [torch.tensor([4.0]), torch.tensor([[12.0, 3.0]])]
    cases = [case("for (3, 0, 4) and (4, 12, 3)", *by_hand)]
    for shapes in [[(7,)], [(32, 4), (32,), (2, 32), (2,)], [(3,), (3, 2, 2), (5, 1)]]:
        for scale, along in itertools.product((1e-3, 1.0, 1e3), (-3, 0, 3)):
            # Gradients need not be contiguous.
            first = [torch.randn(*shape, 2)[..., 0] for shape in shapes]
            second = [torch.randn(tensor.shape) + along * tensor for tensor in first]
            said = f"for random gradients of {len(shapes)} tensors, {scale:g} times as long,"
            cases.append(case(said, [scale * tensor for tensor in first], second))
    expect_reference(
        cosine_of_gradients, cosine_by_hand, cosines_gone_wrong, cases, ask_for_number, tolerance=1e-4, absolute=1e-5
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
FIRST_SEED = 1_000_000  # no lesson's; always the same, so that no verdict is luck
SOUND_RUNS = 5  # of either kind
PROBES = "log_probability_surplus", "cosine_of_gradients"  # the learner's own functions in a run
_fresh: dict[tuple, list] = {}  # by what makes them and the recipe's name; runs take seconds, and are made once


def diagnoses(diagnose, make_runs, recipes, name, number) -> Iterator[str]:
    """Yield what an answer says of the first fresh runs of a recipe, whose arrays are read-only."""
    makers = make_runs, *(make_runs.__globals__.get(probe) for probe in PROBES)
    runs = _fresh.setdefault((name, *(getattr(maker, "__code__", maker) for maker in makers)), [])
    if len(runs) < number:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)  # tensors are small: more threads take more time
        with torch.random.fork_rng(devices=[]):
            runs += make_runs(recipes[name], range(FIRST_SEED + len(runs), FIRST_SEED + number))
        torch.set_num_threads(threads)
    for run in runs[:number]:
        for entry in run:
            entry.setflags(write=False)
        answer = diagnose(run)
        known = isinstance(answer, str) and answer in [*TELLING, "healthy"]
        assert known, f"expected a key of RECIPES or 'healthy', got {answer!r}"
        yield answer


@claim("diagnose", "accuses no sound run")
def doctor_accuses_no_sound_run(diagnose, make_runs, recipes):
    for name in ("healthy", "slow"):

        def accusations(number, name=name):
            return [each for each in diagnoses(diagnose, make_runs, recipes, name, number) if each != "healthy"]

        accused = accusations(SOUND_RUNS)
        forgiven = len(accused) == 1 == len(accusations(2 * SOUND_RUNS))  # a good doctor may err once in many runs
        assert not accused or forgiven, (
            f"of {SOUND_RUNS} fresh runs of {name!r} it calls {len(accused)} {accused[0]!r}; nothing is wrong with "
            f"them. What tells {accused[0]!r} from a sound run, a slow one too: {TELLING[accused[0]]}"
        )


@claim("diagnose", "names the bug")
def doctor_names_the_bug(diagnose, make_runs, recipes):
    answers = {bug: next(diagnoses(diagnose, make_runs, recipes, bug, 1)) for bug in TELLING}
    missed = [bug for bug in TELLING if answers[bug] != bug]
    for bug in missed:  # some runs show nothing: two more of each that was missed, and no further chance
        right = [*diagnoses(diagnose, make_runs, recipes, bug, 3)].count(bug)
        assert right == 2, (
            f"it names {len(TELLING) - len(missed)} of {len(TELLING)} bugs in a fresh run of each; of {bug!r}, {right} "
            f"of 3, and calls one {answers[bug]!r}. What tells it: {TELLING[bug]}"
        )
