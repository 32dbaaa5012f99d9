"""Run an answer to an exercise through its checks, as a notebook would; read the catalogues of answers.

An answer is code. In wrong_answers.txt, right_answers.txt and adversary.txt each begins with a line of the form

    # ==== name of the exercise | what it is | what the first failing check must say (wrong answers)

and goes on with the code, or with lines that begin with `- ` and `+ `: what changes in the lesson's own code.
"""

import contextlib
import io
import linecache
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from build.lessons import LESSONS, check_lines, check_of, exercise_name, exercises_of, has_tag, questions_of, read
from IPython import get_ipython
from nbformat import NotebookNode

from vpg_lab.checks import CheckFailed

FOLDER = Path(__file__).parent


class Answer(NamedTuple):
    """An answer to an exercise: its code, and a pattern for what the check must say of it (empty: it passes)."""

    exercise: str
    label: str
    code: str
    said: str


def references() -> dict[str, str]:
    """Return the lessons' own code of every exercise."""
    return {name: cell.source for path in LESSONS for name, cell in exercises_of(read(path)).items()}


def read_catalogue(name: str) -> list[Answer]:
    """Return the answers of a catalogue."""
    parts = re.split(r"^# ==== (.+)\n", (FOLDER / name).read_text(encoding="utf-8"), flags=re.M)[1:]
    answers, known = [], references()
    for header, code in zip(parts[::2], parts[1::2], strict=True):
        exercise, label, *said = (part.strip() for part in header.split(" | "))
        code = code.strip("\n")
        if re.match(r"[-+] ", code):
            code = change(known[exercise], code)
        answers.append(Answer(exercise, label, code, said[0] if said else ""))
    return answers


def change(source: str, lines: str) -> str:
    """Replace each run of `- ` lines, which must occur once, by the `+ ` lines behind it."""
    for block in re.findall(r"(?:^- .*\n?)+(?:^\+ .*\n?)*", lines + "\n", flags=re.M):
        old = "".join(line[2:] + "\n" for line in block.splitlines() if line.startswith("- "))
        new = "".join(line[2:] + "\n" for line in block.splitlines() if line.startswith("+ "))
        if (source + "\n").count(old) != 1:
            raise ValueError(f"occurs {(source + chr(10)).count(old)} times, must once:\n{old}")
        source = (source + "\n").replace(old, new).rstrip("\n")
    return source


class Stage:
    """The lesson of one exercise, ready to judge answers: its set-up cells, the exercises before it, its checks."""

    def __init__(self, exercise: str):
        (lesson,) = [lesson for lesson in map(read, LESSONS) if exercise in exercises_of(lesson)]
        _, check = check_of(lesson, exercise)
        before = lesson.cells[: lesson.cells.index(check)]
        self.exercise = exercise
        self.cells = [cell for cell in before if any(has_tag(cell, tag) for tag in ("setup", "given", "exercise"))]
        self.checks = check_lines(check.source)

    def open(self, code: str | None = None) -> dict:
        """Return what the lesson has defined before the check, with this answer in the place of its own, if given."""
        namespace = {"__name__": "__main__"}
        for cell in self.cells:
            is_answer = has_tag(cell, "exercise") and exercise_name(cell) == self.exercise
            run(code if is_answer and code is not None else cell.source, namespace)
        return namespace

    def judge(self, code: str) -> Iterator[str]:
        """Yield what every check says of an answer: an empty string where it passes."""
        namespace = self.open(code)
        for check in self.checks:
            try:
                run(check, namespace)
                yield ""
            except CheckFailed as failure:
                yield str(failure)


def right_solutions() -> dict[str, dict[str, str]]:
    """Return what fills each blank of the edition rightly: notebook -> grade_id -> source of the cell."""
    solutions = {}
    for path in LESSONS:
        lesson = read(path)
        solutions[path.name] = {name: cell.source for name, cell in exercises_of(lesson).items()}
        for question in questions_of(lesson):
            solutions[path.name][question["name"]] = f'{question["name"]} = "{question["answer"]}"'
    return solutions


def fill_in(notebook: NotebookNode, solutions: dict[str, str]) -> NotebookNode:
    """Write solutions, by grade_id, into the cells of an exercise notebook that are meant for them."""
    for cell in notebook.cells:
        grading = cell.metadata.get("nbgrader", {})
        if grading.get("solution") and grading["grade_id"] in solutions:
            cell.source = solutions[grading["grade_id"]]
    return notebook


class _Module:
    """What IPython takes for the module of a notebook's cells: something that has a namespace."""


def run(code, namespace):
    """Execute code so that error messages can quote its lines, as a notebook cell's; by IPython, where one runs."""
    if shell := get_ipython():
        shell.user_module, shell.user_ns = _Module(), namespace
        shell.user_module.__dict__ = namespace
        shell.init_user_ns()
        with contextlib.redirect_stdout(io.StringIO()):  # IPython shows errors there, and they are raised here
            result = shell.run_cell(code)
        return result.raise_error()
    name = f"<cell {hash(code)}>"
    linecache.cache[name] = len(code), None, code.splitlines(keepends=True), name
    exec(compile(code, name, "exec"), namespace)
