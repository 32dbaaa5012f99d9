"""The exercise edition: the lessons with blanks, hints, checks claim by claim, and nbgrader's metadata."""

import base64
import hashlib
import json
import posixpath
import re
from pathlib import Path

import nbformat
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell

from build.lessons import (
    EDITION,
    LESSONS,
    NOTEBOOKS,
    check_lines,
    check_of,
    exercise_name,
    exercises_of,
    has_tag,
    name_of,
    own,
    read,
    weigh,
    write_notebook,
)
from build.links import mend_links, with_badges
from vpg_lab.checks import CLAIMS
from vpg_lab.learner import AGENT, SHELVES, VPG
from vpg_lab.progress import blank

HIDDEN = {"cellView": "form", "jupyter": {"source_hidden": True}}  # for Colab, for JupyterLab
ANSWER = re.compile(r"\n*<details><summary>Answer</summary>.*?</details>", re.S)
WELCOME = """\
**Exercise edition**{made}. Where a cell says `raise NotImplementedError`, the code is yours to write; where
a name is set to `...`, the answer. Run the cells one by one. A check says in one line what is
wrong: mend it and run both cells again, or go on with the next cell. Hints unfold one by one.
{kept}Where you stand, over all lessons: `progress()` of `vpg_lab.progress`; its `begin_anew("{first}")`
gives you a blank again. The exercises take {minutes} minutes on top of the reading and give {points} points.
"""
MADE = """\
, made from [the lesson](../{lesson}) by `notebooks/make.py`: its text is edited there and not here"""
KEPT = """\
What passes of {names} is kept in `{file}` beside this notebook, and later lessons use it.
"""
SIX = "That was the last of the six. Once all are yours, the next cell trains your own agent, and shows it:"
CELEBRATE = "from vpg_lab.progress import celebrate\n\ncelebrate()"
AFTERWARDS = "<details><summary>Once you have answered</summary>\n\n{}\n\n</details>"


def seal(text: str) -> str:
    """Put a text out of sight; vpg_lab.checks opens it again."""
    return base64.b64encode(text.encode()).decode()


def seal_question(settings: dict) -> str:
    """Seal a question's answer and the sentences of its choices, as vpg_lab.checks.judge reads them."""
    return seal(json.dumps({"answer": settings["answer"], "choices": settings["choices"]}, ensure_ascii=False))


def grading(identifier: str, points: int = 0, solution: bool = False) -> dict:
    """Return nbgrader's metadata: for an answer, for points, or for a cell that is only locked."""
    metadata = {
        "grade": bool(points),
        "grade_id": identifier,
        "locked": not solution,
        "schema_version": 3,
        "solution": solution,
        "task": False,
    }
    return metadata | ({"points": points} if points else {})


def describe(settings: dict) -> str:
    """Return stars, minutes and points in one line."""
    stars = "★" * settings["stars"] + "☆" * (4 - settings["stars"])
    minutes, points = settings["minutes"], sum(settings["points"])
    return f"{stars} · {count(minutes, 'minute')} · {count(points, 'point')}"


def count(number: int, noun: str) -> str:
    """Return a number with its noun: 1 point, 2 points."""
    return f"{number} {noun}{'s' * (number > 1)}"


def fold_hints(settings: dict) -> str:
    """Return the hints, each folded."""
    return "\n\n".join(
        f"<details><summary>Hint {number}</summary>\n\n{hint}\n\n</details>"
        for number, hint in enumerate(settings["hints"], 1)
    )


def _import_more(source, imported, line):
    """Import the judge beside the check, and the learner's file on a line of its own, in isort's order."""
    lines = source.replace(imported, f"{imported}, judge").splitlines()
    place = max(n for n, each in enumerate(lines) if each.startswith("from vpg_lab") and each < line)
    return "\n".join([*lines[: place + 1], line, *lines[place + 1 :]])


def set_up(path: Path, cell: NotebookNode) -> list[NotebookNode]:
    """Return the set-up cell with the edition's imports, and the one that loads kept functions."""
    earlier = [name for lesson in LESSONS if lesson.name < path.name for name in exercises_of(read(lesson))]
    mine = {"vpg": [name for name in earlier if name in AGENT.names]}
    if re.search(r"import .*\bcompanion\b", cell.source):
        mine["companion"] = [name for name in earlier if name in VPG.names]
    imported = "from vpg_lab.checks import check"
    if imported not in cell.source.splitlines():
        raise ValueError(f"the set-up cell of {path.name} lacks a line `{imported}`")
    line = "from vpg_lab.learner import go_on" + ", with_my_functions" * bool(mine["vpg"])
    cells = [
        new_code_cell(
            _import_more(cell.source, imported, line),
            metadata={"tags": ["setup"], "nbgrader": grading("setup")},
        )
    ]
    if mine["vpg"]:
        holders = " and ".join(f"`{module}`" for module in mine)
        said = f"Where your own functions of earlier lessons were kept, {holders} hold{'s' * (len(mine) == 1)} them:"
        quoted = {module: ", ".join(f'"{name}"' for name in names) for module, names in mine.items()}
        load = "\n".join(f"{module} = with_my_functions({names})" for module, names in quoted.items())
        cells += [
            new_markdown_cell(said),
            new_code_cell(load, metadata={"nbgrader": grading("my_functions")}),
        ]
    return cells


