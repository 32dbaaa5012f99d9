"""Do the checks judge right, every time? Print, for each exercise, refused and accepted answers and seconds.

    python tests/benchmarks/verdicts.py              # twenty rounds, each with other random numbers
    python tests/benchmarks/verdicts.py --rounds 1 train get_action   # two exercises

Wrong answers must be refused with their own message, right ones accepted, in every round.
"""

import argparse
import contextlib
import io
import re
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import torch

TESTS = Path(__file__).parents[1]
sys.path[:0] = [str(TESTS), str(TESTS.parent / "notebooks")]

from catalogue import Stage, read_catalogue, references  # noqa: E402


def count(stage, answers):
    """Return how many of the answers get the verdict that they should."""
    judged = 0
    for answer in answers:
        said = next(filter(None, stage.judge(answer.code)), "")
        right = bool(said and re.search(answer.said, said)) if answer.said else not said
        if not right:
            print(f"{answer.exercise}: {answer.label}: {said or 'accepted'}", file=sys.stderr)
        judged += right
    return judged


def main():
    """Judge both catalogues round after round."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("exercises", nargs="*")
    parser.add_argument("--rounds", type=int, default=20)
    arguments = parser.parse_args()
    rounds, exercises = arguments.rounds, arguments.exercises or references()
    warnings.simplefilter("ignore")  # of mistakes that PyTorch itself frowns at
    wrong, right = read_catalogue("wrong_answers.txt"), read_catalogue("right_answers.txt")
    totals = np.zeros(4, int)
    print(f"{'exercise':30}{'wrong refused':>16}{'right accepted':>16}{'check, s (longest)':>20}")
    for exercise, reference in references().items():
        if exercise not in exercises:
            continue
        stage, sums, longest = Stage(exercise), np.zeros(4, int), 0.0
        mistakes = [answer for answer in wrong if answer.exercise == exercise]
        styles = [answer for answer in right if answer.exercise == exercise]
        for number in range(rounds):
            np.random.seed(1_000 + number)
            torch.manual_seed(2_000 + number)
            with contextlib.redirect_stdout(io.StringIO()):
                sums += count(stage, mistakes), len(mistakes), count(stage, styles), len(styles)
                start = time.perf_counter()
                list(stage.judge(reference))
                longest = max(longest, time.perf_counter() - start)
        totals += sums
        print(f"{exercise:30}{sums[0]:>8} / {sums[1]:<5}{sums[2]:>8} / {sums[3]:<5}{longest:>20.2f}")
    unlikely = [answer for answer in read_catalogue("adversary.txt") if answer.exercise in exercises]
    with contextlib.redirect_stdout(io.StringIO()):
        refused = sum(any(Stage(answer.exercise).judge(answer.code)) for answer in unlikely)
    print(f"{'all':30}{totals[0]:>8} / {totals[1]:<5}{totals[2]:>8} / {totals[3]:<5}")
    print(f"answers that no student would write: {refused} of {len(unlikely)} refused")
    sys.exit(int(totals[0] != totals[1] or totals[2] != totals[3]))


if __name__ == "__main__":
    main()
