"""Lesson 8: discounted sums, GAE, and the whole Vanilla Policy Gradient."""

import numpy as np
import torch
from torch.nn.functional import normalize

import vpg_helpers
from vpg_lab import companion
from vpg_lab.checks.expect import (
    agree,
    case,
    expect_pair,
    expect_reference,
    expect_shape,
    expect_type,
    flatten,
    is_close_in_length,
    log_probabilities_of,
    mistakes,
    name_mistake,
    say_difference,
    to_numbers,
)
from vpg_lab.checks.verdicts import claim
from vpg_lab.checks.worlds import watch_vpg


def discounted(values, discount):
    """Return the discounted sums from each step on, by their definition: a matrix of powers times the values."""
    away = np.arange(len(values)) - np.arange(len(values))[:, np.newaxis]
    return np.where(away < 0, 0.0, float(discount) ** np.maximum(away, 0)) @ np.asarray(values, dtype=float)


def random_paths():
    """Yield rewards, values, a last value, gamma and lam, of paths long and short, large and small."""
    random = np.random.default_rng()
    for steps, scale in [(1, 1.0), (2, 0.1), (7, 1e4), (60, 1.0), (200, 1.0)]:
        rewards, values = scale * random.normal(size=(2, steps))
        yield rewards, values, 3 * scale, random.uniform(0.5, 1), random.choice([0.0, 1.0, random.uniform(0.2, 0.98)])


def ask_for_array(function, *inputs) -> np.ndarray:
    """Assert that an answer is an array with one axis; return it."""
    got = function(*inputs)
    assert np.ndim(got) == 1, f"expected one number per step, got shape {np.shape(got)}"
    expect_type(got, np.ndarray, "an array", ": np.array(...) makes one")
    return got


def normalized(numbers):
    return (numbers - numbers.mean()) / (numbers.std() + 1e-8)


@mistakes("discount_cumsum")
def sums_gone_wrong(values, discount):
    right, later = discounted(values, discount), np.append(values[1:], 0)
    from_start = values * discount ** np.arange(len(values))
    return {
        "the discount is not used": discounted(values, 1.0),
        "a discount of 0.99 is written in": discounted(values, 0.99),
        "those are sums of what came before each step; sum from the step on": discounted(values[::-1], discount)[::-1],
        "the sums are right and their order is turned round": right[::-1],
        "the discount counts from the path's first step; count it from each step on": discounted(from_start, 1.0),
        "a step's own value is not discounted": discount * right,
        "a step's own value belongs to its sum": discounted(later, discount),
        "a step's own value belongs to its sum, in front of all that follows": discount * discounted(later, discount),
        "nothing is added up": values,
        "nothing is added up, only discounted": from_start,
        "every step gets the first step's sum": right[:1].repeat(len(values)),
        "each step adds the next one alone; add up all that follow": values + discount * later,
        "an array like whole numbers cuts every sum off at the point: make one of floats": right.astype(values.dtype),
    }


@claim("discount_cumsum")
def sums_are_discounted_from_each_step_on(discount_cumsum):
    cases = [case("for 1, 2, 4 and a discount of 0.5", np.array([1.0, 2.0, 4.0]), 0.5)]
    cases.append(case("for the whole numbers 1, 1 and a discount of 0.5", np.array([1, 1]), 0.5))
    for values, *_, gamma, _ in random_paths():
        for discount in (gamma, 0.0, 1.0):
            cases.append(case(f"for {len(values)} random values and a discount of {discount:.3g}", values, discount))
    expect_reference(discount_cumsum, discounted, sums_gone_wrong, cases, ask_for_array)


def advantages_by_definition(rewards, values, gamma, lam):
    return discounted(rewards + gamma * values[1:] - values[:-1], gamma * lam)


@mistakes("gae")
def advantages_gone_wrong(rewards, values, gamma, lam):
    own, after, right = values[:-1], values[1:], advantages_by_definition(rewards, values, gamma, lam)
    errors, last_left_out = rewards + gamma * after - own, np.append(after[:-1], 0)

    def sums(errors):
        return discounted(errors, gamma * lam)

    return {
        "lam is missing: the errors are discounted by gamma times lam": discounted(errors, gamma),
        "the errors are discounted by lam alone: by gamma times lam": discounted(errors, lam),
        "gamma = 0.99 and lam = 0.95 are written in": advantages_by_definition(rewards, values, 0.99, 0.95),
        "gamma = 0.99 and lam = 0.97 are written in": advantages_by_definition(rewards, values, 0.99, 0.97),
        "those are the errors of single steps; add up what follows, discounted": errors,
        "the next value is not discounted in the errors": sums(rewards + after - own),
        "the sign is turned round: got minus expected": -right,
        "the last value, of what follows the path, is left out": sums(rewards + gamma * last_left_out - own),
        "the next value is added, and the step's own is taken off": sums(rewards - gamma * after + own),
        "the step's own value is not taken off": sums(rewards + gamma * after),
        "values[:-1] are those of the steps themselves; the next ones are values[1:]": sums(
            rewards + (gamma - 1) * own
        ),
        "the next value takes the place of the step's own, and the other way round": sums(
            rewards + gamma * own - after
        ),
        "that is the advantage plus the value, a target for a value function; take the value off": right + own,
        "an advantage stays as it is: it subtracts their mean": right - right.mean(),
        "an advantage stays as it is: it normalizes them": normalized(right),
    }


