"""Lesson 5: one gradient step, one epoch, and a training."""

import contextlib
import copy
import itertools
from numbers import Real

import numpy as np
import torch

import vpg_helpers
from vpg_lab.checks.expect import (
    expect_defaults,
    expect_number,
    expect_samples,
    expect_type,
    expect_value,
    flatten,
    is_close,
    is_close_in_length,
    log_probabilities_of,
    redraw,
)
from vpg_lab.checks.verdicts import claim
from vpg_lab.checks.worlds import Script, columns, expect_seen, watch_questions, watch_training


def expected_move(model, observations, actions, weights):
    """Return how plain gradient descent with learning rate 1 moves the parameters."""
    taken = log_probabilities_of(model, observations)[range(len(actions)), actions]
    mean = (taken * torch.as_tensor(weights, dtype=torch.float32)).mean()
    return flatten(torch.autograd.grad(mean, model.parameters()))


def random_batch(
    features: int, actions: int, steps: int, scale: float = 1.0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return observations, actions and weights, from -20 to 50 scales, of a batch that nobody has played."""
    return (
        np.random.standard_normal((steps, features)).astype(np.float32),
        np.random.randint(actions, size=steps),
        scale * np.random.uniform(-20, 50, size=steps),
    )


@claim("take_one_gradient_step", "moves the parameters against the gradient of the loss")
def _(take_one_gradient_step):
    worlds = [(4, 2, 30, 0.01, 1), (3, 5, 7, 10, 1e-2), (1, 3, 200, 1e-5, 1e4), (6, 2, 1, 0.003, 1), (3, 4, 50, 0.1, 1)]
    for features, actions, steps, rate, scale in worlds:
        model = redraw(vpg_helpers.create_model(features, actions, 8), 1.5 if steps == 50 else 0.5)
        batch = random_batch(features, actions, steps, scale)
        start, optimizer = copy.deepcopy(model), torch.optim.SGD(model.parameters(), lr=rate)
        gradient_steps = []
        optimizer.register_step_post_hook(lambda *_, seen=gradient_steps: seen.append(1))
        take_one_gradient_step(model, optimizer, *batch)
        number = len(gradient_steps)
        assert number == 1, f"expected one step of the optimizer that is handed over, got {number}"
        got, right = flatten(model.parameters()) - flatten(start.parameters()), rate * expected_move(start, *batch)
        known = {
            "nothing moved: loss.backward(), and only then optimizer.step()": 0 * right,
            "it goes downhill: look at the sign": -right,
            "it takes the sum over the steps, calculate_loss the mean": steps * right,
            "the weights are not used": rate * expected_move(start, *batch[:2], np.ones(steps)),
        }
        if not is_close_in_length(got, right, share=5e-5):
            mistakes = [f"; {said}" for said, move in known.items() if is_close_in_length(got, move, share=1e-2)]
            raise AssertionError(
                f"{steps} steps, {actions} actions: the parameters should move by {right.norm():.4g}, got a move of "
                f"{got.norm():.4g}, {(got - right).norm():.4g} away from it{''.join(mistakes[:1])}"
            )


@claim("take_one_gradient_step", "begins with a fresh gradient every time")
def _(take_one_gradient_step):
    model = vpg_helpers.create_model(4, 2)
    optimizer, moves = torch.optim.SGD(model.parameters(), lr=0.01), []
    for steps in (20, 50, 5):
        start, batch = copy.deepcopy(model), random_batch(4, 2, steps)
        take_one_gradient_step(model, optimizer, *batch)
        moves.append(flatten(model.parameters()) - flatten(start.parameters()))
        assert is_close_in_length(moves[-1], 0.01 * expected_move(start, *batch), share=1e-2), (
            f"step number {len(moves)} has the gradients of those before in it: optimizer.zero_grad()?"
            if len(moves) > 1
            else "the first step is not that of gradient descent"
        )


def move_of_one_epoch(train_one_epoch, model, script, optimizer, budget=40):
    """Return how an epoch moves the parameters; assert that it takes one gradient step."""
    gradient_steps, before = [], flatten(model.parameters())
    hook = optimizer.register_step_post_hook(lambda *_: gradient_steps.append(1))
    script.begun = []
    train_one_epoch(script, model, optimizer, max_timesteps=budget)
    hook.remove()
    assert script.ended or not script.begun[-1], "the last episode was cut short: play it to its end"
    number, played = len(gradient_steps), sum(map(len, script.begun))
    assert number == 1, f"expected one optimizer step in one epoch, got {number}"
    assert played >= budget, f"a budget of {budget}: it played {played} steps; play until the budget is met"
    assert model.training, "it leaves the model in eval mode: leave it as it came"
    return flatten(model.parameters()) - before


def known_mistakes(script):
    """Return well-known mistakes, each with the observations and weights that it would use."""
    observations, later, _, rewards, lengths = columns(script)
    each = np.split(rewards, lengths.cumsum()[:-1])
    returns = np.repeat([sum(own) for own in each], lengths)
    centered = returns - returns.mean()
    starts = np.repeat(lengths.cumsum() - lengths, lengths)
    to_go = returns - np.concatenate([own.cumsum() - own for own in each])
    return {
        "each step is weighted with its own reward": (observations, rewards),
        "the weights are rewards-to-go": (observations, to_go),
        "the weights are the rewards up to each step": (observations, returns - to_go + rewards),
        "every weight is 1": (observations, np.ones_like(rewards)),
        "each episode is averaged by itself": (observations, returns / np.repeat(lengths, lengths)),
        "the weights are lengths": (observations, np.repeat(lengths, lengths)),
        "the weights are shifted by one step": (observations, np.roll(returns, -1)),
        "every step has the last episode's return": (observations, 0 * returns + returns[-1]),
        "every step has the mean return": (observations, 0 * returns + sum(rewards) / len(each)),
        "the weights are normalized": (observations, centered / returns.std(ddof=1)),
        "the weights are divided by their spread": (observations, centered / returns.std()),
        "the mean of the weights is taken off": (observations, centered),
        "each action goes with the observation after it": (later, returns),
        "all steps of an episode have its first observation": (observations[starts], returns),
    }


def returns_of(script):
    """Return the return of every episode, and the weight of every step."""
    returns = [sum(reward for *_, reward in episode) for episode in script.episodes]
    return returns, np.repeat(returns, [len(episode) for episode in script.episodes])


def expect_mean_return(got, script):
    """Assert that an epoch gave the mean of its episodes' returns."""
    expect_type(got, Real, "the mean return as a number")
    returns, weights = returns_of(script)
    known = {sum(returns): "that is the sum of the returns", np.mean(weights): "that is the mean over all steps"}
    known |= {returns[-1]: "that is the last return", sum(returns) / len(weights): "that is the mean reward"}
    said = f"expected a mean return of {np.mean(returns):.2f}"
    expect_number(got, np.mean(returns), said, known, show=".2f", tolerance=1e-5 * (10 + np.abs(returns).max()))


@claim("train_one_epoch", "plays whole episodes to the budget")
def _(train_one_epoch):
    expect_defaults(train_one_epoch, max_timesteps=5_000)
    # Four episodes, 3 + 2 + 3 + 2, meet a budget of 10 exactly, and one of 9 because the last one is finished.
    for budget in (10, 9):
        lengths = play_one_epoch(train_one_epoch, Script(), vpg_helpers.create_model(4, 2), budget)[-1].tolist()
        known = {13: ": one too many, the budget was met", 9: ": the last episode was cut short"}
        known |= dict.fromkeys((23, 25), ": the budget counts steps, and not episodes")
        assert sum(lengths) == 10, (
            f"a budget of {budget}: expected episodes of 3, 2, 3 and 2 steps, got {lengths}"
            f"{known.get(sum(lengths), '')}"
        )
    expect_budget(train_one_epoch, Script(3, 4, random=True), 120)


@claim("train_one_epoch", "ends an episode that is truncated, too")
def _(train_one_epoch):
    for ends in (Script.ENDS[1:2], Script.ENDS):
        expect_budget(train_one_epoch, Script(3, 4, random=True, ends=ends), 60)


def play_one_epoch(train_one_epoch, script, model, budget):
    """Let an epoch play without learning; return the mean return and what the script wrote down, column by column."""
    script.begun = []
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    return train_one_epoch(script, model, optimizer, max_timesteps=budget), *columns(script)


def expect_budget(train_one_epoch, script, budget):
    """Assert that an epoch stops with the first whole episode that meets its budget."""
    model = vpg_helpers.create_model(script.observation_space.shape[0], script.action_space.n)
    *_, lengths = play_one_epoch(train_one_epoch, script, model, budget)
    assert sum(lengths) >= budget > sum(lengths[:-1]), (
        f"a budget of {budget}: it played {sum(lengths)} steps in {len(lengths)} episodes, the last of "
        f"{lengths[-1]}; play until the budget is met, and finish the last episode"
    )


@claim("train_one_epoch", "plays by the policy")
def _(train_one_epoch):
    # In worlds of several sizes, with policies that are sure of much, or of little.
    for features, sides, budget, spread in [(7, 3, 100, 0.3), (3, 4, 120, 5.0)]:
        script, model = Script(features, sides, random=True), vpg_helpers.create_model(features, sides, 8)
        for _ in range(2):
            before = copy.deepcopy(model)
            redraw(model, spread)  # the second epoch has another policy than the first
            drawn, seed, asked = copy.deepcopy(model), np.random.randint(2**31), watch_questions(model)
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                _, observations, _, actions, _, lengths = play_one_epoch(train_one_epoch, script, model, budget)
                assert torch.initial_seed() == seed, "it seeds torch: every epoch would roll the same dice"
            expect_seen(asked, script)
            assert torch.equal(flatten(model.parameters()), flatten(drawn.parameters())), (
                "the learning rate is 0 and the parameters changed: only the optimizer may move them"
            )
            starts = np.repeat(lengths.cumsum() - lengths, lengths)
            earlier = np.maximum(np.arange(len(observations)) - 1, starts)
            late = "ask with the observation of the moment"
            suspects = {
                f"every step of an episode is played as the first one; {late}": (model, starts),
                f"each step is played by the observation before; {late}": (model, earlier),
                "the model before plays; ask the one that was handed over": (before, slice(None)),
            }
            suspects = {said: log_probabilities_of(asked, observations[at]) for said, (asked, at) in suspects.items()}
            expect_samples(actions, log_probabilities_of(model, observations), suspects)


@claim("train_one_epoch", "returns the mean return")
def _(train_one_epoch):
    for script, budget in [(Script(), 10), (Script(), 9), (Script(3, 4, random=True), 120)]:
        model = vpg_helpers.create_model(script.observation_space.shape[0], script.action_space.n)
        expect_mean_return(play_one_epoch(train_one_epoch, script, model, budget)[0], script)


@claim("train_one_epoch", "weighs each step with its episode's return")
def _(train_one_epoch):
    script, model = Script(), vpg_helpers.create_model(4, 2)
    start, optimizer = copy.deepcopy(model), torch.optim.SGD(model.parameters(), lr=1.0)
    got = move_of_one_epoch(train_one_epoch, model, script, optimizer)
    assert got.abs().max() > 0, "the parameters did not move: backward, and only then step?"
    observations, _, actions, _, _ = columns(script)
    right = expected_move(start, observations, actions, returns_of(script)[1])
    assert not torch.allclose(got, -right, atol=1e-4), "it goes downhill: look at the sign"
    for mistake, (mistaken, weights) in known_mistakes(script).items():
        move = expected_move(start, mistaken, actions, weights)
        assert not torch.allclose(got, move, atol=1e-4), (
            f"{mistake}; expected each step's own observation, weighted with its episode's return"
        )
    unlike = "does the loss have the actions that were played, each with its observation and weight?"
    assert torch.allclose(got, right, atol=1e-4), (
        f"the parameters should move by {right.norm():.4f}, got a move of {got.norm():.4f}: {unlike}"
    )
    # Returns from tiny to huge, of either sign; a policy that is sure of much; more actions and features.
    worlds = [(3, 2, 0.01, 60, 0), (6, 3, 1.0, 1_500, 0), (5, 40, 2_000.0, 60, 0), (2, 2, 1, 1, 0), (3, 4, 1, 1, 501)]
    for features, sides, scale, budget, length in worlds:
        script, model = Script(features, sides, True, scale, length), vpg_helpers.create_model(features, sides, 16)
        start, optimizer = copy.deepcopy(redraw(model, 0.6)), torch.optim.SGD(model.parameters(), lr=1 / scale)
        got = move_of_one_epoch(train_one_epoch, model, script, optimizer, budget)
        observations, _, actions, _, _ = columns(script)
        right = expected_move(start, observations, actions, returns_of(script)[1] / scale)
        assert is_close_in_length(got, right, share=5e-3), (
            f"{len(actions)} steps, {sides} actions, returns up to {np.abs(returns_of(script)[0]).max():.4g}: the "
            f"parameters should move by {right.norm():.4g}, got a move of {got.norm():.4g}, "
            f"{(got - right).norm():.4g} away from it; {unlike} Nothing is clipped, scaled or added."
        )


@claim("train_one_epoch", "takes one fresh gradient step an epoch")
def _(train_one_epoch):
    script, model = Script(), vpg_helpers.create_model(4, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0, momentum=0.5)
    first = move_of_one_epoch(train_one_epoch, model, script, optimizer)
    start = copy.deepcopy(model)
    got = move_of_one_epoch(train_one_epoch, model, script, optimizer)
    settings = optimizer.param_groups[0]
    assert settings["lr"] == 1.0, f"the optimizer came with learning rate 1, and has {settings['lr']} now: leave it"
    observations, _, actions, _, _ = columns(script)
    fresh = expected_move(start, observations, actions, returns_of(script)[1])
    assert not torch.allclose(got, fresh + 1.5 * first, atol=1e-4), (
        "the second epoch's step has the first one's gradient in it: optimizer.zero_grad()?"
    )
    assert not torch.allclose(got, fresh, atol=1e-4), "the optimizer has a memory of the first epoch: do not clear it"
    expected = fresh + 0.5 * first
    assert torch.allclose(got, expected, atol=1e-4), (
        f"the second epoch should move the parameters by {expected.norm():.4f}, got {got.norm():.4f}"
    )
    # Adam remembers more, and a gradient stood there before; a twin takes the same steps.
    model = vpg_helpers.create_model(4, 2)
    twin, optimizer = copy.deepcopy(model), torch.optim.Adam(model.parameters(), lr=0.01)
    adam = torch.optim.Adam(twin.parameters(), lr=0.01)
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, 1e3)
    for epoch in (1, 2, 3):
        before = flatten(twin.parameters())
        got = move_of_one_epoch(train_one_epoch, model, script, optimizer)
        observations, _, actions, _, _ = columns(script)
        adam.zero_grad()
        log_probabilities = log_probabilities_of(twin, observations)[range(len(actions)), actions]
        (-log_probabilities * torch.as_tensor(returns_of(script)[1], dtype=torch.float32)).mean().backward()
        adam.step()
        assert is_close_in_length(got, flatten(twin.parameters()) - before, share=2e-2), (
            f"epoch {epoch} with Adam differs from Adam's own step: clear the gradient that stood there before, and "
            "nothing that the optimizer remembers"
        )


