"""The file that keeps a learner's functions, and what later lessons use of it."""

import ast
import builtins
import importlib.util
import inspect
import itertools
import linecache
import os
import re
import symtable
from collections.abc import Callable
from pathlib import Path

import vpg_helpers
from vpg_lab.checks.verdicts import CLAIMS, add_references, passed, stand_ins, unseal

# The functions that an agent is made of: what a learner writes of these is kept and used by later lessons.
KEPT_FUNCTIONS = ("create_model", "get_policy", "get_action", "calculate_loss", "train_one_epoch", "train")

LEARNERS_FILE = Path("my_agent.py")  # beside the notebook, which is where its kernel works
_HEADER = '''"""My own agent: the exercise notebooks write each of the six functions here once it has passed its checks.

What you change here is used as it is and not checked again. The version before is in my_agent.previous.py; to begin
anew, delete both. Once all six are here, `python my_agent.py` trains the agent.
"""

import copy
import math
import time
from collections.abc import Callable

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor, nn
from torch.distributions import Categorical
'''
_PROGRAM = """if __name__ == "__main__":
    train(epochs=80, after_epoch=lambda model, mean_returns: print(len(mean_returns), round(mean_returns[-1], 1)))
"""


def go_on(name: str, namespace: dict, sealed_reference: str):
    """Go on with the learner's function, and keep it, if it passed its checks; with the reference if not.

    namespace is the notebook's globals().
    """
    function = namespace.get(name)
    if passed.get(function, set()) >= set(CLAIMS[name]):
        print(f"{name}: yours from here on.", keep(name, function) if name in KEPT_FUNCTIONS else "")
    else:
        exec(unseal(sealed_reference), namespace)
        stand_ins.add(namespace[name])
        print(f"{name}: the reference from here on. Once yours passes its check, run this cell again.")


def keep(name: str, function: Callable) -> str:
    """Write one of the kept functions, with what else its cell defines, to LEARNERS_FILE; return what was done.

    The file is replaced in one move, and the version before stays beside it as my_agent.previous.py. A function
    that leans on another cell would not work there: it is not written, and the returned sentence says so.
    """
    _run_learners_file({})
    before = LEARNERS_FILE.read_text(encoding="utf-8") if LEARNERS_FILE.exists() else ""
    header, sections = _cut_into_sections(before)
    try:
        sections[name] = _definitions(name, function)
        _refuse_unknown_names(name, header, sections)
    except ValueError as error:
        return f"Not kept: {error}."
    parts = [header, *(f"\n# ---- {each} ----\n\n{sections[each]}" for each in KEPT_FUNCTIONS if each in sections)]
    if all(each in sections for each in KEPT_FUNCTIONS):
        parts.append(f"\n# ---- program ----\n\n{sections.get('program', _PROGRAM)}")
    text = "".join(parts)
    if before and text != before:
        _replace(LEARNERS_FILE.with_suffix(".previous.py"), before)
    if text != before:
        _replace(LEARNERS_FILE, text)
    return f"Kept in {LEARNERS_FILE}."


def _replace(path, text):
    new = path.with_suffix(".new")
    new.write_text(text, encoding="utf-8")
    os.replace(new, path)


def _cut_into_sections(text):
    """Return the header and the sections, {name: source}, of what the learner's file holds."""
    header, *rest = re.split(r"^\n# ---- (\w+) ----\n\n", text or _HEADER, flags=re.M)
    return header, dict(zip(rest[::2], rest[1::2], strict=True))


def _run_learners_file(given):
    """Execute the learner's file on top of the names given, and return all names; set a file that fails aside."""
    namespace = given | {"__name__": LEARNERS_FILE.stem}
    if not LEARNERS_FILE.exists():
        return namespace
    try:
        exec(compile(LEARNERS_FILE.read_text(encoding="utf-8"), str(LEARNERS_FILE), "exec"), namespace)
        return namespace
    except Exception as error:
        numbers = itertools.count(1)
        aside = next(path for n in numbers if not (path := LEARNERS_FILE.with_suffix(f".broken-{n}.py")).exists())
        os.replace(LEARNERS_FILE, aside)
        print(
            f"{LEARNERS_FILE} does not run ({type(error).__name__}: {error}). It is now {aside}; nothing is lost: "
            f"run your cells and their checks again, or mend it and copy its functions into a new {LEARNERS_FILE}."
        )
        return given


