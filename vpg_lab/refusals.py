"""How bad input is refused: with what was given, and what to give."""

import contextlib
import math

import numpy as np
from torch.distributions import Distribution


def is_whole(number, low, high):
    return isinstance(number, (int, np.integer)) and not isinstance(number, bool) and low <= number < high


def refuse_bad_counts(**counts):
    for name, count in counts.items():
        if not is_whole(count, 1, math.inf):
            raise ValueError(f"{name} is {count!r}; give a whole number, 1 or more")


@contextlib.contextmanager
def without_validation():
    """Make distributions that do not look for nan in their parameters, which costs a fifth of a gradient step."""
    Distribution.set_default_validate_args(False)
    try:
        yield
    finally:
        Distribution.set_default_validate_args(__debug__)  # PyTorch's own default