@claim("train", "is decided by its seed")
def _(train):
    expect_defaults(train, epochs=40, max_timesteps=5_000, learning_rate=1e-2, seed=0, after_epoch=None)
    # Where the pole has fallen after one step, the budget is the number of episodes.
    for seed, different in [(5, 1_005), (0, 1)]:
        one, again, other = [
            watch_training(train, "steep", epochs=3, max_timesteps=10, seed=each) for each in (seed, seed, different)
        ]
        number = len(one.mean_returns)
        assert number == 3, f"expected one mean return per epoch, 3, got {number}"
        assert one.gradient_steps, "no optimizer took a step"
        number = len(one.rewards)
        assert number == 30, f"3 epochs, a budget of 10, episodes of 1 step: expected 30 episodes, got {number}"
        assert one.model is not again.model, "two trainings gave the same model: make a new one in every call"
        same = torch.equal(*(flatten(training.model.parameters()) for training in (one, again)))
        assert same and one.starts == again.starts, (
            "the same seed gave two trainings: seed the environment once, and torch before the model is made"
        )
        assert not torch.equal(*(flatten(training.model.parameters()) for training in (one, other))), (
            f"seeds {seed} and {different} gave the same model: is the seed used?"
        )
        assert not {*one.starts} & {*other.starts}, (
            f"seeds {seed} and {different} gave the same starts: hand the seed to env.reset(seed=seed)"
        )
        assert not torch.equal(one.gradient_steps[0].before, other.gradient_steps[0].before), (
            f"seeds {seed} and {different} began with the same model: torch.manual_seed(seed), before it is made"
        )