def _definitions(name, function):
    """Return the part of a function's cell that defines something: imports, functions, classes, what they use."""
    code = getattr(inspect.unwrap(function), "__code__", None)
    lines = linecache.getlines(code.co_filename) if code else []
    tree = ast.parse("".join(lines))
    named = {name} | {node.id for part in tree.body if _defines(part) for node in ast.walk(part) if _is_name(node)}
    kept = []
    for part in tree.body:
        targets = {node.id for node in ast.walk(part) if _is_name(node) and isinstance(node.ctx, ast.Store)}
        if _defines(part) or (isinstance(part, (ast.Assign, ast.AnnAssign)) and targets & named):
            first = min([part.lineno, *(decorator.lineno for decorator in getattr(part, "decorator_list", []))])
            kept.append("".join(lines[first - 1 : part.end_lineno]).rstrip() + "\n")
    if not kept:
        raise ValueError(f"{name} was not defined in a notebook cell")
    return "\n".join(kept)


def _defines(part):
    return isinstance(part, (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.ClassDef))


def _is_name(node):
    return isinstance(node, ast.Name)


def _refuse_unknown_names(name, header, sections):
    """Refuse a section that uses what the file does not define, or that would redefine what another one uses."""
    imported = {"__name__": LEARNERS_FILE.stem}
    try:
        exec(header, imported)
        namespace = dict(imported)
        for each in KEPT_FUNCTIONS:
            own = dict(imported)
            exec(sections.get(each, ""), own)
            new = {key: own[key] for key in own.keys() - imported.keys()}
            both = [key for key in new if namespace.get(key, new[key]) is not new[key]]
            if both:
                raise ValueError(f"{name}'s cell and another one both define {', '.join(both)}; rename one")
            namespace.update(new)
    except NameError as error:
        raise ValueError(f"{error}: import or define it in the cell of {name}") from None
    missing = sorted(_outside_names(sections[name]) - {*namespace, *dir(builtins), *KEPT_FUNCTIONS})
    if "vpg" in missing:
        raise ValueError(f"{name} calls functions of vpg; write get_policy, say, and not vpg.get_policy")
    if missing:
        raise ValueError(f"{name} uses {', '.join(missing)} of another cell; define it in the cell of {name}")


def _outside_names(source):
    """Return the names that a piece of code uses and does not make itself."""
    top = symtable.symtable(source, "cell", "exec")
    tables, used = [top], set()
    for table in tables:  # the list grows while it is walked
        tables += table.get_children()
        used |= {each.get_name() for each in table.get_symbols() if each.is_referenced() and each.is_global()}
    return used - {each.get_name() for each in top.get_symbols() if each.is_assigned() or each.is_imported()}


def with_my_functions(*names: str):
    """Return a module like vpg_helpers in which the functions named are the learner's own, where the file has them.

    Whatever else the module holds, train_seeds say, calls the learner's functions too, and theirs call each other.
    """
    specification = importlib.util.spec_from_file_location("vpg_with_my_functions", vpg_helpers.__file__)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    # A namespace apart for the learner's cells, so that a helper of theirs may have any name.
    reference = {name: getattr(module, name) for name in KEPT_FUNCTIONS}
    add_references(reference.values())
    own = _run_learners_file(reference)
    mine = [name for name in names if own[name] is not reference[name]]
    for name in mine:
        setattr(module, name, own[name])
    others = ", ".join(name for name in names if name not in mine)
    print(f"Yours: {', '.join(mine) or 'none'}. The reference: {others or 'none'}.")
    return module
