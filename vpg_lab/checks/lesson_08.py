"""Lesson 8: discounted sums, GAE, and the whole Vanilla Policy Gradient."""

import numpy as np
import torch
from torch import nn

import vpg_helpers
from vpg_lab import companion
from vpg_lab.checks.expect import (
    expect_number,
    expect_shape,
    expect_value,
    flatten,
    is_close_in_length,
    log_probabilities_of,
)
from vpg_lab.checks.verdicts import claim
from vpg_lab.checks.worlds import watch_vpg


def discounted(values, discount):
    """Return the discounted sums from each step on, by their definition: a matrix of powers times the values."""
    away = np.arange(len(values)) - np.arange(len(values))[:, np.newaxis]
    return np.where(away < 0, 0.0, float(discount) ** np.maximum(away, 0)) @ np.asarray(values, dtype=float)


def expect_steps(got: object, expected: np.ndarray, said: str):
    """Assert an array with one number per step, within a millionth of the largest."""
    expect_shape(got, expected.shape, f"{len(expected)} steps gave shape {{}}")
    assert isinstance(got, np.ndarray), f"expected an array, got {type(got).__name__}: np.array(...) makes one"
    assert np.abs(got - expected).max() <= 1e-6 * np.abs(expected).max() + 1e-9, said


def expect_pair(got: object, expected: tuple[float, float], said: str, known: dict):
    """Assert the two numbers of a path of two steps."""
    expect_shape(got, (2,), "two steps gave shape {}: one number per step")
    expect_value(np.asarray(got, dtype=float).round(6).tolist(), [*expected], f"{said} expected {[*expected]}", known)


def random_paths():
    """Yield rewards, values, a last value, gamma and lam, of paths long and short, large and small."""
    random = np.random.default_rng()
    for steps, scale in [(1, 1.0), (2, 1e-3), (7, 1e4), (60, 1.0), (500, 1.0)]:
        rewards, values, last_value = scale * random.normal(size=steps), scale * random.normal(size=steps), scale * 3.0
        yield rewards, values, last_value, random.uniform(0.5, 1), random.choice([0.0, 1.0, random.uniform(0.2, 0.98)])


@claim("discount_cumsum")
def _(discount_cumsum):
    got = discount_cumsum(np.array([1.0, 2.0, 4.0]), 0.5)
    expect_shape(got, (3,), "three values gave shape {}: one sum per step")
    expect_value(
        np.asarray(got, dtype=float).tolist(),
        [3, 4, 4],
        "for 1, 2, 4 and a discount of 0.5 expected [3, 4, 4]",
        {
            (7, 6, 4): "the discount is not used",
            (1, 2.5, 5.25): "those are sums of what came before each step; sum from the step on",
            (4, 4, 3): "the sums are right and their order is turned round",
            (3, 2, 1): "the discount counts from the path's first step; count it from each step on",
            (1.5, 2, 2): "a step's own value is not discounted",
            (4, 4, 0): "a step's own value belongs to its sum",
            (1, 2, 4): "nothing is added up",
        },
    )
    got = np.asarray(discount_cumsum(np.array([1, 1]), 0.5), dtype=float).tolist()
    expect_value(got, [1.5, 1], "for the whole numbers 1, 1 and 0.5 expected [1.5, 1]")
    answers = []
    for values, _, _, gamma, _ in random_paths():
        answers += [(discount_cumsum(values, discount), values, discount) for discount in (gamma, 0.0, 1.0)]
    # Compared at the end: an answer must not change when another one is given.
    for got, values, discount in answers:
        said = f"for {len(values)} random values and a discount of {discount:.3g} it differs"
        expect_steps(got, discounted(values, discount), said)


