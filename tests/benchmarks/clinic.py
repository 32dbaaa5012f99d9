"""What lesson 10 would take too long to run; all on seeds that none of its thresholds was set with (below 1,000).

python tests/benchmarks/clinic.py doctor    # how often `diagnose` is right
python tests/benchmarks/clinic.py curves    # what the curve says after 40 epochs
python tests/benchmarks/clinic.py numbers   # what single numbers of the log find, and pairs of them
python tests/benchmarks/clinic.py silent    # which of the silent bugs a number of the log sets apart
python tests/benchmarks/clinic.py onward    # ten steps a batch, with PPO's loss and with GRPO's baseline
python tests/benchmarks/clinic.py bonus     # a bonus for entropy, of several sizes
"""

import argparse
import collections
import itertools
import sys
import time
from pathlib import Path

import numpy as np

TESTS = Path(__file__).parents[1]
sys.path[:0] = [str(TESTS), str(TESTS.parent / "notebooks")]

from catalogue import Stage  # noqa: E402

from vpg_lab import clinic  # noqa: E402
from vpg_lab.intervals import share_interval  # noqa: E402

SOUND = "healthy", "slow"


def mean_interval(values):
    """Return the 95 % interval of a mean over seeds, by bootstrap."""
    values = np.asarray(values)
    draws = np.random.default_rng(0).integers(len(values), size=(4_000, len(values)))
    return np.percentile(values[draws].mean(axis=1), [2.5, 97.5])


def ends(recipe, seeds):
    """Return the mean return of five epochs, for every seed: up to the tenth, and up to the fortieth and last."""
    curves = np.array([[each.played.returns.mean() for each in epoch] for epoch in clinic.train(recipe, seeds, 40)])
    return curves[5:10].mean(axis=0), curves[35:].mean(axis=0)


def doctor(seed=2_000):
    """Diagnose 8 fresh runs of each bug and 20 of each sound recipe."""
    lesson = Stage("diagnose").open()
    named, accused, bugs, sound = 0, 0, 0, 0
    for name, recipe in clinic.RECIPES.items():
        start = time.process_time()
        runs = lesson["make_runs"](recipe, range(seed, seed + (20 if name in SOUND else 8)))
        seconds = (time.process_time() - start) / len(runs)
        said = collections.Counter(map(lesson["diagnose"], runs))
        print(f"{name:20} {seconds:5.2f} s a run  {dict(said)}", flush=True)
        if name in SOUND:
            sound, accused = sound + len(runs), accused + len(runs) - said["healthy"]
        else:
            bugs, named = bugs + len(runs), named + said[name]
    for what, count, total in [("sick runs named", named, bugs), ("sound runs accused", accused, sound)]:
        low, high = share_interval(count, total)
        print(f"{what}: {count} of {total} ({low:.1%} to {high:.1%})")


def curves(seeds=range(3_000, 3_008)):
    """Print where 40 epochs end, and which recipes end below every healthy run.

    Expected, from four other seeds: all bugs but N by N value loss and ten steps a batch do; slow does, too. Of the
    silent ones, expected before they were run: three of the five end within 10 of healthy.
    """
    _, healthy = ends(clinic.sound, seeds)
    for name, recipe in {**clinic.RECIPES, **clinic.SILENT}.items():
        last = healthy if name == "healthy" else ends(recipe, seeds)[1]
        low, high = mean_interval(last)
        below = (last < healthy.min()).sum()
        print(
            f"{name:20} {last.mean():4.0f} ({low:.0f} to {high:.0f}), seeds {last.min():.0f} to {last.max():.0f}; "
            f"{below} of {len(seeds)} below every healthy one",
            flush=True,
        )


def run_means(recipes, seeds):
    """Return the mean of every number of the log from the third epoch on: name -> (runs, fields)."""
    make_runs = Stage("diagnose").open()["make_runs"]
    return {name: np.array(make_runs(recipe, seeds))[:, :, 2:].mean(axis=2) for name, recipe in recipes.items()}