@claim("train", "seeds everything, once")
def _(train):
    for seed in (5, 0):
        training = watch_training(train, "steep", epochs=3, max_timesteps=10, seed=seed)
        assert len(set(training.starts)) == len(training.starts), (
            "two episodes began exactly alike: seed the environment once, before the loop"
        )
        seeds, dice = [{*kept} for kept in zip(*[step[-2:] for step in training.gradient_steps], strict=True)]
        assert len(seeds) == 1 and len(dice) == 3, "torch is seeded in every epoch: seed it before the loop"


@claim("train", "calls the watcher after every epoch")
def _(train):
    seen, counts, told = [], [], []

    def watcher(model, mean_returns):
        seen.append((model, flatten(model.parameters())))
        counts.append(len(mean_returns))
        told.append(list(mean_returns))

    training = watch_training(train, epochs=3, max_timesteps=30, after_epoch=watcher)
    assert counts == [1, 2, 3], f"expected after_epoch to see 1, 2, 3 mean returns, got {counts}"
    assert all(model is training.model for model, _ in seen), (
        "after_epoch saw another model than the one returned: make it once, and hand on no copies"
    )
    assert told == [list(training.mean_returns[:count]) for count in counts], (
        f"after_epoch saw {told}, and train returned {list(training.mean_returns)}: hand on the returns so far"
    )
    pairs = [(step.after, now) for step, (_, now) in zip(training.gradient_steps, seen, strict=False)]
    assert all(torch.equal(after, now) for after, now in pairs if after.shape == now.shape), (
        "what after_epoch saw is not the model after the epoch's gradient step: change it in no other way"
    )
    expect_mean_returns(training)
    for answer in (True, False):
        training = watch_training(
            train, "steep", epochs=3, max_timesteps=2, after_epoch=lambda *_, answer=answer: answer
        )
        number = len(training.mean_returns)
        assert number == 3, (
            f"after_epoch returned {answer}, and it trained {number} epochs of 3: the watcher only watches"
        )
    for error in (ValueError, KeyboardInterrupt):

        def stop(*_, error=error):
            raise error

        with contextlib.suppress(error):
            watch_training(train, "steep", epochs=3, max_timesteps=2, after_epoch=stop)
            raise AssertionError(f"after_epoch raised {error.__name__}, and train went on: let it through")


