"""Where a learner stands in the exercise edition, how one exercise begins anew, and what six functions are good for."""

import ast
import contextlib
import io
import json
import linecache
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from IPython import get_ipython

from vpg_lab.checks.verdicts import CLAIMS, passed
from vpg_lab.learner import AGENT, SHELVES, VPG, kept_in, set_aside, with_my_functions
from vpg_lab.pictures import Animation, animate_episode


class Standing(NamedTuple):
    """What a notebook's saved checks say: for every exercise and question whether it is done, and the points."""

    title: str
    functions: dict[str, bool]
    questions: dict[str, bool]
    points: int
    most_points: int


def progress() -> None:
    """Print what is done in each exercise notebook of this folder, what is kept of it, and what comes next.

    It reads the notebooks as they were last saved; what passed in this kernel counts, saved or not.
    """
    standings = {path: _read_standing(path) for path in sorted(Path.cwd().glob("[0-9][0-9]_*.ipynb"))}
    standings = {path: each for path, each in standings.items() if each.functions}
    if not standings:
        print("No exercise notebook lies in this folder; progress() reads those that are saved beside this one.")
    for each in standings.values():
        functions, questions = (f"{sum(done.values())} of {len(done)}" for done in (each.functions, each.questions))
        points = f"{each.points} of {each.most_points} points"
        print(f"{each.title:24s} {functions} functions, {questions} questions, {points}")
    for shelf in (AGENT, VPG):
        try:
            if kept := kept_in(shelf):
                print(f"Kept in {shelf.file}: {', '.join(kept)}.")
        except ValueError as error:
            print(f"{error}.")
    left = [(name, path) for path, each in standings.items() for name, done in each.functions.items() if not done]
    if left:
        print(f"Next: {left[0][0]}, in {left[0][1].name}.")
    elif standings:
        print("Every function of every notebook here is done.")


def _read_standing(path):
    """Return what a notebook says; a check that printed, and did not raise, has passed."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    now = {function.__name__ for function, claims in passed.items() if claims >= {*CLAIMS.get(function.__name__, "-")}}
    functions, questions, points, most_points = {}, {}, 0, 0
    for cell in cells:
        grading = cell["metadata"].get("nbgrader", {})
        name = grading.get("grade_id", "")
        if "exercise" in cell["metadata"].get("tags", []):
            functions[name] = True
        if not grading.get("points"):
            continue
        kinds = [output["output_type"] for output in cell["outputs"]]
        exercise = re.fullmatch(r"check_(\w+)_\d+", name)
        done = bool(kinds) and "error" not in kinds
        if exercise and exercise[1] in functions:
            done = done or exercise[1] in now
            functions[exercise[1]] &= done
        else:
            questions[name.removeprefix("check_")] = done
        points, most_points = points + done * grading["points"], most_points + grading["points"]
    title = re.match(r"# ([^:\n]*)", "".join(cells[0]["source"])) if cells else None
    return Standing(title[1] if title else path.stem, functions, questions, points, most_points)


# ---- Begin anew ------------------------------------------------------------------------------------------------------


def begin_anew(name: str) -> None:
    """Print an exercise's blank, to be put into its cell; set aside what is kept of it, in a file of its own.

    Raises ValueError for a name that is no exercise here, where neither this kernel nor the file has the function, and
    where the file is no Python.
    """
    if name not in {*CLAIMS, *SHELVES}:
        raise ValueError(f"{name!r} is no exercise; give one of {', '.join({**CLAIMS, **SHELVES})}")
    section = kept_in(SHELVES[name]).get(name, "") if name in SHELVES else ""
    cell = _cell_of(get_ipython().user_ns.get(name) if get_ipython() else None)
    source = _definition_of(name, cell) or _definition_of(name, section)
    if not source:
        raise ValueError(f"{name} was not run here yet, so its cell is as it was")
    if section:
        print(f"{set_aside(name)} has your version; {SHELVES[name].file} has none now.")
    print(f"Put this into the cell of {name}, and run it:\n\n{blank(source)}")


def _cell_of(function: Callable | None) -> str:
    """Return the code of the cell, or of the file, that a function or a class was defined in."""
    methods = [function, *vars(function).values()] if isinstance(function, type) else [function]
    files = [method.__code__.co_filename for method in methods if hasattr(method, "__code__")]
    return "".join(linecache.getlines(files[0])) if files else ""


def _definition_of(name, cell):
    """Return the source of one function or class of a cell, "" where the cell has none."""
    lines = "\n".join("" if line.startswith(("%", "!")) else line for line in cell.splitlines())
    for statement in ast.parse(lines).body:
        if isinstance(statement, (ast.FunctionDef, ast.ClassDef)) and statement.name == name:
            return ast.get_source_segment(lines, statement)
    return ""


def blank(source: str) -> str:
    """Return a function's signature and docstring, with a body that is not written yet.

    Of a class every method is left so, and what stands above the first one stays.
    Raises ValueError where a function has no docstring.
    """
    (exercise,) = ast.parse(source).body
    methods = [part for part in exercise.body if isinstance(part, ast.FunctionDef)]
    lines, kept, written = source.splitlines(), [], 0
    for function in methods if isinstance(exercise, ast.ClassDef) else [exercise]:
        docstring = function.body[0]
        if not (isinstance(docstring, ast.Expr) and isinstance(docstring.value, ast.Constant)):
            raise ValueError(f"{function.name} has no docstring; the exercise would not say what is asked for")
        indent = " " * docstring.col_offset
        kept += lines[written : docstring.end_lineno]
        kept.append(f'{indent}raise NotImplementedError("{exercise.name} is not written yet")')
        written = function.end_lineno
    return "\n".join(kept)


# ---- Six of six ------------------------------------------------------------------------------------------------------


def celebrate(epochs: int = 80) -> Animation | None:
    """Return an episode of the learner's own agent, trained with the six functions of their file; say so in one line.

    Where functions are missing, the line says which, and there is nothing to see yet.
    """
    kept = kept_in(AGENT)
    if missing := [name for name in AGENT.names if name not in kept]:
        print(
            f"{len(kept)} of 6 functions are kept in {AGENT.file}. Once {', '.join(missing)} is, your agent plays here."
        )
        return None
    start = time.perf_counter()
    with contextlib.redirect_stdout(io.StringIO()):
        mine = with_my_functions(*AGENT.names)
    (model,) = mine.train_seeds([0], epochs=epochs).models
    (episode,) = mine.collect_episodes(mine.make_cartpoles(1), [model], [np.random.default_rng(3)], max_timesteps=1)
    seconds, steps = time.perf_counter() - start, len(episode.observations) - 1
    print(
        f"Six of six. Your own functions learned this in {seconds:.0f} s: the pole stays up for {steps} of 200 steps. "
        f"`python {AGENT.file}` trains your agent without a notebook."
    )
    return animate_episode(episode.observations, "Your own agent")
