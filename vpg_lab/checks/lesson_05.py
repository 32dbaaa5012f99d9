"""Lesson 5: one gradient step, one epoch, and a training."""

import copy
from numbers import Real

import numpy as np
import torch
from torch import Tensor, nn
from torch.distributions import Categorical

import vpg_helpers
from vpg_lab.checks.expect import (
    case,
    expect_defaults,
    expect_pair,
    expect_reference,
    expect_samples,
    expect_type,
    flatten,
    is_close,
    is_close_in_length,
    log_probabilities_of,
    mistakes,
    name_mistake,
    redraw,
    say_difference,
)
from vpg_lab.checks.verdicts import claim
from vpg_lab.checks.worlds import CARTPOLE, FADING, STEEP, Script, TooManyEpisodes, columns, watch_training


def other_losses(logs, weights, policy):
    centered = -(logs * (weights - weights.mean())).mean()
    return {
        "it moves the opposite way; calculate_loss has the minus, and the optimizer descends": (logs * weights).mean(),
        "it takes the sum over the steps, calculate_loss the mean": -(logs * weights).sum(),
        "the weights are not used": -logs.mean(),
        "the mean of the weights is taken off": centered,
        "the weights are normalized": centered / weights.std(),
        "the weights are divided by their spread": centered / weights.std(correction=0),
        "a bonus for entropy is added": -(logs * weights).mean() - 0.01 * policy.entropy().mean(),
    }


LOSSES = [*other_losses(torch.zeros(2), torch.ones(2), Categorical(torch.ones(2)))]


def descend(model, optimizer, observations, actions, weights, mistake="", clear=True, norm=np.inf):
    """Take a gradient step on the pseudo-loss, or on another one; leave old gradients in it, or clip the new ones."""
    policy = Categorical(logits=model(torch.as_tensor(observations, dtype=model[0].weight.dtype)))
    logs, weights = policy.log_prob(torch.as_tensor(actions)), torch.as_tensor(weights)
    loss = other_losses(logs, weights, policy)[mistake] if mistake else -(logs * weights).mean()
    if clear:
        optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), norm)
    optimizer.step()


def move_by(model, observations, actions, weights, **changes):
    """Return how plain gradient descent with learning rate 1 moves the parameters, in 64 bits."""
    twin = copy.deepcopy(model).double()
    descend(twin, torch.optim.SGD(twin.parameters(), lr=1.0), observations, actions, weights, **changes)
    return flatten(twin.parameters()) - flatten(model.parameters())


def random_model(features, actions, reach=12):
    """Return a model whose logits stay within 5 or so: where policies are surer, right programs round differently."""
    model = redraw(vpg_helpers.create_model(features, actions, 16))
    largest = model(reach * (2 * torch.rand(1_000, features) - 1)).abs().max().item()
    for parameter in model[2].parameters():
        parameter.data *= 5 / largest
    return model


@mistakes("take_one_gradient_step")
def steps_gone_wrong(*given):
    def other(**changes):
        return lambda: descend(*given, **changes)

    return {said: other(mistake=said) for said in LOSSES} | {
        "nothing moved; backward() comes right before step(), with no zero_grad() between": lambda: given[1].step(),
        "gradients are cut to length 1; the step takes them as they are": other(norm=1.0),
        "gradients are cut to length 0.5; the step takes them as they are": other(norm=0.5),
        "gradients of the steps before are in it, too: optimizer.zero_grad()": other(clear=False),
    }


def ask_moves(function, model, rate, *batches):
    twin, moves, steps = copy.deepcopy(model), [], []
    optimizer = torch.optim.SGD(twin.parameters(), lr=rate)
    optimizer.register_step_post_hook(lambda *_: steps.append(1))
    for batch in batches:
        before = flatten(twin.parameters())
        function(twin, optimizer, *batch)
        moves.append((flatten(twin.parameters()) - before) / rate)
        number = len(steps) - len(moves) + 1
        assert number == 1, f"expected one step of the optimizer that is handed over, got {number}"
    return torch.stack(moves)


def random_batch(features, actions, steps, scale=1.0):
    observations = np.random.standard_normal((steps, features)).astype(np.float32)
    return observations, np.random.randint(actions, size=steps), scale * np.random.uniform(-20, 50, size=steps)


UNLIKE = "does the loss have the actions that were played, each with its observation and weight, and nothing else?"