def expect_mean_returns(training):
    """Assert that train gave the mean return of every epoch."""
    expected = [float(np.mean(returns)) for returns in training.returns_by_epoch()]
    got = list(training.mean_returns)
    assert len(got) == len(expected) and is_close(got, expected, relative=3e-6), (
        f"expected the mean returns {expected}, got {got}: as they come, one an epoch"
    )


def expect_adam(training, learning_rate, epochs):
    """Assert that the parameters moved as torch's own Adam moves them, with this learning rate in every epoch."""
    number = len(training.gradient_steps)
    assert number == epochs, f"expected one optimizer step an epoch, {epochs}, got {number}"
    assert len({id(step.optimizer) for step in training.gradient_steps}) == 1, (
        "every step looks like Adam's first: make the optimizer once, before the loop"
    )
    first = training.gradient_steps[0]
    held = [parameter for group in first.optimizer.param_groups for parameter in group["params"]]
    assert [*map(id, held)] == [*map(id, training.model.parameters())], (
        f"the optimizer holds {sum(p.numel() for p in held)} parameters, the model has "
        f"{sum(p.numel() for p in training.model.parameters())}: hand it model.parameters(), all of them"
    )
    replay = [torch.zeros_like(gradient).requires_grad_() for gradient in first.gradients]
    adam, place = torch.optim.Adam(replay, lr=learning_rate), flatten(replay)
    for epoch, step in enumerate(training.gradient_steps, start=1):
        for parameter, gradient in zip(replay, step.gradients, strict=True):
            parameter.grad = gradient.clone()
        adam.step()
        expected, place = flatten(replay) - place, flatten(replay)
        moves = step.after - step.before
        assert (moves - expected).abs().max() < 1e-3 * learning_rate, (
            f"epoch {epoch}: the largest move of a parameter is {moves.abs().max() / learning_rate:.3f} learning "
            f"rates, Adam's is {expected.abs().max() / learning_rate:.3f}, and one differs by "
            f"{(moves - expected).abs().max() / learning_rate:.3f}: is it Adam, with this learning rate in "
            "every epoch?"
        )
    for before, after in itertools.pairwise(training.gradient_steps):
        assert torch.equal(before.after, after.before), (
            "between two epochs the parameters changed: only the optimizer may move them"
        )
    assert torch.equal(training.gradient_steps[-1].after, flatten(training.model.parameters())), (
        "the model returned is not the model after the last epoch: hand back what training has made, best or not"
    )


