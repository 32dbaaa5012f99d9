"""Lesson 7: values, advantages, and a value function that is fitted."""

import copy

import numpy as np
import torch
from torch import nn
from torch.nn.functional import l1_loss, mse_loss, smooth_l1_loss
from torch.optim import SGD, Adam

import vpg_helpers
from vpg_lab.checks.expect import Case, case, expect_defaults, expect_reference, flatten, mistakes
from vpg_lab.checks.verdicts import claim

# One state, whose first action pays 1 and goes on with even chances, and whose second pays 2 and goes on.
REWARDS, DYNAMICS = np.array([[1.0, 2.0]]), np.array([[[0.5, 0.5], [1.0, 0.0]]])


def draw_world(states: int, actions: int, steps: int, scale: float = 1.0) -> Case:
    """Return a case: a policy, rewards, dynamics and steps; some of the rewards are below zero."""
    random = np.random.default_rng()
    policy = random.dirichlet(np.ones(actions), states)
    rewards = scale * random.normal(0.3, 1, (states, actions))
    dynamics = random.dirichlet(np.full(states + 1, 0.5), (states, actions))
    return case(f"for {states} states, {actions} actions and {steps} steps", policy, rewards, dynamics, steps)


def work_backwards(policy, rewards, dynamics, steps, combine=None, discount=1.0):
    """Return values by Bellman's equation, or with another combination of the actions' values than their mean."""
    combine = combine or (lambda of_actions: (policy * of_actions).sum(axis=1))
    value = np.zeros((steps + 1, dynamics.shape[2]))
    for time in reversed(range(steps)):
        value[time, :-1] = combine(rewards + discount * dynamics @ value[time + 1])
    return value


@mistakes("values")
def values_gone_wrong(policy, rewards, dynamics, steps):
    def work(rewards=rewards, **changes):
        return work_backwards(policy, rewards, dynamics, steps, **changes)

    return {
        "it holds the rewards alone: add what the next state is worth, and work backwards from the end, "
        "or V[t+1] is still 0 when V[t] is written": work(discount=0.0),
        "the rows are turned round: row 0 is the first time step, when all steps are left": work()[::-1],
        "that is the better action's value: take the policy's mean": work(combine=lambda q: q.max(axis=1)),
        "the values of the actions add up: weigh them with the policy": work(combine=lambda q: q.sum(axis=1)),
        "every action counts alike: weigh them with the policy": work(combine=lambda q: q.mean(axis=1)),
        "every step earns rewards[state, action], and not always 1": work(np.ones_like(rewards)),
        "what follows is discounted by 0.99; here all of it counts": work(discount=0.99),
    }


@claim("values", "works backwards from the end")
def values_work_backwards(values):
    by_hand = case("for one state, chances of 1/4 and 3/4 and 2 steps", np.array([[0.25, 0.75]]), REWARDS, DYNAMICS, 2)
    cases = [by_hand, draw_world(3, 2, 3), draw_world(2, 4, 3), draw_world(1, 3, 4), draw_world(4, 3, 1)]
    expect_reference(values, work_backwards, values_gone_wrong, cases)


@claim("values", "holds in long episodes and with large rewards")
def values_hold_in_long_episodes(values):
    cases = [draw_world(2, 2, 200), draw_world(5, 3, 60, 1e4), draw_world(3, 2, 1, 1e-3), draw_world(30, 6, 40)]
    expect_reference(values, work_backwards, values_gone_wrong, cases)


def advantages_by_definition(value, rewards, dynamics):
    return rewards + np.einsum("san, tn -> tsa", dynamics, value[1:]) - value[:-1, :-1, np.newaxis]


@mistakes("advantages")
def advantages_gone_wrong(value, rewards, dynamics):
    right, now = advantages_by_definition(value, rewards, dynamics), value[:-1, :-1, np.newaxis]
    of_actions, same_time = right + now, np.einsum("san, tn -> tsa", dynamics, value[:-1])
    follows, plain = of_actions - rewards, of_actions - of_actions.mean(axis=2, keepdims=True)
    return {
        "those are the action values: take off what was to be expected": of_actions,
        "the sign is turned round: an advantage is Q - V": -right,
        "the next state is worth its value one time step later": rewards + same_time - now,
        "the rewards are missing": right - rewards,
        "without what follows: add the mean value of the next state": right - follows,
        "V is that of the same time step, not of the next": of_actions - value[1:, :-1, np.newaxis],
        "that is Q minus its plain mean over actions: V weighs them with the policy, so take off value": plain,
        "an advantage stays as it is: it subtracts their mean": right - right.mean(),
        "an advantage stays as it is: it normalizes them": (right - right.mean()) / (right.std() + 1e-8),
        "what follows is discounted by 0.99; here all of it counts": right - 0.01 * follows,
    }


@claim("advantages")
def advantages_are_q_minus_v(advantages):
    value = np.array([[3.28125, 0.0], [1.75, 0.0], [0.0, 0.0]])  # of the policy with chances of 1/4 and 3/4
    cases = [case("for one state and two actions", value, REWARDS, DYNAMICS)]
    for sizes in [(3, 2, 4), (2, 5, 30, 1e3), (6, 3, 1), (1, 2, 7, 0.1)]:
        said, (policy, rewards, dynamics, steps) = draw_world(*sizes)
        other_policy = policy[:, ::-1]
        cases.append(case(said, work_backwards(other_policy, rewards, dynamics, steps), rewards, dynamics))
    expect_reference(advantages, advantages_by_definition, advantages_gone_wrong, cases)