@claim("take_one_gradient_step", "moves the parameters against the gradient of the loss")
def step_goes_down_the_gradient(take_one_gradient_step):
    cases = []
    for features, actions, steps, rate, scale in [(4, 2, 30, 0.01, 1), (3, 5, 7, 10, 1e-2), (1, 3, 200, 1e-5, 1e4)]:
        batch, said = random_batch(features, actions, steps, scale), f"{steps} steps, {actions} actions:"
        cases.append(case(said, random_model(features, actions, reach=3), rate, batch))
    known, what = steps_gone_wrong, "a move of "
    expect_reference(take_one_gradient_step, descend, known, cases, ask_moves, what, UNLIKE, tolerance=1e-4)


@claim("take_one_gradient_step", "begins with a fresh gradient every time")
def step_has_a_fresh_gradient(take_one_gradient_step):
    known, batches = steps_gone_wrong, [random_batch(4, 2, steps) for steps in (20, 50, 5)]
    cases = [case("three batches, 20, 50 and 5 steps:", random_model(4, 2, reach=3), 0.01, *batches)]
    expect_reference(take_one_gradient_step, descend, known, cases, ask_moves, "a move of ", UNLIKE, tolerance=1e-3)


def play(train_one_epoch, script, model, budget, optimizer=None):
    """Let an epoch play, without learning if no optimizer is given; return the mean return and the script's columns."""
    script.begun = []
    optimizer = optimizer or torch.optim.SGD(model.parameters(), lr=0.0)
    return train_one_epoch(script, model, optimizer, max_timesteps=budget), *columns(script)


def expect_budget(train_one_epoch, script, budget):
    """Assert that an epoch stops with the first whole episode that meets its budget."""
    play(train_one_epoch, script, random_model(3, 4), budget)
    lengths = [*map(len, script.episodes)]
    asked = f"a budget of {budget}: it played {sum(lengths)} steps in {len(lengths)} episodes"
    assert script.ended or not script.begun[-1], f"{asked}: the last episode was cut short; finish it"
    assert sum(lengths) >= budget, f"{asked}: play until the budget is met"
    assert sum(lengths[:-1]) < budget, f"{asked}: stop with the first whole episode that meets the budget"


@claim("train_one_epoch", "plays whole episodes to the budget")
def epoch_plays_whole_episodes_to_the_budget(train_one_epoch):
    # Four episodes, 3 + 2 + 3 + 2, meet a budget of 10 exactly, and one of 9 because the last one is finished.
    for budget in (10, 9):
        lengths = play(train_one_epoch, Script(), random_model(4, 2), budget)[-1].tolist()
        known = {
            "one episode too many, the budget was met": [3, 2, 3, 2, 3],
            "the last episode was cut short": [3, 2, 3, 1],
            "the budget counts steps, and not episodes": [3, 2, 3, 2, 3, 2, 3, 2, 3, 2][:budget],
            "play episodes until the budget is met": [3],
        }
        mistake = name_mistake(known, lambda wrong, lengths=lengths: lengths == wrong)
        said = f"a budget of {budget}: expected episodes of 3, 2, 3 and 2 steps, got {lengths}{mistake}"
        assert lengths == [3, 2, 3, 2], said
    expect_budget(train_one_epoch, Script(3, 4, random=True), 120)
    expect_budget(train_one_epoch, Script(3, 4, random=True, length=501), 1)
    expect_defaults(train_one_epoch, max_timesteps=5_000)


@claim("train_one_epoch", "ends an episode that is truncated, too")
def epoch_ends_an_episode_that_is_truncated(train_one_epoch):
    for ends in (Script.ENDS[1:2], Script.ENDS):
        expect_budget(train_one_epoch, Script(3, 4, random=True, ends=ends), 60)


@claim("train_one_epoch", "plays by the policy")
def epoch_plays_by_the_policy(train_one_epoch):
    # In worlds of several sizes, with policies that are sure of much, or of little.
    for features, sides, budget, spread in [(7, 3, 100, 0.3), (3, 4, 120, 5.0)]:
        script, model = Script(features, sides, random=True), vpg_helpers.create_model(features, sides, 8)
        for _ in range(2):
            before = copy.deepcopy(model)
            redraw(model, spread)  # the second epoch has another policy than the first
            drawn, seed = copy.deepcopy(model), np.random.randint(2**31)
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                _, observations, _, actions, _, lengths = play(train_one_epoch, script, model, budget)
                assert torch.initial_seed() == seed, "it seeds torch: every epoch would roll the same dice"
            starts = np.repeat(lengths.cumsum() - lengths, lengths)
            earlier = np.maximum(np.arange(len(observations)) - 1, starts)
            played = log_probabilities_of(drawn, observations)
            suspects = {
                "the first observation decides all of an episode; ask with that of the moment": played[starts],
                "each step is played by the observation before; ask with that of the moment": played[earlier],
                "the model before plays; ask the one that was handed over": log_probabilities_of(before, observations),
            }
            expect_samples(actions, played, suspects)