def make_exercise(lesson: NotebookNode, cell: NotebookNode, with_reference: bool) -> list[NotebookNode]:
    """Return the cells that stand for an exercise: the blank, its checks, and the way on."""
    name, settings = exercise_name(cell), own(cell)["exercise"]
    said, check = check_of(lesson, name)
    lines, points, claims = check_lines(check.source), settings["points"], list(CLAIMS[name])
    if len(points) != len(lines):
        raise ValueError(f"{name} has {len(lines)} claims and points {points}; give each claim points")
    cells = [
        new_markdown_cell(f"**Write `{name}`.** {describe(settings)}\n\n{fold_hints(settings)}"),
        new_code_cell(
            blank(cell.source),
            metadata={"tags": ["exercise"], "nbgrader": grading(name, solution=True)},
        ),
    ]
    for number, line in enumerate(lines, 1):
        text = [said.source] if number == 1 else []
        if len(lines) > 1:
            worth = count(points[number - 1], "point")
            text.append(f"**Check {number} of {len(lines)}**, {worth}: `{name}` {claims[number - 1]}.")
        metadata = {
            "tags": ["check"],
            "vpg": {"claim": f"`{name}` {claims[number - 1]}"},
            "nbgrader": grading(f"check_{name}_{number}", points[number - 1]),
        }
        cells += [new_markdown_cell("\n\n".join(text)), new_code_cell(line, metadata=metadata)]
    code = f"```python\n{cell.source}\n```"
    reference = f"<details><summary>Stuck? The reference</summary>\n\n{code}\n\n</details>\n\n"
    ways_on = "The next cell goes on with your function if it has passed, and with the reference if not."
    call = f'go_on(\n    "{name}",\n    globals(),\n    "{seal(cell.source)}",\n)'
    cells += [
        new_markdown_cell(reference * with_reference + ways_on),
        new_code_cell(call, metadata=HIDDEN | {"nbgrader": grading(f"go_on_{name}")}),
    ]
    if name == AGENT.names[-1]:
        cells += [new_markdown_cell(SIX), new_code_cell(CELEBRATE, metadata={"nbgrader": grading("celebrate")})]
    return cells


def make_question(text: str, settings: dict) -> list[NotebookNode]:
    """Return the cells of a question: its text, the blank for the answer, and the judge."""
    name, sealed = settings["name"], seal_question(settings)
    choices = " or ".join(f'"{choice}"' for choice in settings["choices"])
    options = "\n".join(f"- {key}: {text}" for key, text in settings.get("texts", {}).items())
    parts = [
        text,
        options,
        f"{describe(settings)}. Write your answer in place of the dots.",
        fold_hints(settings),
    ]
    return [
        new_markdown_cell("\n\n".join(part for part in parts if part)),
        new_code_cell(f"{name} = ...  # {choices}", metadata={"nbgrader": grading(name, solution=True)}),
        new_markdown_cell("And what comes of it:"),
        new_code_cell(
            f'judge(\n    "{name}",\n    {name},\n    "{sealed}",\n)',
            metadata=HIDDEN
            | {
                "tags": ["check"],
                "vpg": {"claim": f"the question `{name}`"},
                "nbgrader": grading(f"check_{name}", settings["points"][0]),
            },
        ),
    ]


def make_quiz(cell: NotebookNode) -> list[NotebookNode]:
    """Return the cells of a lesson's end: the text before the quiz, its questions, the rest."""
    before, rest = cell.source.split("**Three questions**\n")
    *questions, after = re.split(r"<details>.*?</details>", rest, flags=re.S)
    cells = [new_markdown_cell(f"{before.strip()}\n\n**Three questions**")]
    for number, (question, quiz) in enumerate(zip(questions, own(cell)["quiz"], strict=True), 1):
        text = re.sub(r"^\d\. ", "", question.strip())
        cells += make_question(f"**{number}.** {text}", quiz)
    return [*cells, new_markdown_cell(after.strip())]


