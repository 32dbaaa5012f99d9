"""The lessons: which there are, and how one is read.

In a lesson, a cell tagged `exercise` holds one function, and the cell tagged `check` behind it one line, `check(...)`,
which the edition has once for every claim. What is our own in a notebook's or a cell's metadata stands under the key
`vpg`. An exercise has `exercise`: stars, minutes, points (one entry per claim) and hints. A Markdown cell with
`question` ends in a folded answer, and the last cell's `quiz` belongs to its three questions; each has a name, an
answer, and for every choice the sentence that says why. A cell tagged `given` is one that a check needs, and a cell
tagged `spoils` shows what was to be predicted. Behind a cell tagged `trainer` the site trains the recipe in the page.
"""

import ast
import json
import re
from pathlib import Path
from typing import NamedTuple

import nbformat
from nbformat import NotebookNode

from vpg_lab.checks import CLAIMS

NOTEBOOKS = Path(__file__).resolve().parents[1]
ROOT = NOTEBOOKS.parent
EDITION = NOTEBOOKS / "exercises"
# Every lesson, in order, named from notebooks/ on: the one list. A new lesson is one line more.
LESSONS = [
    NOTEBOOKS / name
    for name in (
        "01_model.ipynb",
        "02_policy.ipynb",
        "03_action.ipynb",
        "04_pseudo_loss.ipynb",
        "05_training.ipynb",
        "06_learning_curves.ipynb",
        "companion/07_baselines.ipynb",
        "companion/08_advantages.ipynb",
        "companion/09_continuous_actions.ipynb",
        "companion/10_clinic.ipynb",
    )
]


class Opening(NamedTuple):
    """What a lesson's first cell says of it: its title with the number, its question, and the minutes it takes."""

    title: str
    question: str
    minutes: int


def read(path: Path) -> NotebookNode:
    """Read a notebook."""
    return nbformat.read(path, as_version=4)


def name_of(path: Path) -> str:
    """Return a lesson's name from notebooks/ on, as an address has it."""
    return path.relative_to(NOTEBOOKS).as_posix()


def opening_of(lesson: NotebookNode) -> Opening:
    """Return what a lesson says of itself at the top.

    Raises ValueError where it does not begin with "# 7. Baselines: what was to be expected?", say, and its minutes.
    """
    said = re.match(r"# (\d+\. [^:\n]+): (.+)\n(?s:.*)\*\*Time:\*\* (\d+) minutes", lesson.cells[0].source)
    if not said:
        raise ValueError(f"a lesson begins with number, title, question and time; got {lesson.cells[0].source[:60]!r}")
    return Opening(said[1], said[2], int(said[3]))


def own(part: NotebookNode) -> dict:
    """Return what of a notebook's or a cell's metadata is ours."""
    return part.metadata.get("vpg", {})


def has_tag(cell: NotebookNode, tag: str) -> bool:
    """Tell whether a cell carries a tag."""
    return tag in cell.metadata.get("tags", [])


def code_cells(notebook: NotebookNode, tag: str | None = None) -> list[NotebookNode]:
    """Return the code cells of a notebook, or those with a tag."""
    return [cell for cell in notebook.cells if cell.cell_type == "code" and (tag is None or has_tag(cell, tag))]


def exercise_name(cell: NotebookNode) -> str:
    """Return the name of the function that an exercise cell defines."""
    (function,) = ast.parse(cell.source).body
    return function.name


def exercises_of(lesson: NotebookNode) -> dict[str, NotebookNode]:
    """Return a lesson's exercise cells, by the name of the function."""
    return {exercise_name(cell): cell for cell in code_cells(lesson, "exercise")}


def check_of(lesson: NotebookNode, name: str) -> tuple[NotebookNode, NotebookNode]:
    """Return the text above the cell that checks an exercise, and that cell."""
    ((place, cell),) = [
        (place, cell)
        for place, cell in enumerate(lesson.cells)
        if has_tag(cell, "check") and re.match(rf"check\({name}\b", cell.source)
    ]
    return lesson.cells[place - 1], cell


def check_lines(source: str) -> list[str]:
    """Return the line that checks an exercise as one for every claim: `check(f, "claim")`."""
    begins, name = re.match(r"(check\((\w+))", source).groups()
    if len(CLAIMS[name]) == 1:
        return [source]
    return [f'{begins}, "{claim}"{source[len(begins) :]}' for claim in CLAIMS[name]]


def questions_of(lesson: NotebookNode) -> list[dict]:
    """Return a lesson's questions, those of the quiz last."""
    return [
        question
        for cell in lesson.cells
        for question in ([own(cell)["question"]] if "question" in own(cell) else own(cell).get("quiz", []))
    ]


def weigh(lesson: NotebookNode) -> dict[str, int]:
    """Return the minutes and the points of a lesson's exercises, questions and quiz together."""
    settings = [own(cell)["exercise"] for cell in exercises_of(lesson).values()] + questions_of(lesson)
    return {
        "minutes": sum(each["minutes"] for each in settings),
        "points": sum(sum(each["points"]) for each in settings),
    }


def refuse_damaged_lessons() -> None:
    """Say which notebook beside the lessons is none, and raise SystemExit where a tool has stripped a lesson.

    What goes with a lesson's metadata would go from all that is made of it; an id that is missing would be another one
    each time.
    """
    for path in sorted({*NOTEBOOKS.glob("*.ipynb"), *(NOTEBOOKS / "companion").glob("*.ipynb")} - {*LESSONS}):
        print(f"{path.name} is no lesson, so nothing is made of it; build/lessons.py lists those that are")
    for path in LESSONS:
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        tags = [tag for cell in cells for tag in cell["metadata"].get("tags", [])]
        lost = ["ids of cells"] * any("id" not in cell for cell in cells)
        lost += ["the metadata of its cells"] * ("exercise" not in tags)
        if lost:
            said = f"{path.name} has lost {' and '.join(lost)}: take back the version in git, and what you changed"
            raise SystemExit(f"{said}, in JupyterLab or VS Code; nothing was written")


def write_if_changed(path: Path, content: bytes) -> None:
    """Write a file that is made, and say so, unless it holds this already."""
    if not path.exists() or path.read_bytes() != content:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        print(f"{path.name} made in {path.parent}")


def write_notebook(path: Path, notebook: NotebookNode) -> None:
    """Write a notebook that is made, unless the file holds it already."""
    write_if_changed(path, (nbformat.writes(notebook) + "\n").encode())