@claim("gae")
def _(gae):
    got = gae(np.array([1.0, 1.0]), np.array([4.0, 2.0, 8.0]), 0.5, 0.25)
    said = "for rewards 1, 1, values 4, 2, 8, gamma 0.5 and lam 0.25"
    known = {
        (-0.5, 3): "lam is missing: the errors are discounted by gamma times lam",
        (-1.25, 3): "the errors are discounted by lam alone: by gamma times lam",
        (-2, 3): "those are the errors of single steps; add up what follows, discounted",
        (-0.125, 7): "the next value is not discounted in the errors",
        (1.625, -3): "the sign is turned round: got minus expected",
        (-2.125, -1): "the last value, of what follows the path, is left out",
        (2.625, 5): "the step's own value is not taken off",
        (-1, 0): "values[:-1] are those of the steps themselves; the next ones are values[1:]",
        (0.25, -6): "the next value takes the place of the step's own, and the other way round",
    }
    expect_pair(got, (-1.625, 3), said, known)
    answers = []
    for rewards, values, last_value, gamma, lam in random_paths():
        values = np.append(values, last_value)
        answers.append((gae(rewards, values, gamma, lam), rewards + gamma * values[1:] - values[:-1], gamma, lam))
    for got, errors, gamma, lam in answers:
        said = f"for {len(errors)} random steps, gamma {gamma:.3g} and lam {lam:.3g} it differs"
        expect_steps(got, discounted(errors, gamma * lam), said)


def expected_path(rewards, values, last_value, terminated, gamma, lam):
    """Return advantages and targets by their definition."""
    values = np.append(values, 0.0 if terminated else last_value)
    errors = rewards + gamma * values[1:] - values[:-1]
    return discounted(errors, gamma * lam), discounted(np.append(rewards, values[-1]), gamma)[:-1]


def finished(finish_path, *path):
    """Return what finish_path gives for a path; assert that it is a pair."""
    got = finish_path(*path)
    assert isinstance(got, tuple) and len(got) == 2, f"expected advantages and targets, got {type(got).__name__}"
    return got


TWO_STEPS = np.array([1.0, 1.0]), np.array([4.0, 2.0]), 8.0


@claim("finish_path", "gives the advantages")
def _(finish_path):
    said = "for rewards 1, 1, values 4, 2, a last value of 8, gamma 0.5 and lam 0.25, {}, expected advantages".format
    expect_pair(
        finished(finish_path, *TWO_STEPS, np.False_, 0.5, 0.25)[0],
        (-1.625, 3),
        said("cut"),
        {
            (-2.125, -1): "a path that was cut has its last value still to come",
            (3.5, 5): "those are the targets; the advantages come first",
            (-0.5, 3): "lam is missing",
        },
    )
    expect_pair(
        finished(finish_path, *TWO_STEPS, np.True_, 0.5, 0.25)[0],
        (-2.125, -1),
        said("terminated"),
        {(-1.625, 3): "where a path terminated nothing is to come: its last value does not count"},
    )
    expect_random_paths(finish_path, which=0)


@claim("finish_path", "gives the targets")
def _(finish_path):
    said = "for rewards 1, 1, values 4, 2, a last value of 8, gamma 0.5 and lam 0.25, {}, expected targets".format
    got = finished(finish_path, *TWO_STEPS, np.False_, 0.5, 0.25)[1]
    expect_shape(got, (2,), "two steps gave targets of shape {}: leave out what belongs to no step")
    expect_pair(
        got,
        (3.5, 5),
        said("cut"),
        {
            (1.5, 1): "a path that was cut has its last value still to come, in the targets too",
            (2.375, 5): "those are advantages plus values; the targets are discounted rewards-to-go",
            (1.25, 2): "there is no lam in the targets",
            (10, 9): "the targets are not discounted",
            (-0.5, 3): "the discounted errors add up to the target minus the value",
            (5, 8): "the targets are shifted by one step",
        },
    )
    expect_pair(
        finished(finish_path, *TWO_STEPS, np.True_, 0.5, 0.25)[1],
        (1.5, 1),
        said("terminated"),
        {(3.5, 5): "where a path terminated nothing is to come: its last value does not count"},
    )
    expect_random_paths(finish_path, which=1)


def expect_random_paths(finish_path, which):
    """Assert the advantages (0) or the targets (1) of random paths that end either way."""
    answers = []
    for *path, gamma, lam in random_paths():
        for terminated in (True, False):
            path_and_end = *path, terminated, gamma, lam
            answers.append((finished(finish_path, *path_and_end)[which], path_and_end))
    for got, path in answers:
        name, end = ("advantages", "targets")[which], "terminated" if path[3] else "was cut"
        said = f"the {name} of a random path of {len(path[0])} steps that {end} differ (gamma {path[4]:.3g})"
        expect_steps(got, expected_path(*path)[which], said)