def without_spoilers(cell: NotebookNode, follows_question: bool) -> NotebookNode:
    """Return a code cell without an execution, and with no output but a picture that explains."""
    keep_pictures = not (follows_question or has_tag(cell, "spoils"))
    outputs = [each for each in cell.outputs if keep_pictures and "image/png" in each.get("data", {})]
    outputs = [each for each in outputs if not each.metadata.get("stands_still")]  # a slider's: the cell makes one
    tags = [tag for tag in cell.metadata.get("tags", []) if tag != "nbval-ignore-output"]
    kept = {"jupyter": cell.metadata["jupyter"]} if "jupyter" in cell.metadata else {}
    if "setup" in tags:
        # Checks lean on it, so that it is locked.
        kept["nbgrader"] = grading(f"setup_{cell.id}".replace("-", "_"))
    copied = new_code_cell(cell.source, metadata=kept | ({"tags": tags} if tags else {}))
    copied.outputs = [
        NotebookNode(each, **({"execution_count": None} if "execution_count" in each else {})) for each in outputs
    ]
    return copied


def edit(path: Path, lesson: NotebookNode, place: int, for_class: bool) -> str:
    """Return a cell's text as the edition has it: what answers the question before it is folded."""
    source = lesson.cells[place].source
    if place == 0:
        kept = ""
        if names := [name for name in exercises_of(lesson) if name in SHELVES]:
            quoted = [f"`{name}`" for name in names]
            listed = ", ".join(quoted[:-1]) + " and " * (len(quoted) > 1) + quoted[-1]
            kept = KEPT.format(names=listed, file=SHELVES[names[0]].file)
        first, *_ = exercises_of(lesson)
        made = "" if for_class else MADE.format(lesson=name_of(path))
        welcome = WELCOME.format(made=made, kept=kept, first=first, **weigh(lesson))
        welcome = welcome.replace("\n", " ").strip()
        return with_badges(f"{source}\n\n{welcome}", f"{EDITION.name}/{path.name}")
    if "question" in own(lesson.cells[place - 1]) and "##" not in source:
        return AFTERWARDS.format(source)
    return source.replace("**Predict first.**", "**Predict first** (no points).")


def move_links(text: str, path: Path, handed_out: list[Path] | None) -> str:
    """Return a lesson's text with relative links that lead there from the edition's folder.

    The edition holds its lessons side by side, those of the companion too. What a class is not handed out is named and
    not linked.
    """

    def moved(target: str, section: str) -> str | None:
        is_lesson = NOTEBOOKS / target in (LESSONS if handed_out is None else handed_out)
        if handed_out is not None and not is_lesson:
            return None
        there = f"{EDITION.name}/{posixpath.basename(target)}" if is_lesson else target
        return posixpath.relpath(there, EDITION.name) + section

    return mend_links(text, name_of(path), moved)


def make_edition(path: Path, handed_out: list[Path] | None = None) -> NotebookNode:
    """Return the exercise edition of one lesson; for a class, which gets these lessons, without folded references."""
    for_class = handed_out is not None
    lesson, cells, follows_question = read(path), [], False
    for cell in lesson.cells:
        if cell.cell_type == "markdown":
            cell.source = move_links(cell.source, path, handed_out)
    moved = [cell.id for name in exercises_of(lesson) for cell in check_of(lesson, name)]  # behind their blanks
    for place, cell in enumerate(lesson.cells):
        settings = own(cell).get("question")
        if cell.id in moved:
            continue
        if place == 1:
            cells += set_up(path, cell)
        elif has_tag(cell, "exercise"):
            cells += make_exercise(lesson, cell, with_reference=not for_class)
        elif cell.cell_type == "code":
            cells.append(without_spoilers(cell, follows_question))
            follows_question = False
        elif settings:
            cells += make_question(ANSWER.sub("", cell.source).strip(), settings)
            if lesson.cells[place + 1].cell_type == "code":
                cells.append(new_markdown_cell("See for yourself:"))
        elif "quiz" in own(cell):
            cells += make_quiz(cell)
        else:
            cells.append(new_markdown_cell(edit(path, lesson, place, for_class)))
        follows_question |= bool(settings) or "**Predict first.**" in cell.source
    for place, cell in enumerate(cells):
        # An id that depends on nothing but lesson and place: the same lesson makes the same file.
        cell.id = hashlib.sha256(f"{path.stem} {place}".encode()).hexdigest()[:8]
    metadata = {key: value for key, value in lesson.metadata.items() if key != "vpg"}
    return nbformat.v4.new_notebook(cells=cells, metadata=metadata)


def write_edition(folder: Path, handed_out: list[Path] | None = None) -> None:
    """Write the notebooks of the exercise edition that a folder does not hold already; for a class, those it gets."""
    for path in handed_out or LESSONS:
        write_notebook(folder / path.name, make_edition(path, handed_out))
