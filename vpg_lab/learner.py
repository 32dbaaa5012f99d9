"""The files that keep what a learner wrote, and what later lessons use of them."""

import ast
import builtins
import contextlib
import importlib.util
import io
import itertools
import linecache
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from vpg_lab.cells import FUTURE, lines_inside, names_of, section_of
from vpg_lab.checks.verdicts import CLAIMS, CheckFailed, add_references, check_as, passed, stand_ins, unseal

HOME = Path.cwd()  # until a cell goes elsewhere: beside the notebook, which is where its kernel works
OLDER = "# ---- older versions ----\n"


class Shelf(NamedTuple):
    """A file in which functions of the learner's are kept, and the module that has them all."""

    file: Path
    names: tuple[str, ...]
    module: str
    given: tuple[str, ...]  # what else of the module the functions may call
    header: str
    program: str  # at the end, once all functions are there


AGENT = Shelf(
    Path("my_agent.py"),
    ("create_model", "get_policy", "get_action", "calculate_loss", "train_one_epoch", "train"),
    "vpg_helpers",
    (),
    '''"""My own agent: the exercise notebooks write each of the six functions here once it has passed its checks.

What you change or add here is used as it is. A function that passes its checks again takes the place of what stands
between its two lines; the version before is in my_agent.previous.py, older ones as comments below it. To begin anew,
delete both. Once all six are here, `python my_agent.py` trains the agent.
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
''',
    """
# ---- program ----

if __name__ == "__main__":
    train(epochs=80, after_epoch=lambda model, mean_returns: print(len(mean_returns), round(mean_returns[-1], 1)))
""",
)
VPG = Shelf(
    Path("my_vpg.py"),
    ("discount_cumsum", "gae", "finish_path", "train_vpg"),
    "vpg_lab.companion",
    ("finish_paths", "descend", "play_on", "Settings", "WHOLE"),
    '''"""My own Vanilla Policy Gradient: lesson 8 writes each of its functions here once it has passed its checks.

What you change or add here is used as it is, in lesson 9 for one, together with what lesson 8 gives: play_on,
finish_paths, descend and the settings. The version before is in my_vpg.previous.py, older ones as comments below it; to
begin anew, delete both.
"""

import functools
import itertools
from collections.abc import Callable

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor, nn

import vpg_helpers as vpg
''',
    "",
)
SHELVES = {name: shelf for shelf in (AGENT, VPG) for name in shelf.names}
KEPT_FUNCTIONS = AGENT.names


def go_on(name: str, namespace: dict, sealed_reference: str):
    """Go on with the learner's function, and keep it, if it passed its checks; with the reference if not.

    namespace is the notebook's globals().
    """
    function = namespace.get(name)
    if passed.get(function, set()) >= set(CLAIMS[name]):
        print(f"{name}: yours from here on.", keep(name, function) if name in SHELVES else "")
    else:
        exec(unseal(sealed_reference), namespace)
        stand_ins.add(namespace[name])
        print(f"{name}: the reference from here on. Once yours passes its check, run this cell again.")


def keep(name: str, function: Callable) -> str:
    """Write one of the kept functions, with what it needs of its cell, to its file; return what was done.

    It is run from there before it takes the place of an older version, and must pass its checks; what cannot be kept
    so is not written, and the returned sentence says why. Whatever else stands in the file stays, and the version
    before is kept beside it.
    """
    shelf, reasons = SHELVES[name], []
    try:
        given = _functions_of(shelf, _load_module(shelf))
        for whole in (False, True):  # a second time with all of its cell but what tries the function out
            try:
                _keep_section(shelf, name, section_of(name, function, whole), given)
                return f"Kept in {shelf.file if Path.cwd() == HOME else shelf.file.resolve()}."
            except ValueError as error:
                reasons.append(error)
        return f"Not kept: {reasons[0]}."
    except OSError as error:
        return f"Not kept: {error}."


def _keep_section(shelf, name, section, given):
    """Write a section to the file once it works from there."""
    while True:  # until no other notebook has written meanwhile
        _run_file(shelf, given)
        before = _read(shelf.file)
        after = _put(shelf, name, section, before)
        _refuse_what_does_not_work(shelf, name, section, after, given)
        with _locked(shelf.file):
            if _read(shelf.file) == before:
                if before and after != before:
                    _keep_before(shelf.file.with_suffix(".previous.py"), before)
                if after != before:
                    _replace_file(shelf.file, after)
                return


# ---- The file --------------------------------------------------------------------------------------------------------