def fit(model, optimizer, observations, targets, scale, gradient_steps, loss_of=mse_loss, clear_at=range(100)):
    """Take gradient steps down a loss of outputs and targets, (steps,) each; clear_at says when gradients are."""
    targets = torch.as_tensor(targets / scale, dtype=torch.float32)
    for number in range(gradient_steps):
        loss = loss_of(model(torch.as_tensor(observations))[:, 0], targets)
        if number in clear_at:
            model.zero_grad()
        loss.backward()
        optimizer.step()


@mistakes("fit_value")
def fits_gone_wrong(value_model, optimizer, observations, rewards_to_go, scale=1.0, gradient_steps=80):
    def fitted(loss_of=mse_loss, targets=rewards_to_go, scale=scale, steps=gradient_steps, clear_at=range(100)):
        return lambda: fit(value_model, optimizer, observations, targets, scale, steps, loss_of, clear_at)

    def across(outputs, targets):
        return (outputs[:, np.newaxis] - targets).square().mean()

    centered, spread = rewards_to_go - rewards_to_go.mean(), rewards_to_go.std() + 1e-8
    return {
        "the network does not move: does optimizer.step() come?": fitted(steps=0),
        "outputs (steps, 1) minus targets (steps,) are (steps, steps) errors: make the shapes agree": fitted(across),
        "that is the sum of the square errors: take their mean": fitted(lambda *pair: mse_loss(*pair, reduction="sum")),
        "that is half of the mean square error": fitted(lambda *pair: mse_loss(*pair) / 2),
        "that is the root of the mean square error: leave the root out": fitted(lambda *pair: mse_loss(*pair).sqrt()),
        "it climbs: descend the mean square error, without a minus": fitted(lambda *pair: -mse_loss(*pair)),
        "those are absolute errors: square them": fitted(l1_loss),
        "that is a smooth L1 loss, which is straight for large errors: square them": fitted(smooth_l1_loss),
        "gradients of the step before are still there: zero_grad": fitted(clear_at=[]),
        "gradients of the step before are still there: zero_grad in every step, and not once": fitted(clear_at=[0]),
        "it took one gradient step: repeat all of it, gradient_steps times": fitted(steps=1),
        "it took 80 gradient steps: is gradient_steps used?": fitted(steps=80),
        "that is one gradient step too few": fitted(steps=gradient_steps - 1),
        "that is one gradient step too many": fitted(steps=gradient_steps + 1),
        "it does the same as without scale: divide the targets by it": fitted(scale=1.0),
        "the targets are multiplied by scale: divide by it": fitted(scale=1 / scale),
        "the outputs are multiplied by scale: divide the targets, and leave the outputs": fitted(
            lambda outputs, targets: mse_loss(scale * outputs, scale * targets)
        ),
        "the targets stay as they are: it subtracts their mean": fitted(targets=centered),
        "the targets stay as they are: it normalizes them": fitted(targets=centered, scale=spread),
    }


def expect_fits(fit_value, model, examples, settings):
    """Assert that two calls with one optimizer move a network as two fits do.

    A setting, of which each is a case, is a kind of optimizer, gradient steps, a scale and the spread of the targets.
    """
    features, cases = next(model.parameters()).shape[1], []
    for kind, gradient_steps, scale, spread in settings:
        observations = np.random.normal(size=(examples, features)).astype(np.float32)
        targets = np.random.normal(3 * spread, spread, examples)
        said = f"{examples} examples, gradient_steps = {gradient_steps}, scale = {scale:g}, two calls:"
        cases.append(case(said, model, kind, observations, targets, scale, gradient_steps))

    def ask(function, model, kind, *rest):
        moved = copy.deepcopy(model)
        optimizer = kind(moved.parameters(), lr=0.003)
        for _ in range(2):
            function(moved, optimizer, *rest)
        return flatten(moved.parameters()) - flatten(model.parameters())

    hint = "every step descends the mean square of outputs - rewards_to_go / scale, with the optimizer that it is given"
    expect_reference(fit_value, fit, fits_gone_wrong, cases, ask, "a change of ", hint, tolerance=2e-3)


@claim("fit_value", "descends the mean square error")
def fit_descends_the_mean_square_error(fit_value):
    for model, examples in [(nn.Linear(4, 1), 40), (nn.Linear(4, 1), 1), (vpg_helpers.create_model(6, 1, 8), 40)]:
        expect_fits(fit_value, model, examples, [(SGD, 1, 1.0, 1.0), (SGD, 1, 1.0, 0.1)])
    expect_defaults(fit_value, scale=1.0, gradient_steps=80)


@claim("fit_value", "takes as many fresh gradient steps as it is asked for")
def fit_takes_as_many_steps_as_it_is_asked_for(fit_value):
    settings = [(make, steps, 1.0, 1.0) for steps in (2, 5, 17) for make in (SGD, Adam)]
    settings.append((SGD, 17, 1.0, 1e6))  # 16 bits end at 65,504
    expect_fits(fit_value, nn.Linear(4, 1), 30, settings)


@claim("fit_value", "divides the targets by scale")
def fit_divides_the_targets_by_scale(fit_value):
    settings = [(SGD, 3, *pair) for pair in [(50.0, 50.0), (7.0, 1.0), (0.1, 0.1)]]
    expect_fits(fit_value, nn.Linear(4, 1), 25, settings)