@claim("train", "uses its settings")
def _(train):
    # Long trainings are cheap where every episode has one step.
    for epochs, learning_rate in [(3, 0.03), (60, 1e-3), (12, 0.2)]:
        training = watch_training(train, "steep", epochs=epochs, max_timesteps=2, learning_rate=learning_rate)
        expect_adam(training, learning_rate, epochs)
        size = sum(parameter.numel() for parameter in training.model.parameters())
        assert size == 226, f"its model has {size} parameters, create_model(4, 2) makes 226"
        ready = training.model.training and all(parameter.requires_grad for parameter in training.model.parameters())
        assert ready, "the model comes back frozen, or in eval mode: hand it back as it was made, ready for more"


@claim("train", "plays episodes of 200 steps at most")
def _(train):
    # Where the pole may lean as far as it likes, on an endless track, only the clock ends an episode. The best epoch
    # is the first, and still all of them are trained, told and kept.
    training = watch_training(train, "fading", epochs=12, max_timesteps=1)
    assert training.rewards, 'no CartPole was played: gym.make("CartPole-v1", max_episode_steps=200)'
    lengths = [len(episode) for episode in training.rewards]
    assert set(lengths) == {200}, (
        f"no pole can fall, and the mean return is {max(lengths):g}, expected 200: max_episode_steps?"
    )
    number = len(training.mean_returns)
    assert number == 12, f"the goal was reached at once, and of 12 epochs it trained {number}: stop at none"
    expect_mean_returns(training)
    expect_adam(training, 1e-2, epochs=12)
    training = watch_training(train, "endless", epochs=1, max_timesteps=1_300)
    said = "a budget of 1,300 and episodes of 200 steps: expected 7 episodes"
    expect_value(len(training.rewards), 7, said)
