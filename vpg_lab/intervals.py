"""What a count of successes says of their share."""

import math

from vpg_lab.refusals import is_whole, refuse_bad_counts


def share_interval(successes: int, trials: int) -> tuple[float, float]:
    """Return Wilson's 95 % interval for a share, such as of seeds that reach 180.

    Raises ValueError where trials is below 1, or successes is no whole number from 0 to trials.
    Source: E. B. Wilson, Probable Inference, the Law of Succession, and Statistical Inference, JASA 22 (1927).
    """
    refuse_bad_counts(trials=trials)
    if not is_whole(successes, 0, trials + 1):
        raise ValueError(f"{successes} successes in {trials} trials; give a count, 0 to {trials}")
    z, share = 1.96, successes / trials
    center, spread = share + z**2 / (2 * trials), z * math.sqrt(share * (1 - share) / trials + (z / (2 * trials)) ** 2)
    return max(0.0, (center - spread) / (1 + z**2 / trials)), min(1.0, (center + spread) / (1 + z**2 / trials))
