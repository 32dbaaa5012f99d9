"""Lesson 3: actions, their log-probabilities, and an episode."""

import numpy as np
import torch
from torch import Tensor, nn
from torch.distributions import Categorical

from vpg_lab.checks import expect
from vpg_lab.checks.expect import case, expect_reference, expect_samples, expect_shape, expect_type, mistakes, redraw
from vpg_lab.checks.verdicts import claim
from vpg_lab.checks.worlds import Script, columns, expect_seen, watch_questions


@mistakes("gradient_of_log_probability")
def gradients_gone_wrong(p, action):
    taken = torch.eye(len(p))[action]
    return {
        "the signs are turned round": p - taken,
        "the other actions' logits change the sum, too": taken * (1 - p),
        "the first term, the logit of the action taken, is missing": -p,
        "only the logit of the action taken has a 1 in front": 1 - p,
        "the second term, the logarithm of the sum, is missing": taken,
        "the probability is subtracted from the 1 of the action taken, too": taken - p * (1 - taken),
        "that is the derivative by the probability; take it by the logits": taken / p,
        "that is the gradient of the probability; take that of its logarithm": p[action] * (taken - p),
        "each other logit has its own action's probability": (1 - p[action]) * (2 * taken - 1),
    }


@claim("gradient_of_log_probability")
def gradient_is_autograd_s(gradient_of_log_probability):
    def by_autograd(p, action):
        return torch.func.grad(lambda logits: logits.log_softmax(dim=-1)[action])(p.log())

    expect_type(gradient_of_log_probability(torch.tensor([0.25, 0.75]), 1), Tensor, "a tensor")
    cases = [case("for probabilities 0.25 and 0.75, action 1,", torch.tensor([0.25, 0.75]), 1)]
    for sides, action in [(5, 0), (5, 3), (2, 0), (12, 7), (12, 11)]:
        cases.append(case(f"for {sides} actions, action {action},", (3.0 * torch.randperm(sides)).softmax(-1), action))
    expect_reference(gradient_of_log_probability, by_autograd, gradients_gone_wrong, cases, tolerance=1e-5)


def ask_for_action(function, policy):
    """Return action and log-probability; the action, once it is of the right kind, is noted in the policy as well."""
    returned, shape = function(policy), tuple(policy.batch_shape)
    expect.expect_pair(returned, "an action and its log-probability")
    action, log_probability = returned
    assert not isinstance(log_probability, np.ndarray), "the order is turned round: action first"
    expect_type(action, np.ndarray, "the action as a NumPy array", ": .numpy() takes one action and a batch of them")
    expect_shape(action, shape, f"policies of batch shape {shape} should give as many actions, got shape {{}}")
    assert np.issubdtype(action.dtype, np.integer), f"env.step wants integers, got {action.dtype}"
    low, high, sides = action.min(), action.max(), policy.logits.shape[-1]
    assert low >= 0 and high < sides, f"{sides} actions are called 0 to {sides - 1}, got {low} to {high}"
    policy.taken = torch.as_tensor(action)
    return action, log_probability


@claim("get_action", "samples")
def actions_are_samples(get_action):
    def sample(logits):
        return ask_for_action(get_action, Categorical(logits=logits))[0]

    sample(torch.zeros(2, requires_grad=True))
    two = torch.tensor([[0.0, 1.0]] * 10_000, requires_grad=True)
    assert sample(two).std() > 0, "10,000 dice fell alike: sample, do not take the best, and roll for every step"
    for sides in (2, 4):  # with chances of their own, so that a few wrong rolls in a hundred show
        logits = 3 * torch.randn(20_000, sides)
        actions = sample(logits)
        assert len({*actions.tolist()}) == sides, f"of {sides} actions some never come up: is 2 written in?"
        expect_samples(actions, logits.log_softmax(dim=-1), {})
    with torch.random.fork_rng(devices=[]):
        first, again, other = (torch.manual_seed(seed) and sample(two) for seed in (7, 7, 8))
    assert not np.array_equal(first, other), "two calls gave the same actions: roll anew in each, seed nothing"
    assert np.array_equal(first, again), "torch.manual_seed should decide the actions: roll torch's dice"


@mistakes("get_action")
def log_probabilities_gone_wrong(policy):
    action = getattr(policy, "taken", policy.sample())  # the one that an answer took, where one was asked
    right = policy.log_prob(action)
    wrong = {
        "that is a probability: take its logarithm": right.exp(),
        "the sign is turned round: a log-probability is at most 0, and no loss yet": -right,
        "that is the policy's entropy": policy.entropy(),
        "each action has its own log-probability: no sum": right.sum(),
        "each action has its own log-probability: no sum over a dimension": right.sum(dim=-1),
        "it belongs to the likeliest action, not to the one returned with it": policy.logits.amax(dim=-1),
    }
    return {sentence: (action.numpy(), each) for sentence, each in wrong.items()}


