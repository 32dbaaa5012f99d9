"""A class of students, damaged and dishonest submissions among them, graded by the real nbgrader with our settings."""

import csv
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import nbformat
import pytest
from build.lessons import LESSONS, NOTEBOOKS, code_cells, read
from catalogue import fill_in, references, right_solutions
from graded import points
from nbformat.v4 import new_code_cell
from nbgrader_commands import Command

from vpg_lab.learner import KEPT_FUNCTIONS

NAMES = [path.name for path in LESSONS]
FIRST, SECOND = NAMES[:2]
RIGHT = right_solutions()


class Course:
    """A course folder, driven with nbgrader's commands; students hand in through an exchange, or as files."""

    def __init__(self, folder, lessons, settings="c.Judge.timeout = 10"):
        self.folder, self.lessons = folder, lessons
        self.course, self.submitted = folder / "course", folder / "course/submitted"
        for_class = [sys.executable, NOTEBOOKS / "make.py", "--for-class", self.course / "source/vpg"]
        subprocess.run(for_class, check=True)
        for path in (self.course / "source/vpg").glob("*.ipynb"):
            if path.name not in lessons:
                path.unlink()
        with (self.course / "nbgrader_config.py").open("a") as config:
            print(settings, file=config)
        self.run("generate_assignment", "vpg")

    def start(self, *command, folder=None):
        log = self.folder / f"{'_'.join(command)}.log"
        return Command(list(command), folder or self.course, {"JUPYTER_DATA_DIR": str(self.folder / "data")}, log)

    def run(self, *command, folder=None, ends_with=0):
        self.start(*command, folder=folder).finish(ends_with=ends_with)

    def grades(self):
        """Return the class report, by student; the points as numbers."""
        with (self.course / "class_report_vpg.csv").open() as report:
            return {row["student"]: row | {"total": float(row["total"])} for row in csv.DictReader(report)}

    def lost(self, student):
        """Return the graded cells that gave a student no points."""
        cells = [
            cell
            for name in self.lessons
            for cell in code_cells(read(self.course / "autograded" / student / "vpg" / name))
            if cell.metadata.get("nbgrader", {}).get("grade")
        ]
        return {
            cell.metadata["nbgrader"]["grade_id"]
            for cell in cells
            if any(output.output_type == "error" for output in cell.outputs)
        }


# ---- What students do ------------------------------------------------------------------------------------------------


class Student(NamedTuple):
    """Somebody who hands in a folder: what they did to it, the points due in two lessons, what is noted."""

    did: Callable[[Path], None]
    due: Callable[[dict, dict], int]
    noted: str = "^$"


def cell_of(notebook, identifier):
    (cell,) = [cell for cell in notebook.cells if cell.metadata.get("nbgrader", {}).get("grade_id") == identifier]
    return cell


def solve(folder, **changes):
    """Fill in every notebook of a folder rightly, but for the changes: identifier of the cell -> its source."""
    for path in sorted(folder.glob("*.ipynb")):
        nbformat.write(fill_in(read(path), RIGHT[path.name] | changes), path)


def edit(change):
    """Return what a student does who solves everything, and then changes lesson 2's notebook."""

    def did(folder):
        solve(folder)
        notebook = read(folder / SECOND)
        change(notebook)
        nbformat.write(notebook, folder / SECOND)

    return did


def change_answer(source):
    """Return what a student does who solves everything, but for get_policy."""
    return lambda folder: solve(folder, get_policy=source)


def copy_cell(notebook):
    """The answer to get_policy stands in a copy, with its metadata; the cell that was handed out is blank."""
    place = notebook.cells.index(cell_of(notebook, "get_policy"))
    notebook.cells.insert(place + 1, nbformat.from_dict(json.loads(json.dumps(notebook.cells[place]))))
    notebook.cells[place].source = 'def get_policy(model, observation):\n    raise NotImplementedError("later")'


