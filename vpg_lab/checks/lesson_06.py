"""Lesson 6: intervals by the bootstrap, and rewards-to-go."""

import numpy as np

from vpg_lab.checks.expect import case, expect_defaults, expect_reference, expect_shape, mistakes, name_mistake
from vpg_lab.checks.verdicts import claim


def bounds(curves, repetitions=2_000, seed=0, size=None, cuts=(2.5, 97.5), mean=np.mean, first=0, last=None):
    """Return the interval, or what a draw of another size, other cuts, or other seeds to draw from make of it."""
    shape = repetitions, size or len(curves)
    drawn = np.random.default_rng(seed).integers(first, last or len(curves), shape)
    return np.percentile(mean(curves[drawn], axis=1), cuts, axis=0)


@mistakes("bootstrap_interval")
def intervals_gone_wrong(curves, *settings):
    def other(**changes):
        return lambda: bounds(curves, *settings, **changes)

    mean, error, seeds = curves.mean(axis=0), curves.std(axis=0) / np.sqrt(len(curves)), len(curves)
    spread = np.percentile(curves, [2.5, 97.5], axis=0)
    return {
        "draw with replacement": np.array([mean, mean]),
        "as wide as the curves are spread; take the mean of every draw first": spread,
        "take the mean of every draw, not the median": other(mean=np.median),
        "that is a 90 % interval; cut off 2.5 % on either side": other(cuts=(5, 95)),
        "np.percentile takes 2.5 and 97.5, not 0.025 and 0.975": other(cuts=(0.025, 0.975)),
        "the low bound comes first": other(cuts=(97.5, 2.5)),
        "that is one standard deviation of the means; take their percentiles": np.array([mean - error, mean + error]),
        "draw as many as there are seeds, not half of them": other(size=seeds // 2),
        "draw as many as there are seeds, not one fewer": other(size=seeds - 1),
        "draw as many as there are seeds; 32 is written in": other(size=32),
        "draw, do not use ±": np.array([mean - 1.96 * error, mean + 1.96 * error]),
        "draw, do not use ± and n - 1": mean + np.outer([-1.96, 1.96], error * np.sqrt(seeds / (seeds - 1))),
        "mirrored at the mean; take the percentiles as they are": lambda: 2 * mean - bounds(curves, *settings)[::-1],
        "the last seed is never drawn; integers(n) leaves n out by itself": other(last=seeds - 1),
        "the first seed is never drawn; seeds are counted from 0": other(first=1),
    }


def ask_interval(function, curves, *settings):
    interval, shape = function(curves, *settings), (2, *curves.shape[1:])
    known = {
        "that is one interval a seed; draw seeds, and take the mean over them": (2, len(curves)),
        "np.percentile and mean go over all numbers where they have no axis": (2,),
        "a row of lows and a row of highs; turn it round": shape[::-1],
    }
    mistake = name_mistake(known, lambda wrong: np.shape(interval) == wrong)
    expect_shape(interval, shape, f"curves of shape {curves.shape} should give shape {shape}, got {{}}{mistake}")
    return np.array(interval)


@claim("bootstrap_interval")
def interval_has_the_right_width(bootstrap_interval):
    def ask(function, curves, repetitions):
        interval, mean = ask_interval(function, curves, repetitions), curves.mean(axis=0)
        fixed = np.array_equal(*interval) and not np.allclose(interval[0], mean)
        assert not fixed, "every draw is the same: make the generator once, before the loop"
        # The mean over many epochs is sharp to 1 % or so; numbers that are not symmetric tell draws from a formula.
        return ((interval - mean) / curves.std(axis=0)).mean(axis=1) * np.sqrt(len(curves))

    cases, scales = [], np.logspace(-4, 4, 60)
    for seeds in (30, 12):
        curves = scales * np.random.default_rng().exponential(size=(seeds, 60))
        cases.append(case(f"{seeds} seeds, low and high bound in standard errors from the mean:", curves, 3_000))
    hint = "take percentiles 2.5 and 97.5 of means, one of every draw over its seeds"
    expect_reference(bootstrap_interval, bounds, intervals_gone_wrong, cases, ask, "", hint, tolerance=0.025)
    expect_defaults(bootstrap_interval, repetitions=2_000, seed=0)


@claim("bootstrap_interval", "keeps to the numbers that it has")
def interval_is_made_of_means_of_draws(bootstrap_interval):
    # How often the hundred is drawn is binomial: at most 3 times with 98.9 %, at most 2 times with 93.3 %. The chance
    # that 8,000 draws give a percentile elsewhere is below 1e-9.
    cases = [case("seven zeros and a hundred, in eight orders:", 100 * np.eye(8), 8_000)]
    cases.append(case("seven hundreds and a zero, in eight orders:", 100 - 100 * np.eye(8), 8_000))
    hint = "take percentiles 2.5 and 97.5 of means of eight draws, from all eight, with replacement"
    expect_reference(bootstrap_interval, bounds, intervals_gone_wrong, cases, ask_interval, "", hint)
    curves, dice = np.random.default_rng().normal(0, 100, size=(15, 3)), str(np.random.get_state())
    seeds = [*range(6), *range(6)]
    intervals = [ask_interval(bootstrap_interval, curves, 2_000, seed).tobytes() for seed in seeds]
    assert intervals[:6] == intervals[6:], "the same seed gave two intervals: np.random.default_rng(seed)"
    assert len({*intervals}) == 6, "two seeds gave the same interval: is the seed used?"
    low, high = ask_interval(bootstrap_interval, curves, 1)
    assert np.array_equal(low, high), "a single draw has a single mean: is repetitions used?"
    if dice != str(np.random.get_state()):
        print("Right, but it rolls NumPy's global dice, which are everyone's: np.random.default_rng(seed) has its own.")


def sums_from_each_step_on(rewards):
    return np.array([rewards[step:].sum() for step in range(len(rewards))])


@mistakes("reward_to_go")
def weights_gone_wrong(rewards):
    right, so_far, steps = sums_from_each_step_on(rewards), np.cumsum(rewards), np.arange(len(rewards))
    discounts = np.triu(0.99 ** np.abs(steps - steps[:, None]))
    return {
        "that is the whole return; leave out what came before the step": np.full(len(rewards), rewards.sum()),
        "those are the rewards up to each step; sum from the step on": so_far,
        "each step's own reward belongs to it, it comes after the action": right - rewards,
        "the sums are right and their order is turned round": right[::-1],
        "those are the rewards up to each step, turned round": so_far[::-1],
        "later rewards are discounted by 0.99; they count in full": discounts @ rewards,
        "those are means; take sums": right / (len(rewards) - steps),
        "the sums are normalized; give them as they are": (right - right.mean()) / right.std(),
        "the sums are normalized by n - 1; give them as they are": (right - right.mean()) / right.std(ddof=1),
        "the first step's own sum is missing": np.append(rewards[:1], right[1:]),
        "an array of whole numbers keeps no fractions": np.trunc(right),
    }


@claim("reward_to_go")
def weights_are_sums_from_each_step_on(reward_to_go):
    def ask(function, rewards):
        weights = function(rewards)
        expect_shape(weights, rewards.shape, f"expected one weight per step, {len(rewards)}, got shape {{}}")
        return weights

    cases = [case("for rewards 1, 2, 4", np.array([1.0, 2.0, 4.0])), case("for 0.5, 0.25", np.array([0.5, 0.25]))]
    for steps, scale in [(200, 1), (2, 1e-3), (500, 1e4), (7, 1e6)]:
        rewards = scale * np.random.default_rng().normal(size=steps) * (np.arange(steps) % 3 != 1)
        cases.append(case(f"for {steps} random rewards", rewards))
    expect_reference(reward_to_go, sums_from_each_step_on, weights_gone_wrong, cases, ask)
