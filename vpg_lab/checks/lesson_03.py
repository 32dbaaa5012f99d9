"""Lesson 3: actions, their log-probabilities, and an episode."""

import math

import numpy as np
import torch
from torch import Tensor
from torch.distributions import Categorical

import vpg_helpers
from vpg_lab.checks.expect import (
    expect_samples,
    expect_shape,
    expect_type,
    expect_value,
    is_close,
    log_probabilities_of,
    redraw,
)
from vpg_lab.checks.verdicts import claim
from vpg_lab.checks.worlds import Script, columns, expect_seen, watch_questions


@claim("gradient_of_log_probability")
def _(gradient_of_log_probability):
    got = gradient_of_log_probability(torch.tensor([0.25, 0.75]), 1)
    expect_type(got, Tensor, "a tensor")
    expect_shape(got, (2,), "expected one derivative per logit, got {}")
    expect_value(
        [round(float(derivative), 2) for derivative in got],
        [-0.25, 0.25],
        "expected [-0.25, 0.25]",
        {
            (0.25, -0.25): "the signs are swapped",
            (0.0, 0.25): "the other action's logit changes the sum, too",
            (-0.25, -0.75): "the first term, the logit of the action taken, is missing",
            (0.75, 0.25): "only the logit of the action taken has a 1 in front",
            (0.0, 1.0): "the second term, the logarithm of the sum, is missing",
            (0.0, 1.33): "that is the derivative by the probability; take it by the logits",
        },
    )
    answers = []
    for actions in (5, 2, 12):
        logits = (3 * torch.randn(actions)).requires_grad_()
        log_probability = torch.log_softmax(logits, dim=-1)
        for action in range(actions):
            (expected,) = torch.autograd.grad(log_probability[action], logits, retain_graph=True)
            answers.append((gradient_of_log_probability(log_probability.exp().detach(), action), expected, action))
    # Compared at the end: an answer must not change when another one is given.
    for got, expected, action in answers:
        expect_shape(got, tuple(expected.shape), f"{len(expected)} actions should have as many derivatives, got {{}}")
        assert is_close(got, expected, absolute=1e-5), (
            f"action {action} of {'five' if len(expected) == 5 else len(expected)}: autograd has "
            f"{expected.tolist()}, got {got.tolist()}"
        )


@claim("get_action", "samples")
def _(get_action):
    policy = Categorical(logits=torch.tensor([[0.0, math.log(3)]] * 10_000, requires_grad=True))
    returned = get_action(policy)
    pair = isinstance(returned, (tuple, list)) and len(returned) == 2
    assert pair, f"expected an action and its log-probability, got {type(returned).__name__}"
    actions, log_probabilities = returned
    assert not isinstance(log_probabilities, np.ndarray), "the order is turned round: action first"
    expect_type(actions, np.ndarray, "the actions as a NumPy array")
    expect_shape(actions, (10_000,), "10,000 policies gave actions of shape {}")
    assert np.issubdtype(actions.dtype, np.integer), f"env.step wants integers, got {actions.dtype}"
    # Five standard errors: a correct function fails this about once in two million tries.
    frequency, error = actions.mean(), np.sqrt(0.75 * 0.25 / 10_000)
    assert frequency < 1, "left never came up in 10,000 tries at 0.25: sample, do not take the best"
    assert abs(frequency - 0.75) < 5 * error, (
        f"right came up {frequency:.3f} of the time, expected 0.75: sample from the policy"
    )
    for first, second in [(actions[::2], actions[1::2]), (actions[1:-1:2], actions[2::2]), np.split(actions, 2)]:
        assert abs(np.corrcoef(first, second)[0, 1]) * np.sqrt(len(first)) < 6, (
            "within a batch actions depend on each other: every step rolls a die of its own"
        )
    assert not np.array_equal(actions, get_action(policy)[0]), (
        "10,000 dice fell alike in two calls: roll them in every call, and seed nothing"
    )
    counts = [get_action(policy.expand((50,)))[0].sum() for policy in 200 * [Categorical(logits=policy.logits[0])]]
    assert 0.4 < np.var(counts) / (50 * 0.75 * 0.25) < 1.8, (
        f"right came up {min(counts)} to {max(counts)} times in batches of 50: every step rolls a die of its own"
    )
    rolled = []
    with torch.random.fork_rng(devices=[]):
        for seed in (7, 7):
            torch.manual_seed(seed)
            rolled.append(get_action(policy)[0])
    assert np.array_equal(*rolled), "torch.manual_seed should decide the actions: roll torch's dice"
    # Dice of many sides, each with chances of its own, so that a few wrong rolls in a hundred show.
    dice = [
        2 * torch.randn(20_000, 2),
        3 * torch.randn(20_000, 4),
        torch.randn(20_000, 9),
        math.log(59) * torch.eye(60),
    ]
    for logits in dice:
        policy = Categorical(logits=logits)
        actions = get_action(policy)[0]
        known, sides = len(np.unique(actions)), logits.shape[-1]
        assert known == sides or len(actions) < 1_000, f"of {sides} actions only {known} ever come up: is 2 written in?"
        expect_samples(actions, policy.logits, {})
    # One by one: dice that are sure, and dice with many rare sides; a roll must not depend on the one before.
    for logits in [8 * torch.randn(600, 4), math.log(59) * torch.eye(60)[:1].repeat(300, 1)]:
        policy = Categorical(logits=logits)
        actions = np.array([get_action(Categorical(logits=each))[0] for each in logits])
        expect_samples(actions, policy.logits, {})
        last = torch.nn.functional.one_hot(torch.as_tensor(actions).long(), logits.shape[-1]).roll(1, dims=0)
        last[0] = 0
        suspects = {
            "an action makes itself likelier the next time: roll the die anew": torch.log_softmax(
                policy.logits + last, dim=-1
            ),
            "an action makes itself less likely the next time: roll the die anew": torch.log_softmax(
                policy.logits - last, dim=-1
            ),
        }
        expect_samples(actions, policy.logits, suspects)