@claim("gae")
def advantages_are_those_of_gae(gae):
    by_hand = np.array([1.0, 1.0]), np.array([4.0, 2.0, 8.0]), 0.5, 0.25
    cases = [case("for rewards 1, 1, values 4, 2, 8, gamma 0.5 and lam 0.25", *by_hand)]
    for rewards, values, last_value, gamma, lam in random_paths():
        said = f"for {len(rewards)} random steps, gamma {gamma:.3g} and lam {lam:.3g}"
        cases.append(case(said, rewards, np.append(values, last_value), gamma, lam))
    expect_reference(gae, advantages_by_definition, advantages_gone_wrong, cases, ask_for_array)


def path_by_definition(rewards, values, last_value, terminated, gamma, lam):
    to_come = 0.0 if terminated else last_value
    targets = discounted(np.append(rewards, to_come), gamma)[:-1]
    return advantages_by_definition(rewards, np.append(values, to_come), gamma, lam), targets


@mistakes("finish_path")
def paths_gone_wrong(rewards, values, last_value, terminated, gamma, lam):
    def path(terminated=terminated, gamma=gamma, lam=lam):
        return path_by_definition(rewards, values, last_value, terminated, gamma, lam)

    advantages, targets = path()
    to_come = 0.0 if terminated else last_value
    at_once = np.append(rewards[:-1], rewards[-1] + to_come)
    return {
        "a path that was cut has its last value still to come": path(terminated=True),
        "where a path terminated nothing is to come: its last value does not count": path(terminated=False),
        "it is the wrong way round: a path that was cut has its last value still to come": path(not terminated),
        "those are the targets; the advantages come first": (targets, advantages),
        "lam is missing in the advantages": (path(lam=1.0)[0], targets),
        "those are advantages plus values; the targets are discounted rewards-to-go": (advantages, advantages + values),
        "there is no lam in the targets": (advantages, path(gamma=gamma * lam)[1]),
        "the targets are not discounted": (advantages, path(gamma=1.0)[1]),
        "the discounted errors add up to the target minus the value": (advantages, targets - values),
        "the targets are shifted by one step": (advantages, np.append(targets[1:], to_come)),
        "leave out the last sum: it belongs to no step": (advantages, np.append(targets, to_come)),
        "the last value comes a step after the last reward: discount it": (advantages, discounted(at_once, gamma)),
        "an advantage stays as it is: it subtracts their mean": (advantages - advantages.mean(), targets),
        "an advantage stays as it is: it normalizes them": (normalized(advantages), targets),
    }


def expect_path(finish_path, which, name):
    """Assert the advantages (0) or the targets (1) of a path by hand and of random ones, each cut and terminated."""
    by_hand = np.array([1.0, 1.0]), np.array([4.0, 2.0]), 8.0, 0.5, 0.25
    said, cases = "for rewards 1, 1, values 4, 2, a last value of 8, gamma 0.5 and lam 0.25", []
    for rewards, values, last_value, gamma, lam in [by_hand, *random_paths()]:
        for end in ("cut", "terminated"):
            terminated = np.bool_(end == "terminated")  # as Gymnasium says it: `is True` does not find NumPy's own
            cases.append(case(f"{said}, {end},", rewards, values, last_value, terminated, gamma, lam))
        said = "for a random path"

    def ask(function, *path):
        expect_pair(got := function(*path), "advantages and targets")
        return ask_for_array(lambda: got[which])

    expect_reference(finish_path, path_by_definition, paths_gone_wrong, cases, ask, f"{name} ")


@claim("finish_path", "gives the advantages")
def path_has_its_advantages(finish_path):
    expect_path(finish_path, 0, "advantages")


@claim("finish_path", "gives the targets")
def path_has_its_targets(finish_path):
    expect_path(finish_path, 1, "targets")


