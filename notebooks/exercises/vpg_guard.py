"""What judges stays what the course gave: vpg_judging.py loads this into the kernel, before a submission's first cell.

An answer, or a cell beside it, may put something of its own in the place of a check, or of a function that checks lean
on. Nobody is blamed for that: it is put back before anything is judged. Names are looked up in this module here, so
that a student may call variables as they like, `list` and `id` too.
"""

import builtins
import importlib
import sys
from collections.abc import Iterator

from IPython import get_ipython

__builtins__ = dict(vars(builtins))  # a copy, in case somebody changes the builtins themselves
LIBRARIES = ("torch", "numpy", "math")  # and not the builtins, of which IPython replaces some in every cell
JUDGING = ("vpg_lab.checks", "vpg_lab.learner")
replaced: list[str] = []
_known: list[tuple[str, object, bool, dict]] = []  # where, its holder, whether a library's, name -> (value, its code)


def remember(course: set[str]) -> str:
    """Remember what stands behind the names of the course's modules and of libraries; return where vpg_helpers is."""
    for name in JUDGING:
        importlib.import_module(name)
    for where, holder in [*_holders(course)]:
        is_library = where.startswith(LIBRARIES)
        functions = {
            name: (value, getattr(value, "__code__", None))
            for name, value in _items(holder).items()
            # PyTorch changes classes of its own with the default type of numbers.
            if callable(value) and not (is_library and isinstance(value, type))
        }
        _known.append((where, holder, is_library, functions))
    get_ipython().ask_exit = lambda: None  # quit() ends the kernel, and only some time after its own cell
    return importlib.import_module("vpg_helpers").__file__


def put_back():
    """Put back what was replaced since; leave its names in `replaced`, four at most, the course's first."""
    replaced.clear()
    for where, holder, is_library, functions in _known:
        if isinstance(holder, type(sys)) and sys.modules.get(where) is not holder:
            sys.modules[where] = holder
            replaced.append(where)
        now = _items(holder)
        for name, (value, code) in functions.items():
            found = now.get(name)
            if found is value and getattr(found, "__code__", None) is code:
                continue
            if is_library and found is not value and _origin(found) == _origin(value):
                continue  # PyTorch replaces functions of its own when its compiler is imported
            if code is not None:
                value.__code__ = code
            if isinstance(holder, dict):
                holder[name] = value
            else:
                setattr(holder, name, value)
            replaced.append(f"{where}.{name}")
    replaced.sort(key=lambda name: name.startswith(LIBRARIES))
    del replaced[4:]


def _holders(course: set[str]) -> Iterator[tuple[str, object]]:
    """Yield modules, the course's classes, torch.Tensor and the tables of claims, each with its name."""
    for name, module in [*sys.modules.items()]:
        if name in LIBRARIES:
            yield name, module
        elif name.partition(".")[0] in course:
            yield name, module
            classes = [value for value in vars(module).values() if isinstance(value, type)]
            yield from ((f"{name}.{each.__name__}", each) for each in classes if each.__module__ == name)
    yield "torch.Tensor", sys.modules["torch"].Tensor
    yield from sys.modules["vpg_lab.checks"].CLAIMS.items()


def _items(holder: object) -> dict:
    return holder if isinstance(holder, dict) else vars(holder)


def _origin(value: object) -> str:
    return str(getattr(value, "__module__", "")).partition(".")[0]