class Unlikely(Categorical):
    """A policy whose die always shows the least likely side."""

    def sample(self, sample_shape=()):
        return self.probs.argmin(dim=-1).expand(torch.Size(sample_shape) + self.batch_shape)


@claim("get_action", "returns each action's own log-probability")
def _(get_action):
    for shape in [(1_000,), ()]:
        logits = torch.tensor([0.0, math.log(3)]).expand(*shape, 2).clone().requires_grad_()
        actions, log_probabilities = get_action(Categorical(logits=logits))
        expect_shape(actions, shape, f"a policy of shape {shape}: actions {{}}")
        expect_type(log_probabilities, Tensor, "the log-probability as a tensor")
        expect_shape(log_probabilities, shape, f"expected log-probabilities of shape {shape}, got {{}}")
        expected = torch.where(torch.as_tensor(actions) == 1, 0.75, 0.25)
        assert not is_close(log_probabilities, expected, absolute=1e-4), "got probabilities: take their logarithm"
        assert is_close(log_probabilities, expected.log(), absolute=1e-4), (
            "a log-probability belongs to another action than the one returned with it"
        )
        assert log_probabilities.requires_grad, (
            "the log-probability lost its gradient: no detach, no_grad, .item() or NumPy"
        )
    for shape, sides in [((), 3), ((1,), 2), ((7, 5), 4), ((1, 1), 6), ((40,), 12)]:
        for kind, spread in [(Categorical, 2), (Unlikely, 20)]:
            logits = (spread * torch.randn(*shape, sides)).requires_grad_()
            actions, log_probabilities = get_action(kind(logits=logits))
            expect_type(actions, np.ndarray, "the actions as a NumPy array, of shape () for one")
            expect_shape(actions, shape, f"policies of shape {shape}: actions {{}}")
            expect_shape(log_probabilities, shape, f"policies of shape {shape}: log-probabilities {{}}")
            taken = torch.as_tensor(actions).long().unsqueeze(-1)
            expected = torch.log_softmax(logits, dim=-1).gather(-1, taken).squeeze(-1)
            assert is_close(log_probabilities, expected, absolute=1e-4), (
                f"log-probability {log_probabilities.flatten()[0]:.3f} for an action with {expected.flatten()[0]:.3f}"
            )
            gradients = [torch.autograd.grad(value.sum(), logits)[0] for value in (log_probabilities, expected)]
            assert is_close(*gradients, absolute=1e-4), (
                "the log-probability has another gradient than the policy's log_prob: hand it on as it is"
            )


@claim("play_episode", "plays one whole episode by the policy")
def _(play_episode):
    model = vpg_helpers.create_model(3, 4)
    for end in Script.ENDS:
        script = Script(3, 4, ends=[end])
        play_episode(script, model)
        lengths = [len(episode) for episode in script.begun]
        assert lengths == [script.length], (
            f"an episode of {script.length} steps, ended by {end}: it began {len(lengths)} times and played {lengths} "
            "steps; reset once, and play until it is over"
        )
    script = Script(3, 4, random=True)
    asked = watch_questions(redraw(model, 0.5))
    for _ in range(40):
        play_episode(script, model)
    expect_seen(asked, script)
    observations, _, actions, _, lengths = columns(script)
    starts = np.repeat(lengths.cumsum() - lengths, lengths)
    suspects = {
        "every step is played as the first one; ask with the observation of the moment": log_probabilities_of(
            model, observations[starts]
        )
    }
    expect_samples(actions, log_probabilities_of(model, observations), suspects)


@claim("play_episode", "returns what was seen, done and earned")
def _(play_episode):
    played = []
    for features, sides in [(4, 2), (3, 5), (1, 2), (6, 3)]:
        script, model = Script(features, sides, random=True), redraw(vpg_helpers.create_model(features, sides))
        for _ in range(3):
            script.begun = []
            played.append((play_episode(script, model), script.episodes[0], features))
    # Compared at the end: what was handed over must not change when another episode is played.
    for returned, episode, features in played:
        three = isinstance(returned, (tuple, list)) and len(returned) == 3
        assert three, f"expected observations, actions and rewards, got {type(returned).__name__}"
        observations, actions, rewards = returned
        seen, later, done, earned = map(np.array, zip(*episode, strict=True))
        steps = len(episode)
        expect_type(observations, np.ndarray, "the observations as one array", ": np.stack joins them")
        known = {
            (steps, features): "; the one in which it ended, or the first one, is missing",
            (steps + 2, features): "; one is there twice",
        }
        got = observations.shape
        assert got == (steps + 1, features), (
            f"{steps} steps: expected observations of shape {(steps + 1, features)}, got {got}{known.get(got, '')}"
        )
        assert np.array_equal(observations, [*seen, later[-1]]), (
            "expected the first observation, and then the one after every step, in this order"
        )
        for name, values, expected in [("actions", actions, done), ("rewards", rewards, earned)]:
            expect_shape(values, (steps,), f"{steps} steps: expected as many {name}, got shape {{}}")
            assert is_close(np.asarray(values, dtype=float), expected), (
                f"expected the {name} {expected.tolist()}, got {list(values)}: one for every step, as they came"
            )