def _put(shelf, name, section, text):
    """Return the file's text with a function's section in the place of its older one; all else stays as it is."""
    text = text or shelf.header
    if section.startswith(FUTURE):
        section = section.removeprefix(FUTURE)
        if FUTURE not in text:
            ends = ast.parse(text).body[0].end_lineno if ast.get_docstring(ast.parse(text)) else 0
            lines = text.split("\n")
            text = "\n".join([*lines[:ends], *[""] * bool(ends), FUTURE.strip(), *lines[ends:]])
    new = f"# ---- {name} ----\n\n{section}\n# ---- end of {name} ----\n"
    sections = _sections(text)
    if name in sections:
        begin, end = sections[name]
        text = text[:begin] + new + text[end:]
    else:
        later = [*shelf.names[shelf.names.index(name) + 1 :], "program"]
        place = min((sections[each][0] for each in later if each in sections), default=len(text))
        text = f"{text[:place].rstrip()}\n\n{new}" + ("\n" + text[place:] if place < len(text) else "")
    complete = {*shelf.names} <= {*_sections(text)} and "__main__" not in text
    return text + shelf.program * complete


def _sections(text):
    """Return where each section begins and ends: {name: (place, place)}.

    A heading stands between statements. A section ends with a line of its own; in older files, with the next heading.
    """
    ends = list(itertools.accumulate((len(line) + 1 for line in text.split("\n")), initial=0))
    inside = lines_inside(ast.parse(text).body)
    headings = [
        (heading[1], number)
        for number, line in enumerate(text.split("\n"), 1)
        if (heading := re.fullmatch(r"# ---- (.+) ----", line)) and number not in inside
    ]
    lines, found = dict(reversed(headings)), {}
    for label, number in headings:
        following = min((n for _, n in headings if n > number), default=len(ends))
        last = lines.get(f"end of {label}", following - 1)
        if not label.startswith("end of "):
            found.setdefault(label, (ends[number - 1], ends[last]))
    return found


def kept_in(shelf: Shelf) -> dict[str, str]:
    """Return what the learner's file holds of each function, in the order of the lessons.

    Raises ValueError where the file is no Python.
    """
    text = _read(shelf.file)
    try:
        sections = _sections(text)
    except SyntaxError as error:
        raise ValueError(f"{shelf.file} is no Python in line {error.lineno} ({error.msg}); mend it there") from None
    return {name: text[slice(*sections[name])] for name in shelf.names if name in sections}


def set_aside(name: str) -> Path:
    """Move a function's section from the learner's file to a file of its own; return that one."""
    file = SHELVES[name].file
    paths = (file.with_suffix(f".{name}-{number}.py") for number in itertools.count(1))
    with _locked(file):
        text, aside = _read(file), next(path for path in paths if not path.exists())
        begin, end = _sections(text)[name]
        aside.write_text(text[begin:end], encoding="utf-8", newline="\n")
        _replace_file(file, text[:begin] + text[end:].removeprefix("\n"))
    return aside


def _read(path):
    return path.read_text(encoding="utf-8-sig") if path.exists() else ""


def _replace_file(path: Path, text: str):
    """Replace a file in one move, with the rights that it had; raises OSError where it cannot, and leaves it then."""
    path = path.resolve()  # a link stays one
    new = path.with_suffix(f".{os.getpid()}.new")
    try:
        new.write_text(text, encoding="utf-8", newline="\n")
        if path.exists():
            shutil.copymode(path, new)
        os.replace(new, path)
    finally:
        new.unlink(missing_ok=True)


def _keep_before(path, before):
    """Write the version before; sections of the one before that, where they are other ones, stay below as comments."""
    version, _, archive = _read(path).partition(OLDER)
    try:
        places = _sections(version).values()
    except SyntaxError:  # somebody has written in it
        places = [(0, len(version))]
    for begin, end in places:
        if version[begin:end] not in before:
            archive += "".join(f"# | {line}\n" for line in version[begin:end].split("\n"))
    _replace_file(path, before + ("\n" + OLDER + archive if archive else ""))


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Let one notebook write at a time; a lock that stays the same for two seconds is that of a dead kernel."""
    lock, seen, since = path.resolve().with_suffix(".lock"), None, 0.0
    while True:
        try:
            os.close(os.open(lock, os.O_CREAT | os.O_EXCL))
            break
        except FileExistsError:
            with contextlib.suppress(FileNotFoundError):
                if seen != (made := lock.stat().st_mtime_ns):
                    seen, since = made, time.monotonic()
                elif time.monotonic() > since + 2:
                    lock.unlink()
            time.sleep(0.02)
    try:
        yield
    finally:
        lock.unlink(missing_ok=True)


def _run(shelf, text, given):
    """Execute the learner's file on top of the functions given, and return all names."""
    name, namespace = str(shelf.file), given | {"__name__": shelf.file.stem}
    linecache.cache[name] = len(text), None, text.splitlines(keepends=True), name  # for messages that quote a line
    exec(compile(text, name, "exec", dont_inherit=True), namespace)
    return namespace


