"""What judges: `check` says whether an answer does what its exercise claims, `judge` whether a choice is right.

One file a lesson says what its exercises must do, and which mistakes people make.
"""

import importlib
import pkgutil

from vpg_lab.checks.verdicts import CLAIMS, CheckFailed, NotWrittenYet, check, judge

__all__ = ["CLAIMS", "CheckFailed", "NotWrittenYet", "check", "judge"]

if not __debug__:
    raise ImportError(
        "Python runs without assertions (-O, PYTHONOPTIMIZE), so nothing can be checked: start it without"
    )

# Each lesson's file registers its claims. A notebook that works alone brings its own lesson's along, and no other.
for _module in sorted(each.name for each in pkgutil.iter_modules(__path__) if each.name.startswith("lesson_")):
    importlib.import_module(f"{__name__}.{_module}")