@claim("train_one_epoch", "returns the mean return")
def epoch_returns_the_mean_return(train_one_epoch):
    for script, budget in [(Script(), 10), (Script(), 9), (Script(3, 4, random=True), 120)]:
        model = random_model(script.observation_space.shape[0], script.action_space.n)
        got, *_, rewards, lengths = play(train_one_epoch, script, model, budget)
        expect_type(got, Real, "the mean return as a number")
        returns = np.array([own.sum() for own in np.split(rewards, lengths.cumsum()[:-1])])
        known = {
            "that is the sum of the returns": returns.sum(),
            "that is the mean over all steps": np.mean(np.repeat(returns, lengths)),
            "that is the last return": returns[-1],
            "that is the mean reward": rewards.mean(),
        }
        close = lambda number, got=got: is_close(got, number, relative=1e-5)  # noqa: E731
        said = f"expected a mean return of {returns.mean():.2f}, got {got:.2f}"
        assert close(returns.mean()), f"{said}{name_mistake(known, close)}"


def epochs_gone_wrong(start, script):
    observations, later, actions, rewards, lengths = columns(script)
    episodes = np.split(rewards, lengths.cumsum()[:-1])
    each = np.array([own.sum() for own in episodes])
    returns, starts = np.repeat(each, lengths), np.repeat(lengths.cumsum() - lengths, lengths)
    to_go = returns - np.concatenate([own.cumsum() - own for own in episodes])
    discounted = [own @ 0.99 ** np.arange(len(own)) for own in episodes]
    weights = {
        "each step is weighted with its own reward": rewards,
        "the weights are rewards-to-go": to_go,
        "the weights are the rewards up to each step": returns - to_go + rewards,
        "each episode is averaged by itself": returns / np.repeat(lengths, lengths),
        "the weights are lengths": np.repeat(lengths, lengths),
        "the weights are shifted by one step": np.roll(returns, -1),
        "every step has the last episode's return": np.full(len(rewards), each[-1]),
        "every step has the mean return": np.full(len(rewards), each.mean()),
        "rewards are discounted by 0.99": np.repeat(discounted, lengths),
        "the loss is divided by episodes, calculate_loss divides by steps": returns * len(returns) / len(each),
    }
    given = observations, actions, returns
    moves = {said: move_by(start, observations, actions, wrong) for said, wrong in weights.items()}
    moves |= {said: move_by(start, *given, mistake=said) for said in LOSSES}
    moves["the gradient is cut to length 0.5; take it as it is"] = move_by(start, *given, norm=0.5)
    moves["the gradient is cut to length 1; take it as it is"] = move_by(start, *given, norm=1.0)
    moves["each action goes with the observation after it"] = move_by(start, later, *given[1:])
    moves["all steps of an episode have its first observation"] = move_by(start, observations[starts], *given[1:])
    return moves


def expect_move(train_one_epoch, script, model, optimizer, budget, earlier=0.0):
    """Assert that an epoch takes the right gradient step; return it, in learning rates. earlier is the one before."""
    gradients, start, rate = [], copy.deepcopy(model), optimizer.param_groups[0]["lr"]
    hook = optimizer.register_step_pre_hook(lambda *_: gradients.append([each.grad for each in model.parameters()]))
    _, observations, _, actions, rewards, lengths = play(train_one_epoch, script, model, budget, optimizer)
    hook.remove()
    number = len(gradients)
    assert number == 1, f"expected one optimizer step in one epoch, got {number}"
    lost = "no gradient came to the model: loss.backward() before optimizer.step(), torch.stack and not torch.tensor"
    assert any(each is not None for each in gradients[0]), lost
    assert model.training, "it leaves the model in eval mode: leave it as it came"
    returns = [own.sum() for own in np.split(rewards, lengths.cumsum()[:-1])]
    right = move_by(start, observations, actions, np.repeat(returns, lengths))
    got = (flatten(model.parameters()) - flatten(start.parameters())) / rate
    is_it = lambda move: is_close_in_length(got, move, share=2e-3)  # noqa: E731
    if not is_it(right):
        known = {"the gradient of the epoch before is in it: optimizer.zero_grad()": right + earlier}
        mistake = name_mistake(known | epochs_gone_wrong(start, script), is_it) or f": {UNLIKE}"
        raise AssertionError(
            f"{len(lengths)} episodes, {script.action_space.n} actions: the parameters should move by "
            f"{right.norm():.4g} learning rates, got {got.norm():.4g}, {(got - right).norm():.4g} away from it{mistake}"
        )
    return right