def numbers(seeds=range(4_100, 4_108), sound_seeds=range(100, 116)):
    """Count the runs in which the mean of a number lies outside of the range of sound runs with other seeds.

    A bug is found where that holds of 7 of 8 runs. (Asked for the single epochs instead, half of them outside of the
    range of sound epochs, on seeds 4000 to 4007: gradient_norm 6 bugs, with explained_variance 7, no pair above 9.)
    Expected: gradient_norm finds most, 8 or more; no pair finds all 13.
    """
    fields = Stage("diagnose").open()["Run"]._fields
    sound = np.concatenate([*run_means({name: clinic.RECIPES[name] for name in SOUND}, sound_seeds).values()])
    low, high = sound.min(axis=0) - 1e-4, sound.max(axis=0) + 1e-4
    outside = {name: (means < low) | (means > high) for name, means in run_means(clinic.RECIPES, seeds).items()}
    bugs = [name for name in clinic.RECIPES if name not in SOUND]
    for size, most in ((1, len(fields)), (2, 12)):
        rows = []
        for chosen in itertools.combinations(range(len(fields)), size):
            count = {name: seen[:, chosen].any(axis=1).sum() for name, seen in outside.items()}
            missed = [bug for bug in bugs if count[bug] < len(seeds) - 1]
            names = " or ".join(fields[each] for each in chosen)
            rows.append((sum(count[bug] for bug in bugs), names, missed, sum(count[name] for name in SOUND)))
        for runs, names, missed, accused in sorted(rows, key=lambda row: -row[0])[:most]:
            least, most_share = share_interval(int(runs), len(bugs) * len(seeds))
            print(
                f"{names:36} {len(bugs) - len(missed):2} bugs, {runs} of {len(bugs) * len(seeds)} sick runs "
                f"({least:.0%} to {most_share:.0%}), {accused} of {2 * len(seeds)} sound; misses: {', '.join(missed)}"
            )


def silent(seeds=range(5_000, 5_020)):
    """Print how well each number's mean over a run sets a silent bug apart from healthy: 0.5 not at all, 1 always.

    And in how many runs the largest entry of a start comes back to the last digit; expected: in all with the same
    seeds, and in none else.
    """
    lesson = Stage("diagnose").open()
    fields = lesson["Run"]._fields
    for name, recipe in {"healthy": clinic.sound, **clinic.SILENT}.items():
        again = sum(len({*run.start}) < len(run.start) for run in lesson["make_runs"](recipe, seeds))
        print(f"{name:22} a start comes back in {again} of {len(seeds)} runs")
    means = run_means({"healthy": clinic.sound} | clinic.SILENT, seeds)
    healthy = means.pop("healthy")
    for name, sick in means.items():
        above = (sick[:, None] > healthy).mean(axis=(0, 1)) + (sick[:, None] == healthy).mean(axis=(0, 1)) / 2
        order = np.argsort(-np.abs(above - 0.5))[:3]
        best = ", ".join(
            f"{fields[each]} {max(above[each], 1 - above[each]):.3f} ({sick[:, each].mean():.2f} against "
            f"{healthy[:, each].mean():.2f})"
            for each in order
        )
        print(f"{name:22} {best}", flush=True)


def compare(recipes, seeds):
    """Print where trainings stand after 10 and after 40 epochs, and the difference to the first, seed by seed."""
    first = None
    for name, recipe in recipes.items():
        results = ends(recipe, seeds)
        first = first or results
        for epochs, scores, sound in zip((10, 40), results, first, strict=True):
            (low, high), (least, most) = mean_interval(scores), mean_interval(scores - sound)
            print(
                f"{name:36} epoch {epochs}: {scores.mean():4.0f} ({low:.0f} to {high:.0f}), worst {scores.min():.0f}; "
                f"{(scores - sound).mean():+.0f} ({least:+.0f} to {most:+.0f})",
                flush=True,
            )


def onward(seeds=range(6_000, 6_012)):
    """Compare; expected: ten clipped steps are far ahead of one at epoch 10 and as good at 40; the group rises, too."""
    ten = clinic.RECIPES["ten steps a batch"]
    group = clinic.sound._replace(finish=clinic.group_baseline)
    recipes = {
        "one step": clinic.sound,
        "ten steps": ten,
        "ten steps, clipped": ten._replace(policy_loss=clinic.clipped_loss),
        "one step, the group's baseline": group,
        "ten, clipped, the group's baseline": group._replace(gradient_steps=10, policy_loss=clinic.clipped_loss),
    }
    compare(recipes, seeds)


def bonus(seeds=range(7_000, 7_012)):
    """Compare sizes of an entropy bonus, beside weights as they are and beside normalized ones.

    Expected: 0.1 and 1 change nothing that 12 seeds show, 10 costs. Normalized weights have a spread of 1 and not of
    many steps: there 0.01 changes nothing that 12 seeds show, and 0.1 and 1 cost.
    """

    def with_bonus(size, normalize=False):
        def loss(policy, actions, weights, noted):
            if normalize:
                weights = (weights - weights.mean()) / (weights.std() + 1e-8)
            return clinic.policy_loss(policy, actions, weights, noted) - size * policy.entropy().mean()

        return clinic.sound._replace(policy_loss=loss)

    programs = {f"bonus {size:g}": with_bonus(size) for size in (0, 0.1, 1, 10)}
    normalized = {f"normalized, bonus {size:g}": with_bonus(size, True) for size in (0, 0.01, 0.1, 1)}
    compare(programs, seeds)
    compare(normalized, seeds)


def main():
    """Read what to measure, and measure it."""
    parts = {part.__name__: part for part in (doctor, curves, numbers, silent, onward, bonus)}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=parts)
    parts[parser.parse_args().what]()


if __name__ == "__main__":
    main()