@claim("get_action", "returns each action's own log-probability")
def log_probability_is_the_action_s_own(get_action):
    def ask(function, policy):
        log_probability = ask_for_action(function, policy)[1]
        expect_type(log_probability, Tensor, "the log-probability as a tensor")
        return log_probability

    def right(policy):
        return policy.taken.numpy(), policy.log_prob(policy.taken)

    # Neither sure nor very rare: the logarithm of a probability near 1 is small, and its error is not.
    leaves = [(4 * torch.rand(shape)).requires_grad_() for shape in [(2,), (2_000, 200), (1, 2), (7, 5, 4), (1, 1, 3)]]
    cases = [case(f"for policies of batch shape {tuple(each.shape[:-1])}", Categorical(logits=each)) for each in leaves]
    what, hint = "log-probabilities of ", "hand over the policy's log_prob of the very action that is returned with it"
    expect_reference(get_action, right, log_probabilities_gone_wrong, cases, ask, what, hint, 1e-4)
    lost = "the log-probability lost its gradient: no detach, no_grad, .item(), NumPy or torch.tensor() on the way"
    for leaf in leaves:
        total = ask(get_action, Categorical(logits=leaf)).sum()
        assert total.requires_grad and torch.autograd.grad(total, leaf, allow_unused=True)[0] is not None, lost


def last_episode(script, model):
    """Return observations, actions and rewards of a script's episode; play it first where none was played."""
    if not script.episodes:
        observation, _ = script.reset()
        while not script.ended:
            observation = script.step(Categorical(logits=model(torch.as_tensor(observation))).sample())[0]
    seen, later, actions, rewards, _ = columns(script)
    return np.array([*seen, later[-1]]), actions, rewards


@mistakes("play_episode")
def episodes_gone_wrong(script, model):
    seen, done, earned = last_episode(script, model)
    return {
        "the observation in which it ended is missing": (seen[:-1], done, earned),
        "the first observation is missing": (seen[1:], done, earned),
        "actions come before rewards": (seen, earned, done),
        "each reward alone, not the sum up to it": (seen, done, earned.cumsum()),
        "a reward of 1 is CartPole's: hand on what env.step gives": (seen, done, np.ones(len(earned))),
        "the rewards as they come: no discount": (seen, done, earned * 0.99 ** np.arange(len(earned))),
    }


@claim("play_episode", "plays one whole episode by the policy")
def episode_is_played_once_by_the_policy(play_episode):
    script, model = Script(3, 4, random=True), redraw(nn.Linear(3, 4), 0.5)
    asked = watch_questions(model)
    for number in range(24):  # one of them is longer than a limit that is written in
        script.ends, script.given_length = [Script.ENDS[number % 3]], 201 * (number == 12)
        play_episode(script, model)
        assert len(script.begun) == number + 1, "it begins more than one episode: reset once, before the first step"
        assert script.ended, "it stops before the episode is over: play on until it is terminated or truncated"
    expect_seen(asked, script)
    observations, _, actions, _, lengths = columns(script)
    starts = np.repeat(lengths.cumsum() - lengths, lengths)
    before = np.maximum(np.arange(len(actions)) - 1, starts)
    policy = expect.log_probabilities_of(model, observations)
    suspects = {
        "every step is played as the first one; ask with the observation of the moment": policy[starts],
        "each step is played by the observation before; ask with that of the moment": policy[before],
    }
    expect_samples(actions, policy, suspects)


@claim("play_episode", "returns what was seen, done and earned")
def record_is_what_was_seen_done_and_earned(play_episode):
    def ask(function, part, *inputs):
        returned = function(*inputs)
        three = isinstance(returned, (tuple, list)) and len(returned) == 3
        assert three, f"expected observations, actions and rewards, got {type(returned).__name__}"
        expect_type(returned[0], np.ndarray, "the observations as one array", ": np.stack joins them")
        return returned[part]

    for part, name in enumerate(["observations of ", "actions of ", "rewards of "]):
        cases = []
        for features, sides, steps in [(4, 2, 3), (3, 5, 1), (1, 2, 7), (6, 3, 4)]:
            script, model = Script(features, sides, True, length=steps), redraw(nn.Linear(features, sides))
            cases.append(case(f"for an episode of {steps} steps", part, script, model))
        expect_reference(play_episode, last_episode, episodes_gone_wrong, cases, ask, name)