@claim("train_one_epoch", "weighs each step with its episode's return")
def epoch_weighs_each_step_with_its_return(train_one_epoch):
    # Returns from tiny to huge, of either sign; many episodes, many actions, one long episode.
    worlds = [(Script(), 1.0, 40), (Script(3, 2, True, 0.01), 0.01, 60), (Script(6, 3, True), 1.0, 1_000)]
    worlds += [(Script(5, 40, True, 2_000.0), 2_000.0, 60), (Script(3, 4, True, length=501), 1.0, 1)]
    for script, scale, budget in worlds:
        model = random_model(script.observation_space.shape[0], script.action_space.n)
        expect_move(train_one_epoch, script, model, torch.optim.SGD(model.parameters(), lr=0.1 / scale), budget)


@claim("train_one_epoch", "takes one fresh gradient step an epoch")
def epoch_takes_one_fresh_gradient_step(train_one_epoch):
    script, model, earlier = Script(), random_model(4, 2), 0.0
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    for _ in range(3):
        earlier = expect_move(train_one_epoch, script, model, optimizer, 40, earlier)


def watch(train, track, **settings):
    epochs, budget = settings["epochs"], settings["max_timesteps"]
    try:
        training = watch_training(train, track, 2 * epochs * budget, **settings)
    except TooManyEpisodes as many:
        said = f"more than {2 * epochs * budget} episodes for {epochs} epochs and a budget of {budget} steps"
        hints = "hand max_timesteps on", "train as many epochs as are asked for"
        raise AssertionError(f"{said}: {hints[many.args[0] > epochs]}") from None
    expect_pair(training.returned, "the model and the mean returns")
    model, mean_returns = training.returned
    expect_type(model, nn.Module, "the model first")
    expect_type(mean_returns, (list, tuple, np.ndarray, Tensor), "a list of mean returns")
    assert training.gradient_steps, "no optimizer took a step"
    return training, model, list(mean_returns)


def expect_mean_returns(training, mean_returns):
    expected = [float(np.mean(returns)) for returns in training.returns_by_epoch()]
    number, epochs = len(mean_returns), len(expected)
    assert number == epochs, f"expected a mean return for every optimizer step, got {number} for {epochs} of them"
    said = f"mean returns of {epochs} epochs: {say_difference(mean_returns, expected)}"
    assert is_close(mean_returns, expected, relative=3e-6), f"{said}: as they come, one an epoch"


@claim("train", "is decided by its seed")
def training_is_decided_by_its_seed(train):
    for seed in (5, 0):
        seeds = (seed, seed, seed + 1)
        (one, model, _), (again, twin, _), (other, stranger, _) = [
            watch(train, STEEP, epochs=3, max_timesteps=10, seed=each) for each in seeds
        ]
        assert model is not twin, "two trainings gave the same model: make a new one in every call"
        ends = [flatten(each.parameters()) for each in (model, twin, stranger)]
        same = torch.equal(*ends[:2]) and one.starts == again.starts
        assert same, "the same seed gave two trainings: seed the environment once, and torch before the model is made"
        said = f"seeds {seed} and {seed + 1} gave the same"
        assert not torch.equal(*ends[1:]), f"{said} model: is the seed used?"
        assert not {*one.starts} & {*other.starts}, f"{said} starts: hand the seed to env.reset(seed=seed)"
    expect_defaults(train, epochs=40, max_timesteps=5_000, learning_rate=1e-2, seed=0, after_epoch=None)


@claim("train", "seeds everything, once")
def training_seeds_everything_once(train):
    training, *_ = watch(train, STEEP, epochs=3, max_timesteps=10, seed=5)
    apart = len({*training.starts}) == len(training.starts)
    assert apart, "two episodes began exactly alike: seed the environment once, before the loop"
    seeds, dice = [{*kept} for kept in zip(*[step[-2:] for step in training.gradient_steps], strict=True)]
    once = len(seeds) == 1 and len(dice) == len(training.gradient_steps)
    assert once, "torch is seeded in every epoch: seed it before the loop"