def delete_cells(*identifiers):
    def change(notebook):
        for identifier in identifiers:
            notebook.cells.remove(cell_of(notebook, identifier))

    return change


def insert_before(identifier, source):
    def change(notebook):
        notebook.cells.insert(notebook.cells.index(cell_of(notebook, identifier)), new_code_cell(source))

    return change


def use_own_cell(notebook):
    insert_before("get_policy", "import functools\n\ndef as_logits(model, x):\n    return model(torch.as_tensor(x))")(
        notebook
    )
    cell_of(
        notebook, "get_policy"
    ).source = "def get_policy(model, observation):\n    return Categorical(logits=as_logits(model, observation))"


def change_set_up(notebook):
    cell_of(notebook, "setup").source += "\ncheck = judge = print"
    for identifier in RIGHT[SECOND]:
        cell_of(notebook, identifier).source = f"{identifier} = None"


def write(name, text):
    """Return what a student does who solves everything, and then writes a file."""

    def did(folder):
        solve(folder)
        (folder / name).write_text(text, encoding="latin-1")

    return did


def call_the_reference(folder):
    solve(
        folder,
        create_model="create_model = vpg.create_model",
        get_policy="from vpg_helpers import get_policy as ready\n\n"
        "def get_policy(*given, **named):\n    return ready(*given, **named)",
    )


def replace_the_judge(folder):
    trick = "import contextlib, vpg_lab.checks.verdicts as verdicts\n"
    trick += "verdicts.checking = lambda *given: contextlib.nullcontext()\n"
    trick += "verdicts.judge = judge = check = print"
    for path in folder.glob("*.ipynb"):
        answers = dict.fromkeys(RIGHT[path.name], trick)
        nbformat.write(fill_in(read(path), answers), path)


ACCEPT = "def __getattr__(name):\n    return lambda *given, **named: print(name)\n"
ACCEPT_HERE = "import vpg_lab.checks.verdicts as verdicts\nverdicts.check = verdicts.judge = print\n"
WEAKEN = """import sys

for name, module in list(sys.modules.items()):
    if name.startswith("vpg_lab.checks.lesson_"):
        vars(module).update((each, print) for each, value in vars(module).copy().items() if callable(value))"""


def bring_modules(folder):
    for name in ("vpg_helpers.py", "vpg_lab/pictures.py", "vpg_lab/checks/__init__.py"):
        (folder / name).unlink(missing_ok=True)
        (folder / name).write_text(ACCEPT)