def _run_file(shelf, given):
    """Execute the file as it stands, and return all names; set a file that fails aside.

    Raises OSError where it cannot be read or set aside.
    """
    file = shelf.file
    source = file.read_bytes() if file.exists() else b""
    try:
        return _run(shelf, source.decode("utf-8-sig"), given)
    except (Exception, SystemExit) as error:
        said = f"{file} does not run ({type(error).__name__}: {error})"
        numbers = itertools.count(1)
        aside = next(path for n in numbers if not (path := file.with_suffix(f".broken-{n}.py")).exists())
        try:
            os.replace(file, aside)
        except OSError as refused:
            raise OSError(f"{said}, and cannot be set aside ({refused})") from None
        print(
            f"{said}. It is now {aside}; nothing is lost: run your cells and their checks again, or mend it and copy "
            f"its functions into a new {file}."
        )
        return given


def _refuse_what_does_not_work(shelf, name, section, text, given):
    """Refuse a section that does not pass its checks from the file, or redefines what another section uses."""
    made, sections = _definitions_of(section), _sections(text)
    for other in {*shelf.names} & {*sections} - {name}:
        theirs = _definitions_of(text[slice(*sections[other])])
        both = [each for each in made if theirs.get(each, made[each]) != made[each]]
        if both:
            raise ValueError(f"{name}'s cell and that of {other} define {', '.join(both)} in two ways; rename one")
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            namespace = _run(shelf, text, given)
    except Exception as error:
        said = f"{type(error).__name__}: {error}"
        raise ValueError(f"{said}; import or define it in the cell of {name}") from None
    reads = set().union(*(names_of(each)[1] for each in ast.parse(section).body))
    python = {*dir(builtins)} - {"display", "get_ipython"}  # IPython's own: a program has them not
    lacking = sorted(reads - {*namespace} - python)
    if lacking == ["vpg"]:
        raise ValueError(f"{name} calls functions of vpg; write get_policy, say, and not vpg.get_policy")
    if lacking:
        raise ValueError(f"{name} uses {', '.join(lacking)} of elsewhere; define or import it in the cell of {name}")
    end = text.count("\n", 0, sections[name][1])
    again = [each.lineno for each in ast.parse(text).body if each.lineno > end and name in names_of(each)[0]]
    if again:
        raise ValueError(f"line {again[-1]} of {shelf.file} defines {name} again, below its section; take that away")
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            check_as(name, namespace[name])
    except CheckFailed as failure:
        raise ValueError(f"from the file it does not pass its check: {failure}") from None


def _definitions_of(source):
    """Return the code that makes each name of a section, in a form that two cells can be compared by."""
    made = {}
    for statement in ast.parse(source).body:
        for name in names_of(statement)[0]:
            made[name] = made.get(name, "") + ast.dump(statement)
    return made


# ---- What later lessons use ------------------------------------------------------------------------------------------


def _load_module(shelf):
    """Return another copy of a shelf's module, whose functions can be replaced without anybody else noticing."""
    name = f"{shelf.module.rpartition('.')[2]}_with_my_functions"
    specification = importlib.util.spec_from_file_location(name, importlib.util.find_spec(shelf.module).origin)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    add_references(vars(module).values())
    return module


def _functions_of(shelf, module):
    return {name: getattr(module, name) for name in shelf.names + shelf.given}


def with_my_functions(*names: str):
    """Return a module like vpg_helpers in which the functions named are the learner's own, where the file has them.

    Where the names are lesson 8's, a module like vpg_lab.companion. Whatever else the module holds, train_seeds say,
    calls the learner's functions too, and theirs call each other.
    """
    shelf = SHELVES[names[0]]
    module = _load_module(shelf)
    # A namespace apart for the learner's cells, so that a helper of theirs may have any name.
    reference = _functions_of(shelf, module)
    try:
        own = _run_file(shelf, reference)
    except OSError as error:
        print(f"{shelf.file} is not used: {error}.")
        own = reference
    mine = [name for name in names if own[name] is not reference[name]]
    for name in mine:
        setattr(module, name, own[name])
    others = ", ".join(name for name in names if name not in mine)
    elsewhere = "" if Path.cwd() == HOME else f" (of {shelf.file.resolve()})"
    print(f"Yours{elsewhere}: {', '.join(mine) or 'none'}. The reference: {others or 'none'}.")
    return module