@claim("train", "calls the watcher after every epoch")
def training_calls_the_watcher_after_every_epoch(train):
    seen, counts, told = [], [], []

    def watcher(model, mean_returns):
        seen.append(model)
        counts.append(len(mean_returns))
        told.append(list(mean_returns))
        return True if told[1:] else None  # whatever it returns, the training goes on

    training, model, mean_returns = watch(train, CARTPOLE, epochs=3, max_timesteps=30, after_epoch=watcher)
    assert counts == [1, 2, 3], f"expected after_epoch to see 1, 2, 3 mean returns, got {counts}"
    same = all(each is model for each in seen)
    assert same, "after_epoch saw another model than the one returned: make it once, and hand on no copies"
    said = f"after_epoch saw {told}, and train returned {mean_returns}: hand on the returns so far"
    assert told == [mean_returns[:count] for count in counts], said
    expect_mean_returns(training, mean_returns)
    assert not training.printed, f"it prints {training.printed[:40]!r}: watching is the watcher's work"


@claim("train", "uses its settings")
def training_uses_its_settings(train):
    # Long trainings are cheap where the pole has fallen after one step, and the budget is the number of episodes.
    for epochs, learning_rate in [(3, 0.03), (60, 1e-3)]:
        training, model, _ = watch(train, STEEP, epochs=epochs, max_timesteps=2, learning_rate=learning_rate)
        expect_adam(training, model, epochs, learning_rate)
        number = len(training.rewards)  # 3 an epoch where train_one_epoch has > for >=, which its own check says
        said = f"{epochs} epochs, a budget of 2, episodes of 1 step: expected {2 * epochs} episodes, got {number}"
        assert 2 * epochs <= number <= 3 * epochs, said
        size = sum(parameter.numel() for parameter in model.parameters())
        assert size == 226, f"its model has {size} parameters, create_model(4, 2) makes 226"
        ready = model.training and all(parameter.requires_grad for parameter in model.parameters())
        assert ready, "the model comes back frozen, or in eval mode: hand it back as it was made, ready for more"


def expect_adam(training, model, epochs, learning_rate):
    """Assert that one Adam with its usual settings moved the parameters, and nothing else did."""
    steps, parameters, number = training.gradient_steps, [*model.parameters()], len(training.gradient_steps)
    assert number >= epochs, f"of {epochs} epochs it trained {number}: train all of them, however good it gets"
    assert number == epochs, f"expected one optimizer step an epoch, {epochs}, got {number}"
    assert len({id(step.optimizer) for step in steps}) == 1, "make the optimizer once, before the loop"
    kind, held = type(steps[0].optimizer).__name__, steps[0].settings["params"]
    assert kind == "Adam", f"expected torch.optim.Adam, got {kind}"
    numbers = sum(each.numel() for each in held), sum(each.numel() for each in parameters)
    said = "the optimizer holds {} parameters, the model has {}: hand it model.parameters(), all of them"
    assert numbers[0] == numbers[1], said.format(*numbers)
    own = [*map(id, held)] == [*map(id, parameters)]
    assert own, "the model returned is not the one that was trained: hand that one back, and no copy"
    usual = torch.optim.Adam(parameters, lr=learning_rate).param_groups[0]
    for epoch, step in enumerate(steps, start=1):
        for name in ("lr", "betas", "eps", "weight_decay", "amsgrad", "maximize"):
            got = step.settings[name]
            assert got == usual[name], f"epoch {epoch}: Adam should have {name} {usual[name]}, got {got}"
    last = torch.equal(steps[-1].after, flatten(parameters))
    assert last, "the model returned is not the one after the last epoch: hand back what training has made, best or not"


@claim("train", "plays episodes of 200 steps at most")
def training_plays_episodes_of_200_steps_at_most(train):
    # The pole may lean as far as it likes, on an endless track. The best epoch is the first, and still all are
    # trained, told and kept.
    training, model, mean_returns = watch(train, FADING, epochs=12, max_timesteps=1)
    assert training.rewards, 'no CartPole was played: gym.make("CartPole-v1", max_episode_steps=200)'
    longest = max(map(len, training.rewards))
    assert longest == 200, f"no pole can fall, and an episode has {longest} steps, expected 200: max_episode_steps?"
    expect_mean_returns(training, mean_returns)
    expect_adam(training, model, 12, 1e-2)