@claim("train_vpg", "plays on and takes its gradient steps")
def _(train_vpg):
    world, settings, moves, returned = watch_vpg(train_vpg, epochs=3)
    assert len(world.seeds) == 1, (
        f"the environment was reset {len(world.seeds)} times: make the batches once, they go on"
    )
    assert world.seeds == [5], f"settings.seed is 5, the environment was given {world.seeds[0]}"
    number, steps = len(world.steps), settings.steps
    assert number == 3 * steps, f"3 epochs of {steps} steps each, and the environment was asked for {number}"
    names = [move.name for move in moves]
    assert "model and value_model" not in names, "one optimizer holds both models: make one for each"
    expected = (["model"] + ["value_model"] * 3) * 3
    counts = names.count("model"), names.count("value_model")
    assert counts == (3, 9), f"3 epochs, 3 value steps: expected 3 steps of model, 9 of value_model, got {counts}"
    assert names == expected or names == (["value_model"] * 3 + ["model"]) * 3, (
        "in every epoch model takes its one step, then value_model all of its own"
    )
    late = [move.steps for move in moves]
    assert late == [steps] * 4 + [2 * steps] * 4 + [3 * steps] * 4, "gradient steps follow each batch, not the last one"
    optimizers = {id(move.optimizer): move.optimizer for move in moves}
    assert len(optimizers) == 2, "the optimizers are made anew on the way: once, before the loop, or Adam forgets"
    for optimizer in optimizers.values():
        rate = optimizer.param_groups[0]["lr"]
        assert isinstance(optimizer, torch.optim.Adam), f"the optimizers are Adam's, got {type(optimizer).__name__}"
        assert rate == 0.05, f"settings.learning_rate is 0.05, an optimizer has {rate}"
    assert returned is not None and len(returned) == 3, "expected three mean returns, one an epoch"
    latest = np.full(world.num_envs, np.nan)
    for epoch, got in enumerate(returned):
        mean = world.mean_return(epoch * steps, (epoch + 1) * steps, latest)
        expect_number(
            float(got), mean, f"epoch {epoch + 1}: expected the mean of its returns, {mean:.3f}", {}, ".3f", 1e-4
        )
    asked = []

    def own_policy(model, observations):
        asked.append(len(observations))
        return vpg_helpers.get_policy(model, observations)

    world, settings, *_ = watch_vpg(train_vpg, own_policy)
    assert asked, "the get_policy that it is given is not used"
    played = asked.count(world.num_envs)
    assert played >= settings.epochs * settings.steps, (
        "it plays with another policy than the get_policy that it is given"
    )
    assert len(asked) > played, "its log-probabilities are of another policy than the get_policy that it is given"


def batch_of(world, settings, value_model, number):
    """Return a batch's observations and actions, and what gives its advantages and targets for any settings."""
    paths = world.paths(number * settings.steps, (number + 1) * settings.steps)
    observations, actions = (np.concatenate([columns[which] for columns, *_ in paths]) for which in (0, 1))

    def ask(seen):
        return settings.value_unit * value_model(torch.as_tensor(np.atleast_2d(seen))).detach().double().numpy()[:, 0]

    def finish(lam=settings.lam, gamma=settings.gamma, bootstrap=settings.bootstrap):
        pairs = [
            expected_path(rewards, ask(seen), ask(after)[0], terminated or not bootstrap, gamma, lam)
            for (seen, _, rewards), after, terminated in paths
        ]
        return [np.concatenate(each) for each in zip(*pairs, strict=True)]

    return torch.as_tensor(observations), actions, finish


def normalized(advantages):
    return (advantages - advantages.mean()) / advantages.std()


