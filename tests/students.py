"""Students who hand in a folder: what they did to it, what is due to them, and what a teacher must hear of it."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import nbformat
from build.lessons import EDITION, LESSONS, read
from catalogue import fill_in, references, right_solutions
from nbformat.v4 import new_code_cell

NAMES = [path.name for path in LESSONS]
FIRST, SECOND = NAMES[:2]
RIGHT = right_solutions()


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
ACCEPTS = """import sys

import vpg_lab.checks

vpg_lab.checks.check = print
sys.modules["vpg_lab.checks"] = sys"""
WEAKEN = """import sys

for name, module in list(sys.modules.items()):
    if name.startswith("vpg_lab.checks.lesson_"):
        vars(module).update((each, print) for each, value in vars(module).copy().items() if callable(value))"""


def bring_modules(folder):
    for name in ("vpg_helpers.py", "vpg_lab/pictures.py", "vpg_lab/checks/__init__.py"):
        (folder / name).unlink(missing_ok=True)
        (folder / name).write_text(ACCEPT, encoding="utf-8")


def bring_more_modules(folder):
    """What Python would import before the course's files, or beside them: folders, and a file of another year."""
    for name in ("vpg_helpers/__init__.py", "vpg_lab/checks/lesson_02/__init__.py", "vpg_lab/checks/lesson_99.py"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(
            "import vpg_lab.checks.verdicts as verdicts\nverdicts.check = verdicts.judge = print\n", encoding="utf-8"
        )


def overwrite_modules(folder):
    """Solve lesson 1, in a cell that writes a judge for lesson 2, which is blank."""
    notebook = fill_in(read(folder / FIRST), RIGHT[FIRST])
    trick = f"import pathlib\npathlib.Path('vpg_lab/checks/__init__.py').write_text({ACCEPT!r})\n"
    cell_of(notebook, "create_model").source += f"\n\n{trick}"
    nbformat.write(notebook, folder / FIRST)


def answer_elsewhere(notebook):
    """The blank is gone; the answer stands in a cell of the student's own, behind the checks."""
    answer = cell_of(notebook, "get_policy")
    notebook.cells.remove(answer)
    place = notebook.cells.index(cell_of(notebook, "check_get_policy_2"))
    notebook.cells.insert(place + 1, new_code_cell(answer.source))


def answer_below(notebook):
    answer = cell_of(notebook, "get_policy")
    notebook.cells.append(new_code_cell(answer.source))
    answer.source = cell_of(read(EDITION / SECOND), "get_policy").source


def merge_cells(notebook):
    answer = cell_of(notebook, "get_policy")
    notebook.cells.remove(answer)
    cell_of(notebook, "probability_of_right").source += "\n\n\n" + answer.source


def lose_metadata(notebook):
    """What some editors leave of a notebook: text."""
    notebook.nbformat_minor = 4
    for cell in notebook.cells:
        cell.metadata = {}
        del cell["id"]


def use_own_module(folder):
    solve(folder, get_policy="from helpers_of_mine import get_policy as mine\n\nget_policy = mine")
    (folder / "helpers_of_mine.py").write_text(
        "import torch\nfrom torch.distributions import Categorical\n\n"
        "def get_policy(model, observation):\n"
        "    return Categorical(logits=model(torch.as_tensor(observation)))\n",
        encoding="utf-8",
    )


def keep_an_environment(folder):
    solve(folder)
    for name in (".venv/lib/notebook.ipynb", "venv/site-packages/another.ipynb", "__MACOSX/vpg/._01_model.ipynb"):
        (folder / name).parent.mkdir(parents=True)
        (folder / name).write_text("no notebook", encoding="utf-8")


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


def nothing(first, second):
    return 0


SWALLOWS = """def get_policy(model, observation):
    while True:
        try:
            while True:
                pass
        except BaseException:
            pass"""
REPLACES = """def get_policy(model, observation):
    import vpg_lab.checks.expect as expect
    for name, value in [*vars(expect).items()]:
        if callable(value):
            setattr(expect, name, print)
    return Categorical(logits=torch.softmax(model(torch.as_tensor(observation)), dim=-1))"""
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
    "hides_torch": Student(write("torch.py", "raise SystemExit"), whole),
    "has_a_module": Student(use_own_module, whole),
    "keeps_an_environment": Student(keep_an_environment, whole),
    "brings_modules": Student(bring_modules, nothing),
    "brings_more_modules": Student(bring_more_modules, nothing),
    "overwrites_modules": Student(overwrite_modules, first_only),
    "calls_reference": Student(call_the_reference, without("create_model", "get_policy")),
    "replaces_judge": Student(replace_the_judge, nothing, "put back before it was judged: vpg_lab.checks.verdicts.ch"),
    "weakens_the_checks": Student(
        change_answer(f"{WEAKEN}\n\n{TWICE}"),
        without("get_policy"),
        "put back before it was judged: vpg_lab.checks.lesson_",
    ),
    "replaces_check": Student(
        change_answer(f"{ACCEPTS}\n\n{TWICE}"), without("get_policy"), "put back before it was judged: vpg_lab.checks"
    ),
    "replaces_while_judged": Student(
        change_answer(REPLACES), without("get_policy"), "replaced by get_policy while it was judged: vpg_lab.checks"
    ),
    "shadows_builtins": Student(
        change_answer(
            references()["get_policy"] + "\n\nlist, id = [1, 2], 5\nvars = callable = getattr = isinstance = 3"
        ),
        whole,
    ),
    "changes_the_default_type": Student(
        change_answer("torch.set_default_dtype(torch.float64)\n\n" + references()["get_policy"]), whole
    ),
    "answers_in_another_cell": Student(
        edit(answer_elsewhere), whole, "^02_policy taken from another cell: get_policy$"
    ),
    "answers_below_the_blank": Student(edit(answer_below), whole, "^02_policy taken from another cell: get_policy$"),
    "merges_cells": Student(edit(merge_cells), whole, "^02_policy taken from another cell: get_policy$"),
    "loses_metadata": Student(edit(lose_metadata), whole, "^02_policy taken from another cell: [^;]*get_policy[^;]*$"),
    "lacks_a_module": Student(
        change_answer("import no_such_module\n\n" + references()["get_policy"]),
        without("get_policy"),
        "get_policy: No module named 'no_such_module' here",
    ),
    "quits": Student(change_answer(references()["get_policy"] + "\n\nquit()"), whole),
    "waits": Student(change_answer("import time\n\ntime.sleep(15)\n\n" + references()["get_policy"]), whole),
    "changes_set_up": Student(edit(change_set_up), first_only, "changed and put back: setup"),
}
