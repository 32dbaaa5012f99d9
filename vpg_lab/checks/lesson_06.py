"""Lesson 6: intervals by the bootstrap, and rewards-to-go."""

import numpy as np

from vpg_lab.checks.expect import expect_defaults, expect_shape, expect_value
from vpg_lab.checks.verdicts import claim


@claim("bootstrap_interval")
def _(bootstrap_interval):
    expect_defaults(bootstrap_interval, repetitions=2_000, seed=0)
    # For 100 numbers from a bell curve the interval is close to the mean ± 1.96 standard errors.
    curves = np.random.default_rng().normal(50, 10, size=(100, 10))
    interval = bootstrap_interval(curves)
    assert interval is not None, "got None"
    expect_shape(interval, (2, 10), "100 seeds and 10 epochs should give shape (2, 10), got {}: draw seeds, not epochs")
    low, high = np.asarray(interval)
    assert np.all(low <= high), "the low bound comes first"
    expected = 2 * 1.96 * curves.std(axis=0) / np.sqrt(100)
    ratio = np.mean((high - low) / expected)
    known = [
        (0.0, 0.01, ": it has no width; draw with replacement"),
        (0.15, 0.4, ": np.percentile takes 2.5 and 97.5, not 0.025 and 0.975"),
        (0.45, 0.6, ": a 95 % interval has two on either side"),
        (0.78, 0.92, ": that is a 90 % interval; cut off 2.5 % on either side"),
        (1.6, 1.95, ": does each draw have 32 seeds? Take as many as there are"),
        (5.0, 50.0, ": as wide as the curves are spread; take the mean of every draw first"),
    ]
    mistakes = [mistake for lowest, highest, mistake in known if lowest <= ratio < highest]
    said = f"expected ± 1.96 standard errors, got {1.96 * ratio:.2f} of them{''.join(mistakes)}"
    assert 0.92 < ratio < 1.08, said
    assert np.all(np.abs((low + high) / 2 - curves.mean(axis=0)) < expected / 4), "not at the mean"


@claim("bootstrap_interval", "keeps to the numbers that it has")
def _(bootstrap_interval):
    low, high = bootstrap_interval(np.full(20, 7.0))
    assert abs(low - 7) < 1e-9 and abs(high - 7) < 1e-9, f"twenty sevens gave {low} to {high}"
    # The mean of a draw is never below zero, and now and then the hundred is drawn twice.
    low, high = bootstrap_interval(np.array([0.0] * 19 + [100.0]))
    assert low >= 0, f"nineteen zeros and a hundred gave a low bound of {low:.1f}: draw, do not use ±"
    assert high > 0, "nineteen zeros and a hundred gave 0 to 0: is the last seed ever drawn?"
    assert 5 <= high <= 25, f"nineteen zeros and a hundred: expected a high bound near 15, got {high}"
    # How often the hundred is drawn is binomial: at most 3 times with 98.4 %, at most 2 times with 92.5 %.
    # The chance that 8,000 draws give a percentile elsewhere is below 1e-9.
    low, high = bootstrap_interval(100 * np.eye(20), repetitions=8_000)
    for place, bounds in enumerate(zip(low, high, strict=True)):
        assert bounds == (0, 15), (
            f"nineteen zeros and a hundred at place {place}: expected 0 to 15, got {bounds[0]} to {bounds[1]}; draw "
            "twenty of the twenty, each as likely as the others, with replacement"
        )
    curves = np.random.default_rng().normal(0, 100, size=(15, 3))
    dice = np.random.get_state()[1].tobytes(), *np.random.get_state()[2:]
    first, again = [[np.array(bootstrap_interval(curves, seed=seed)).tobytes() for seed in range(6)] for _ in range(2)]
    assert first == again, "the same seed gave two intervals: np.random.default_rng(seed)"
    assert len({*first}) == 6, "two seeds gave the same interval: is the seed used?"
    assert dice == (np.random.get_state()[1].tobytes(), *np.random.get_state()[2:]), (
        "it seeds or rolls NumPy's global dice, which are everyone's: np.random.default_rng(seed)"
    )
    low, high = bootstrap_interval(curves, repetitions=1)
    assert np.array_equal(low, high), "a single draw has a single mean: is repetitions used?"
    # More draws, and more columns, tiny and huge, make the same comparison sharp: 2 % and 98 % are 4.8 % too wide.
    means = 5 * (-1) ** np.arange(25)  # in spreads, above and below zero
    curves = np.random.default_rng().normal(means, 1, size=(40, 25)) * np.logspace(-4, 4, 25)
    low, high = bootstrap_interval(curves, repetitions=6_000)
    expected = 1.96 * curves.std(axis=0) / np.sqrt(40)
    for bound, name in [(curves.mean(axis=0) - low, "low"), (high - curves.mean(axis=0), "high")]:
        ratio = np.mean(bound / expected)
        assert 0.97 < ratio < 1.03, (
            f"the {name} bound lies {1.96 * ratio:.3f} standard errors from the mean, expected 1.96: cut off 2.5 % on "
            "either side"
        )
    # Of 2,041 means the 52nd from either side is the bound, so that it is a mean of whole numbers itself.
    sums = 20 * np.array(bootstrap_interval(np.random.randint(10**6, size=(20, 9)).astype(float), repetitions=2_041))
    assert np.allclose(sums, sums.round(), rtol=0, atol=1e-3), (
        "of 2,041 draws the bounds lie between two means: take as many draws as repetitions says"
    )


@claim("reward_to_go")
def _(reward_to_go):
    got = tuple(float(weight) for weight in reward_to_go(np.array([1.0, 2.0, 4.0])))
    assert len(got) == 3, f"expected one weight per step, 3, got {len(got)}"
    expect_value(
        got,
        (7, 6, 4),
        "expected (7, 6, 4)",
        {
            (7, 7, 7): "that is the whole return; leave out what came before the step",
            (1, 3, 7): "those are the rewards up to each step; sum from the step on",
            (6, 4, 0): "each step's own reward belongs to it, it comes after the action",
            (4, 6, 7): "the sums are right and their order is turned round",
            (7, 3, 1): "those are the rewards up to each step, turned round",
        },
    )
    got = np.asarray(reward_to_go(np.array([0.5, 0.25])), dtype=float).tolist()
    expect_value(got, [0.75, 0.25], "for rewards 0.5, 0.25 expected [0.75, 0.25]")
    random, answers = np.random.default_rng(), []
    for steps, scale in [(200, 1), (1, 1), (2, 1e-3), (500, 1e4), (7, 1e6)]:
        rewards = scale * random.normal(size=steps)
        rewards[1::3] = 0
        expected = [rewards[step:].sum() for step in range(steps)]
        answers.append((reward_to_go(rewards), expected, scale))
    # Compared at the end: an answer must not change when another one is given.
    for got, expected, scale in answers:
        expect_shape(got, (len(expected),), f"{len(expected)} rewards gave weights of shape {{}}")
        assert np.allclose(got, expected, rtol=1e-6, atol=1e-6 * scale), (
            f"for {len(expected)} random rewards it differs"
        )