@claim("train_vpg", "moves the policy along the advantages")
def _(train_vpg):
    for changes in [{}, {"normalize": False}, {"bootstrap": False, "lam": 1.0}]:
        world, settings, moves, _ = watch_vpg(train_vpg, **changes)
        value_model = moves[0].value_model
        steps_of_model = [move for move in moves if move.name == "model"]
        for epoch, move in enumerate(steps_of_model):
            observations, actions, finish = batch_of(world, settings, value_model, epoch)
            advantages, targets = finish()

            def gradient_of(weights, move=move, observations=observations, actions=actions):
                taken = log_probabilities_of(move.model, observations)[range(len(actions)), actions]
                loss = -(taken * torch.as_tensor(weights).float()).mean()
                return flatten(torch.autograd.grad(loss, move.model.parameters()))

            scale = normalized if settings.normalize else lambda advantages: advantages
            expected = gradient_of(scale(advantages))
            if not is_close_in_length(move.gradient, expected):
                late = batch_of(world, settings, move.value_model, epoch)[2]()[0]
                known = {
                    "it goes against the advantages: calculate_loss has the minus already": -scale(advantages),
                    "the weights are the targets; the advantages come first": targets,
                    "the weights are the targets in value_unit": targets / settings.value_unit,
                    "value_model was fitted before it was asked: its first answer, then the fit": scale(late),
                    "settings.normalize is not heeded": advantages if settings.normalize else normalized(advantages),
                    "settings.bootstrap is not heeded": scale(finish(bootstrap=not settings.bootstrap)[0]),
                    "settings.lam is not heeded": scale(finish(lam=companion.WHOLE.lam)[0]),
                    "settings.gamma is not heeded": scale(finish(gamma=companion.WHOLE.gamma)[0]),
                    "every weight is 1": np.ones_like(advantages),
                }
                mistakes = [
                    said for said, weights in known.items() if is_close_in_length(move.gradient, gradient_of(weights))
                ]
                raise AssertionError(
                    f"epoch {epoch + 1}: model's gradient should have length {expected.norm():.4f} and is off by "
                    f"{(move.gradient - expected).norm():.4f}{''.join(f': {said}' for said in mistakes[:1])}"
                )
            if epoch + 1 < len(steps_of_model):
                value_model = next(each for each in moves if each.steps > move.steps).value_model


@claim("train_vpg", "fits the value function")
def _(train_vpg):
    world, settings, moves, _ = watch_vpg(train_vpg)
    for epoch in range(settings.epochs):
        steps = [move for move in moves if move.steps == (epoch + 1) * settings.steps]
        observations, _, finish = batch_of(world, settings, steps[0].value_model, epoch)
        advantages, targets = (torch.as_tensor(each).float() / settings.value_unit for each in finish())
        for number, move in enumerate((step for step in steps if step.name == "value_model"), start=1):

            def direction_of(goal, across=False, move=move, observations=observations):
                values = move.value_model(observations)
                loss = ((values - goal if across else values[:, 0] - goal) ** 2).mean()
                return nn.functional.normalize(flatten(torch.autograd.grad(loss, move.value_model.parameters())), dim=0)

            # A loss that is a sum, or half of it, has the same direction, and Adam does not see the difference.
            got = nn.functional.normalize(move.gradient, dim=0)
            if not is_close_in_length(got, direction_of(targets)):
                known = {
                    "shape (steps, 1) minus (steps,) is (steps, steps): take column 0": direction_of(
                        targets, across=True
                    ),
                    "it learns the advantages; the targets are what finish_paths gives second": direction_of(
                        advantages
                    ),
                    "it learns the normalized advantages": direction_of(
                        torch.as_tensor(normalized(finish()[0])).float()
                    ),
                    "the targets are in value_unit already": direction_of(targets / settings.value_unit),
                    "the targets that it learns are not in value_unit": direction_of(targets * settings.value_unit),
                    "it climbs: the loss is to fall": -direction_of(targets),
                }
                mistakes = [said for said, mistaken in known.items() if is_close_in_length(got, mistaken)]
                raise AssertionError(
                    f"epoch {epoch + 1}, value step {number}: value_model's gradient is not that of the mean squared "
                    f"difference to the targets{''.join(f': {said}' for said in mistakes[:1])}"
                )