def bring_more_modules(folder):
    """What Python would import before the course's files, or beside them: folders, and a file of another year."""
    for name in ("vpg_helpers/__init__.py", "vpg_lab/checks/lesson_02/__init__.py", "vpg_lab/checks/lesson_99.py"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(
            "import vpg_lab.checks.verdicts as verdicts\nverdicts.check = verdicts.judge = print\n"
        )


def overwrite_modules(folder):
    """Solve lesson 1, in a cell that writes a judge for lesson 2, which is blank."""
    notebook = fill_in(read(folder / FIRST), RIGHT[FIRST])
    trick = f"import pathlib\npathlib.Path('vpg_lab/checks/__init__.py').write_text({ACCEPT!r})\n"
    cell_of(notebook, "create_model").source += f"\n\n{trick}"
    nbformat.write(notebook, folder / FIRST)


def rename(folder):
    solve(folder)
    (folder / SECOND).rename(folder / "02_policy-Copy1.ipynb")


def move(folder):
    solve(folder)
    shutil.copytree(folder, folder / "vpg", ignore=shutil.ignore_patterns("vpg"))
    for path in folder.glob("*.ipynb"):
        path.unlink()


def whole(first, second):
    return sum(first.values()) + sum(second.values())


def without(*names):
    """Return what is due where the checks of some blanks give nothing."""

    def due(first, second):
        worth = first | {f"second {name}": value for name, value in second.items()}
        return sum(value for name, value in worth.items() if not any(f"check_{each}" in name for each in names))

    return due


def first_only(first, second):
    return sum(first.values())


def before_get_policy(first, second):
    names = list(second)
    return sum(first.values()) + sum(second[name] for name in names[: names.index("check_get_policy_1")])


def nothing(first, second):
    return 0


SWALLOWS = """def get_policy(model, observation):
    while True:
        try:
            while True:
                pass
        except BaseException:
            pass"""
TWICE = references()["get_policy"].replace("logits=logits", "logits=torch.softmax(logits, dim=-1)")
CLASS = {
    "perfect": Student(solve, whole),
    "blank": Student(lambda folder: None, nothing),
    "softmax_twice": Student(change_answer(TWICE), without("get_policy")),
    "broken_syntax": Student(change_answer("def get_policy(model, observation)\n    return"), without("get_policy")),
    "endless": Student(
        change_answer("def get_policy(model, observation):\n    while True:\n        pass"),
        without("get_policy"),
        "get_policy did not end within 10 s",
    ),
    "swallows_interrupts": Student(change_answer(SWALLOWS), without("get_policy"), "get_policy.* would not stop"),
    "kills_kernel": Student(
        change_answer("import os\n\ndef get_policy(model, observation):\n    os._exit(1)"),
        without("get_policy"),
        "get_policy ended the Python process",
    ),
    "copies_cell": Student(edit(copy_cell), whole, "there more than once: get_policy"),
    "deletes_checks": Student(
        edit(delete_cells("check_get_policy_1", "check_get_policy_2", "go_on_get_policy", "setup")),
        whole,
        "deleted and put back: setup, check_get_policy_1, check_get_policy_2, go_on_get_policy",
    ),
    "deletes_answer": Student(
        edit(delete_cells("get_policy")), without("get_policy"), "deleted and put back: get_policy"
    ),
    "own_cells": Student(edit(use_own_cell), whole),
    "endless_own_cell": Student(edit(insert_before("get_policy", "while True:\n    pass")), whole),
    "renames_check": Student(edit(insert_before("get_policy", "check = 3")), whole),
    "warns": Student(
        change_answer("import warnings\n\n" + references()["get_policy"] + "\n\nwarnings.warn('careful')"), whole
    ),
    "text_for_notebook": Student(write(SECOND, "I could not do this one."), first_only, "02_policy is no notebook"),
    "empty_file": Student(write(SECOND, ""), first_only, "02_policy is no notebook"),
    "other_json": Student(write(SECOND, '{"cells": [3], "naïve": 1}'), first_only, "02_policy is no notebook"),
    "misses_one": Student(
        lambda folder: (solve(folder), (folder / SECOND).unlink()), first_only, "NOT GRADED: no 02_policy"
    ),
    "renames_notebook": Student(rename, first_only, "no 02_policy; other notebooks: vpg/02_policy-Copy1.ipynb; rename"),
    "wrong_folder": Student(move, nothing, "other notebooks: vpg/vpg/01_model.ipynb, vpg/vpg/02_policy"),
    "hides_torch": Student(write("torch.py", "raise SystemExit"), whole, "torch.py hides an installed module"),
    "brings_modules": Student(bring_modules, nothing),
    "brings_more_modules": Student(bring_more_modules, nothing),
    "overwrites_modules": Student(overwrite_modules, first_only),
    "calls_reference": Student(call_the_reference, without("create_model", "get_policy")),
    "replaces_judge": Student(replace_the_judge, nothing, "replaced what judges: vpg_lab.checks.verdicts.checking"),
    "weakens_the_checks": Student(
        change_answer(WEAKEN), before_get_policy, "replaced what judges: vpg_lab.checks.lesson_"
    ),
    "changes_set_up": Student(edit(change_set_up), first_only, "changed and put back: setup"),
}
CORE = ["kills_kernel", "copies_cell", "text_for_notebook", "brings_more_modules", "replaces_judge"]


@pytest.mark.parametrize("names", [CORE, pytest.param([*CLASS], marks=pytest.mark.slow)], ids=["core", "whole class"])
def test_every_submission_gets_its_points_or_a_note(tmp_path, names):
    """Handed in as files, as a learning platform gives them; graded side by side, and reported."""
    course = Course(tmp_path, [FIRST, SECOND] if len(names) > len(CORE) else [SECOND])
    for name in names:
        shutil.copytree(course.course / "release/vpg", course.submitted / name / "vpg")
        CLASS[name].did(course.submitted / name / "vpg")
    (course.submitted / "nothing").mkdir()
    first, second = points(FIRST) if FIRST in course.lessons else {}, points(SECOND)
    graded = subprocess.run(
        [sys.executable, "vpg_grading.py", "vpg"], cwd=course.course, capture_output=True, text=True
    )
    said = graded.stdout + graded.stderr
    assert graded.returncode == 1 and re.search("Without a full grade: .*nothing", said), said
    report = course.grades()
    assert set(report) == {*names, "nothing"} and report["nothing"]["look at"] == "NOT GRADED: handed in no notebook"
    table = [
        (name, student.due(first, second), report[name]["total"], report[name]["look at"])
        for name, student in CLASS.items()
        if name in names
    ]
    print(*table, sep="\n")
    for name, due, total, noted in table:
        assert total == due, (name, due, total, noted)
        assert re.search(CLASS[name].noted, noted), (name, noted)


@pytest.mark.slow
def test_six_lessons_through_an_exchange_to_the_page_that_a_student_reads(tmp_path):
    """One account plays teacher and students, and hands in everything right, and everything blank."""
    exchange = tmp_path / "exchange"
    exchange.mkdir()
    exchange.chmod(0o777)
    settings = [
        "c.CourseDirectory.course_id = 'vpg101'",
        f"c.Exchange.root = {str(exchange)!r}",
        "c.ExchangeCollect.check_owner = False",
    ]
    course = Course(tmp_path, NAMES, "\n".join(settings))
    course.run("release_assignment", "vpg")
    for name in ("perfect", "blank"):
        home = tmp_path / name
        home.mkdir()
        (home / "nbgrader_config.py").write_text("\n".join(["c = get_config()", *settings]))
        course.run("fetch_assignment", "vpg", folder=home)
        CLASS[name].did(home / "vpg")
        course.run("submit", "vpg", f"--student={name}", folder=home)
    course.run("collect", "vpg")
    course.run("autograde", "vpg")
    course.run("export")
    worth = sum(sum(points(name).values()) for name in NAMES)
    assert {name: row["total"] for name, row in course.grades().items()} == {"perfect": worth, "blank": 0}
    assert not any(row["look at"] for row in course.grades().values())
    assert course.lost("perfect") == set()
    program = (course.course / "autograded/perfect/vpg/my_agent.py").read_text()
    assert all(f"\ndef {name}(" in program for name in KEPT_FUNCTIONS)
    course.run("generate_feedback", "vpg")
    page = (course.course / "feedback/blank/vpg/02_policy.html").read_text()
    assert page.count("get_policy: not written yet") == 4, "in the summary and below it, for both of its checks"
    course.run("release_feedback", "vpg")
    course.run("fetch_feedback", "vpg", folder=tmp_path / "perfect")
    assert list((tmp_path / "perfect").rglob("02_policy.html"))


@pytest.mark.slow
def test_where_the_project_cannot_be_imported_nothing_is_graded(tmp_path):
    course = Course(tmp_path, [SECOND])
    shutil.copytree(course.course / "release/vpg", course.submitted / "somebody/vpg")
    (course.course / "source/vpg/vpg_lab/checks/__init__.py").write_text("import no_such_module")
    graded = subprocess.run(
        [sys.executable, "vpg_grading.py", "vpg"], cwd=course.course, capture_output=True, text=True
    )
    assert graded.returncode == 1 and "cannot check exercises (ModuleNotFoundError" in graded.stderr
    assert not (course.course / "autograded/somebody/vpg").exists()