SETTINGS = companion.Settings(
    epochs=2, steps=11, gamma=0.8, lam=0.7, learning_rate=0.05, value_steps=3, value_unit=4.0, seed=5
)


@claim("train_vpg", "plays on and takes its gradient steps")
def training_plays_on_and_takes_its_steps(train_vpg):
    settings = SETTINGS._replace(epochs=3)
    world, moves, returned = watch_vpg(train_vpg, settings)
    resets, played, steps = len(world.seeds), len(world.steps), settings.steps
    assert resets == 1, f"the environment was reset {resets} times: make the batches once, they go on"
    assert world.seeds == [5], f"settings.seed is 5, the environment was given {world.seeds[0]}"
    too_many = ": stop before the next batch is played; in zip, batches stand last"
    assert played == 3 * steps, (
        f"3 epochs of {steps} steps each, and the environment was asked for {played}{too_many * (played == 4 * steps)}"
    )
    names, late = [move.name for move in moves], [move.steps for move in moves]
    assert "model and value_model" not in names, "one optimizer holds both models: make one for each"
    counts = names.count("model"), names.count("value_model")
    assert counts == (3, 9), f"3 epochs, 3 value steps: expected 3 steps of model, 9 of value_model, got {counts}"
    assert names in ((["model"] + ["value_model"] * 3) * 3, (["value_model"] * 3 + ["model"]) * 3), (
        "in every epoch model takes its one step, then value_model all of its own"
    )
    assert late == [steps] * 4 + [2 * steps] * 4 + [3 * steps] * 4, "gradient steps follow each batch, not the last one"
    optimizers = {id(move.optimizer): move.optimizer for move in moves}
    assert len(optimizers) == 2, "the optimizers are made anew on the way: once, before the loop, or Adam forgets"
    for optimizer in optimizers.values():
        rate = optimizer.param_groups[0]["lr"]
        assert isinstance(optimizer, torch.optim.Adam), f"the optimizers are Adam's, got {type(optimizer).__name__}"
        assert rate == 0.05, f"settings.learning_rate is 0.05, an optimizer has {rate}"
    expect_mean_returns(returned, world.returns_by_batch(steps), [world.paths(end - steps, end) for end in late[::4]])
    asked = []

    def own_policy(model, observations):
        asked.append(len(observations))
        return vpg_helpers.get_policy(model, observations)

    world, *_ = watch_vpg(train_vpg, SETTINGS, own_policy)
    played = asked.count(world.num_envs)
    assert asked, "the get_policy that it is given is not used"
    assert played >= SETTINGS.epochs * SETTINGS.steps, (
        "it plays with another policy than the get_policy that it is given"
    )
    assert len(asked) > played, "its log-probabilities are of another policy than the get_policy that it is given"


def expect_mean_returns(got, returns, batches):
    """Assert the mean over the environments that have a return so far; returns is (epochs, environments)."""
    expect_shape(got, (len(returns),), "expected three mean returns, one an epoch, got shape {}")
    expected = torch.as_tensor(returns).nanmean(dim=1).numpy()  # which does not warn where there is nothing but nan
    rewards = [[columns[2] for columns, *_ in paths] for paths in batches]
    of_steps, of_paths = [np.hstack(each).mean() for each in rewards], [np.mean([*map(sum, each)]) for each in rewards]
    known = {
        "returns hold nan where no episode has ended yet: leave those out, as nanmean does": returns.mean(axis=1),
        "where no episode has ended yet there is no return, and it is not 0": np.nan_to_num(returns).mean(axis=1),
        "those are sums over the environments: take the mean": np.nansum(returns, axis=1),
        "those are rewards of single steps; the returns come with every batch": of_steps,
        "a batch cuts episodes; the returns of whole ones come with every batch": of_paths,
    }
    mistake = name_mistake(known, lambda wrong: agree(got, wrong, 1e-4))
    for epoch, pair in enumerate(zip(got, expected, strict=True), start=1):
        assert agree(*pair, 1e-4), f"epoch {epoch}, mean return: {say_difference(*pair)}{mistake}"


def watch_epochs(train_vpg, **changes):
    """Train in a made-up world; yield every epoch's name, settings, paths, gradient steps of model and of value_model.

    Behind them, the value model as it was before all of them.
    """
    settings = SETTINGS._replace(**changes)
    world, moves, _ = watch_vpg(train_vpg, settings)
    for epoch in range(1, settings.epochs + 1):
        end = epoch * settings.steps
        steps, paths = [move for move in moves if move.steps == end], world.paths(end - settings.steps, end)
        of_model, of_values = [[move for move in steps if move.name == name] for name in ("model", "value_model")]
        assert of_model and of_values, (
            f"in epoch {epoch} expected gradient steps of model and of value_model, each with an optimizer of its own, "
            f"got {len(of_model)} and {len(of_values)}"
        )
        yield f"epoch {epoch}", settings, paths, of_model, of_values, steps[0].value_model


def finish(paths, value_model, settings):
    """Return what finish_paths gives, in 64 bits."""

    def ask(seen):
        return settings.value_unit * to_numbers(value_model(torch.as_tensor(np.atleast_2d(seen))))[:, 0]

    finished = [
        path_by_definition(rewards, ask(seen), ask(after)[0], ended or not settings.bootstrap, *settings[2:4])
        for (seen, _, rewards), after, ended in paths
    ]
    advantages, targets = (np.concatenate(each) for each in zip(*finished, strict=True))
    return normalized(advantages) if settings.normalize else advantages, targets / settings.value_unit


def column(paths, which):
    return np.concatenate([columns[which] for columns, *_ in paths])


def policy_gradient(model, paths, weights, bonus=0.0):
    """Return the gradient of the pseudo-loss, less a share of the mean entropy."""
    policy, actions = log_probabilities_of(model, column(paths, 0)), column(paths, 1)
    gains = policy[range(len(actions)), actions] * torch.as_tensor(weights).float()
    loss = bonus * (policy.exp() * policy).sum(dim=1).mean() - gains.mean()
    return flatten(torch.autograd.grad(loss, model.parameters()))


def value_direction(model, paths, goal, across=False):
    """Return the direction of a mean-square fit's gradient: Adam does not see its length, so a sum is as good."""
    values = model(torch.as_tensor(column(paths, 0)))
    loss = ((values if across else values[:, 0]) - torch.as_tensor(goal)).square().mean()
    return normalize(flatten(torch.autograd.grad(loss, model.parameters())), dim=0)


def expect_gradient(got, expected, known, said):
    """Assert a gradient; said names it."""
    mistake = name_mistake(known, lambda wrong: is_close_in_length(got, wrong))
    off = (got - expected).norm() / expected.norm()
    assert is_close_in_length(got, expected), f"{said} is off by {off:.1%} of its length{mistake}"


@claim("train_vpg", "moves the policy along the advantages")
def training_follows_the_advantages(train_vpg):
    for changes in [{}, {"normalize": False}, {"bootstrap": False, "lam": 1.0}]:
        for epoch, settings, paths, (move, *_), _, value_model in watch_epochs(train_vpg, **changes):
            model, (advantages, targets) = move.model, finish(paths, value_model, settings)
            late, defaults = (
                finish(paths, move.value_model, settings)[0],
                finish(paths, value_model, companion.WHOLE)[0],
            )
            weights = {
                "it goes against the advantages: calculate_loss has the minus already": -advantages,
                "the weights are the targets; the advantages come first": targets,
                "value_model was fitted before it was asked: its first answer, then the fit": late,
                "finish_paths takes the settings that are given, not the defaults": defaults,
                "every weight is 1": np.ones_like(advantages),
            }
            known = {sentence: policy_gradient(model, paths, each) for sentence, each in weights.items()}
            known["it adds an entropy bonus, which VPG has not"] = policy_gradient(model, paths, advantages, 0.01)
            expected, got = policy_gradient(model, paths, advantages), move.gradient
            along = "its direction is right: take the mean over the steps, and clip nothing"
            known[along] = normalize(expected, dim=0) * got.norm()
            expect_gradient(got, expected, known, f"{epoch}: model's gradient")


@claim("train_vpg", "fits the value function")
def training_fits_the_value_function(train_vpg):
    for epoch, settings, paths, _, moves, value_model in watch_epochs(train_vpg):
        normalized_ones, targets = finish(paths, value_model, settings)
        advantages, unit = finish(paths, value_model, settings._replace(normalize=False))[0], settings.value_unit
        goals = {
            "it learns the advantages; the targets are what finish_paths gives second": advantages / unit,
            "it learns the normalized advantages": normalized_ones,
            "the targets are in value_unit already": targets / unit,
            "the targets that it learns are not in value_unit": targets * unit,
        }
        for number, move in enumerate(moves, start=1):
            expected = value_direction(move.value_model, paths, targets)
            across = value_direction(move.value_model, paths, targets, across=True)
            known = {"shape (steps, 1) minus (steps,) is (steps, steps): take column 0": across}
            known |= {sentence: value_direction(move.value_model, paths, goal) for sentence, goal in goals.items()}
            known["it climbs: the loss is to fall"] = -expected
            said = f"{epoch}, value step {number}: the direction of value_model's gradient"
            expect_gradient(normalize(move.gradient, dim=0), expected, known, said)
