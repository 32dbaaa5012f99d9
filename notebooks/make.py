"""Make what is made: execute lessons in place, then the exercise edition and the README's pictures.

    python notebooks/make.py                            # all that is stale
    python notebooks/make.py notebooks/02_policy.ipynb  # this lesson, and all that is stale
    python notebooks/make.py --all                      # after a change to vpg_helpers.py, say
    python notebooks/make.py --for-class ~/course/source/vpg   # exercises, no folded references
    python notebooks/make.py --alone FOLDER             # notebooks that work alone, in Colab say
    python notebooks/make.py --site FOLDER              # pages to read, for any web server

A lesson is stale when its code is no longer the code that was executed. A second execution of a
lesson without training leaves the file byte for byte as it is: no times are recorded, no widget
state is kept, streams are merged.

In a lesson, a cell tagged `exercise` holds one function, and the cell tagged `check` behind it one
line, `check(...)`, which the edition has once for every claim. The exercise's metadata `exercise`
has stars, minutes, points (one entry per claim) and hints. A Markdown cell with metadata `question`
ends in a folded answer, and the last cell's metadata `quiz` belongs to its three questions; each
has a name, an answer, and for every choice the sentence that says why. A cell tagged `spoils` shows
what was to be predicted.
"""

import argparse
import ast
import base64
import hashlib
import json
import posixpath
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell
from standalone import HIDDEN, make_standalone, mend_links, project_files, with_badges

from vpg_lab.checks import CLAIMS
from vpg_lab.learner import KEPT_FUNCTIONS

NOTEBOOKS = Path(__file__).resolve().parent
ROOT = NOTEBOOKS.parent
LESSONS = [
    path for folder in (NOTEBOOKS, NOTEBOOKS / "companion") for path in sorted(folder.glob("[0-9][0-9]_*.ipynb"))
]
EDITION = NOTEBOOKS / "exercises"
# The README shows two pictures of the lessons: name -> (lesson, how its description begins).
README_PICTURES = {
    "after_training.png": ("05_training.ipynb", "Animation, After training"),
    "learning_curves.png": ("06_learning_curves.ipynb", "Three panels: two recipes"),
}
WIDGET = "application/vnd.jupyter.widget-view+json"
ANSWER = re.compile(r"\n*<details><summary>Answer</summary>.*?</details>", re.S)
WELCOME = """\
**Exercise edition**, made from [the lesson](../{lesson}) by `notebooks/make.py`: its text is edited
there and not here. Where a cell says `raise NotImplementedError`, the code is yours to write; where
a name is set to `...`, the answer. Run the cells one by one. A check says in one line what is
wrong: mend it and run both cells again, or go on with the next cell. Hints unfold one by one.
{kept}The exercises take {minutes} minutes on top of the reading and give {points} points.
"""
KEPT = """\
What passes of {names} is kept in `my_agent.py` beside this notebook, and later lessons use it.
"""
AFTERWARDS = "<details><summary>Once you have answered</summary>\n\n{}\n\n</details>"

# ---- Reading a lesson ----------------------------------------------------------------------------


def read(path: Path) -> NotebookNode:
    """Read a notebook."""
    return nbformat.read(path, as_version=4)


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
    """Return the cell that checks an exercise, and the text above it."""
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


# ---- Executing a lesson --------------------------------------------------------------------------


def fingerprint(lesson: NotebookNode) -> str:
    """Return what changes when the code of a lesson does."""
    return hashlib.sha256("\0".join(cell.source for cell in code_cells(lesson)).encode()).hexdigest()[:16]


def is_stale(path: Path) -> bool:
    """Tell whether a lesson's code is another than the code that was executed."""
    lesson = read(path)
    return own(lesson).get("executed") != fingerprint(lesson)


def ruff(*command: str | Path) -> subprocess.CompletedProcess:
    """Run ruff on lessons: a page is not as wide as an editor."""
    command = [sys.executable, "-m", "ruff", *command, "--config", "line-length=100"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


def execute(path: Path) -> None:
    """Run the notebook in its own folder and write it back; where a cell raises, leave the file."""
    notebook = read(path)
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
    client = NotebookClient(
        notebook,
        timeout=120,
        kernel_name="python3",
        resources={"metadata": {"path": str(path.parent)}},
        record_timing=False,
        coalesce_streams=True,
    )
    client.execute()
    for cell in code_cells(notebook):
        # A widget without a kernel is a blank; what it shows is drawn beside it as a picture.
        cell.outputs = [output for output in cell.outputs if WIDGET not in output.get("data", {})]
        for output in cell.outputs:
            # An animation's live form holds the picture once more, and a sanitizer may drop it.
            if "image/png" in output.get("data", {}):
                output.data.pop("text/html", None)
    notebook.metadata.pop("widgets", None)
    notebook.metadata |= {
        "language_info": {"name": "python"},
        "vpg": {"executed": fingerprint(notebook)},
    }
    nbformat.write(notebook, path)


def picture_from_lesson(name: str) -> bytes:
    """Return the PNG that the lesson's committed output holds."""
    lesson, description = README_PICTURES[name]
    for cell in code_cells(read(NOTEBOOKS / lesson)):
        for output in cell.outputs:
            data = output.get("data", {})
            if data.get("text/plain", "").startswith(description):
                return base64.b64decode(data["image/png"])
    raise LookupError(f"{lesson} has no picture whose description begins with {description!r}")


# ---- Making an exercise out of it ----------------------------------------------------------------


def seal(text: str) -> str:
    """Put a text out of sight; vpg_lab.checks opens it again."""
    return base64.b64encode(text.encode()).decode()


def seal_question(settings: dict) -> str:
    """Seal a question's answer and the sentences of its choices, as vpg_lab.checks.judge reads them."""
    return seal(json.dumps({"answer": settings["answer"], "choices": settings["choices"]}, ensure_ascii=False))


def blank(source: str) -> str:
    """Return a function's signature and docstring, with a body that is not written yet.

    Of a class every method is left so, and what stands above the first one stays.
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
    names = [name for name in earlier if name in KEPT_FUNCTIONS]
    imported = "from vpg_lab.checks import check"
    if imported not in cell.source.splitlines():
        raise ValueError(f"the set-up cell of {path.name} lacks a line `{imported}`")
    line = "from vpg_lab.learner import go_on" + ", with_my_functions" * bool(names)
    cells = [
        new_code_cell(
            _import_more(cell.source, imported, line),
            metadata={"tags": ["setup"], "nbgrader": grading("setup")},
        )
    ]
    if names:
        said = "Where your own functions of earlier lessons were kept, `vpg` holds them:"
        mine = ", ".join(f'"{name}"' for name in names)
        load = f"vpg = with_my_functions({mine})"
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
    return [
        *cells,
        new_markdown_cell(reference * with_reference + ways_on),
        new_code_cell(call, metadata=HIDDEN | {"nbgrader": grading(f"go_on_{name}")}),
    ]


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


def edit(path: Path, lesson: NotebookNode, place: int) -> str:
    """Return a cell's text as the edition has it: what answers the question before it is folded."""
    source = lesson.cells[place].source
    if place == 0:
        names = [f"`{name}`" for name in exercises_of(lesson) if name in KEPT_FUNCTIONS]
        kept = KEPT.format(names=" and ".join(names)) if names else ""
        welcome = WELCOME.format(lesson=name_of(path), kept=kept, **weigh(lesson))
        welcome = welcome.replace("\n", " ").strip()
        return with_badges(f"{source}\n\n{welcome}", f"{EDITION.name}/{path.name}")
    if "question" in own(lesson.cells[place - 1]) and "##" not in source:
        return AFTERWARDS.format(source)
    return source.replace("**Predict first.**", "**Predict first** (no points).")


def move_links(text: str, path: Path) -> str:
    """Return a lesson's text with relative links that lead there from the edition's folder.

    The edition holds its lessons side by side, those of the companion too.
    """

    def moved(target: str, section: str) -> str:
        is_lesson = NOTEBOOKS / target in LESSONS
        there = f"{EDITION.name}/{posixpath.basename(target)}" if is_lesson else target
        return posixpath.relpath(there, EDITION.name) + section

    return mend_links(text, name_of(path), moved)


def make_edition(path: Path, with_reference: bool = True) -> NotebookNode:
    """Return the exercise edition of one lesson."""
    lesson, cells, follows_question = read(path), [], False
    for cell in lesson.cells:
        if cell.cell_type == "markdown":
            cell.source = move_links(cell.source, path)
    moved = [cell.id for name in exercises_of(lesson) for cell in check_of(lesson, name)]  # behind their blanks
    for place, cell in enumerate(lesson.cells):
        settings = own(cell).get("question")
        if cell.id in moved:
            continue
        if place == 1:
            cells += set_up(path, cell)
        elif has_tag(cell, "exercise"):
            cells += make_exercise(lesson, cell, with_reference)
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
            cells.append(new_markdown_cell(edit(path, lesson, place)))
        follows_question |= bool(settings) or "**Predict first.**" in cell.source
    for place, cell in enumerate(cells):
        # An id that depends on nothing but lesson and place: the same lesson makes the same file.
        cell.id = hashlib.sha256(f"{path.stem} {place}".encode()).hexdigest()[:8]
    metadata = {key: value for key, value in lesson.metadata.items() if key != "vpg"}
    return nbformat.v4.new_notebook(cells=cells, metadata=metadata)


# ---- Writing -------------------------------------------------------------------------------------


def write_if_changed(path: Path, content: bytes) -> None:
    """Write a file that is made, and say so, unless it holds this already."""
    if not path.exists() or path.read_bytes() != content:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        print(f"{path.name} made in {path.parent}")


def write_edition(folder: Path, with_reference: bool = True) -> None:
    """Write every notebook of the exercise edition that a folder does not hold already."""
    for path in LESSONS:
        edition = nbformat.writes(make_edition(path, with_reference)) + "\n"
        write_if_changed(folder / path.name, edition.encode())


def write_class(folder: Path) -> None:
    """Write the edition without folded references and the modules to COURSE/source/NAME.

    What grades goes to COURSE. The modules travel with the notebooks: students need not install the
    project, and the course's copies replace what a submission holds under these names.

    Raises SystemExit where the folder is no such folder, or the course has settings of its own.
    """
    if folder.parent.name != "source":
        raise SystemExit(f"{folder} is not COURSE/source/NAME, where nbgrader looks; name such a folder")
    ours, theirs = EDITION / "nbgrader_config.py", folder.parents[1] / "nbgrader_config.py"
    if theirs.exists() and not theirs.read_bytes().startswith(ours.read_bytes()):
        raise SystemExit(f"{theirs} holds other settings; put those of {ours} into it, or move it aside")
    write_edition(folder, with_reference=False)
    for path in project_files():
        write_if_changed(folder / path.relative_to(ROOT), path.read_bytes())
    for path in [EDITION / "vpg_grading.py", *(EDITION / "templates").rglob("*.*")]:
        write_if_changed(folder.parents[1] / path.relative_to(EDITION), path.read_bytes())
    if not theirs.exists():
        shutil.copy(ours, theirs)


def write_badges() -> None:
    """Put the badges that the project's address allows on README and lessons, and no others."""
    readme = ROOT / "README.md"
    write_if_changed(readme, with_badges(readme.read_text(encoding="utf-8"), LESSONS[0].name).encode())
    for path in LESSONS:
        lesson = read(path)
        lesson.cells[0].source = with_badges(lesson.cells[0].source, name_of(path))
        write_if_changed(path, (nbformat.writes(lesson) + "\n").encode())


def name_of(path: Path) -> str:
    """Return a lesson's name from notebooks/ on, as an address has it."""
    return path.relative_to(NOTEBOOKS).as_posix()


def write_alone(folder: Path) -> None:
    """Write all lessons and all exercises as notebooks that work alone."""
    notebooks = {name_of(path): read(path) for path in LESSONS}
    for path in LESSONS:
        if exercises_of(read(path)):
            notebooks[f"{EDITION.name}/{path.name}"] = make_edition(path)
    for name, notebook in notebooks.items():
        alone = nbformat.writes(make_standalone(notebook, name)) + "\n"
        write_if_changed(folder / name, alone.encode())


def write_site(folder: Path) -> None:
    """Write the beginning of the README, all lessons and the companion's map as pages."""
    from pages import make_site  # what only this needs is an extra, [site]

    begin = (ROOT / "README.md").read_text(encoding="utf-8").partition("## Start")[0]
    texts = {"README.md": begin.replace("](notebooks/", "](")}
    for path in (NOTEBOOKS / "companion").glob("README.md"):
        texts[name_of(path)] = path.read_text(encoding="utf-8")
    maps = {name: nbformat.v4.new_notebook(cells=[new_markdown_cell(text)]) for name, text in texts.items()}
    notebooks = maps | {name_of(path): read(path) for path in LESSONS}
    make_site(notebooks, folder)


def main() -> None:
    """Execute lessons, then make what is made out of them; or write another edition alone."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("lessons", type=Path, nargs="*", help="lessons to execute, whatever they are")
    parser.add_argument("--all", action="store_true", help="execute every lesson")
    parser.add_argument(
        "--for-class",
        type=Path,
        metavar="FOLDER",
        help="only write exercises without references there",
    )
    parser.add_argument("--alone", type=Path, metavar="FOLDER", help="only write notebooks that work alone there")
    parser.add_argument("--site", type=Path, metavar="FOLDER", help="only write pages to read there")
    settings = parser.parse_args()
    if settings.for_class:
        write_class(settings.for_class.resolve())
    if settings.alone:
        write_alone(settings.alone.resolve())
    if settings.site:
        write_site(settings.site.resolve())
    if settings.for_class or settings.alone or settings.site:
        return
    named = [path.resolve() for path in settings.lessons]
    for path in LESSONS + [path for path in named if path not in LESSONS]:
        if settings.all or path in named or is_stale(path):
            start = time.perf_counter()
            ruff("format", path)
            execute(path)
            print(f"{path.name} executed in {time.perf_counter() - start:.1f} s", flush=True)
    write_badges()
    write_edition(EDITION)
    for name in README_PICTURES:
        write_if_changed(ROOT / ".github" / name, picture_from_lesson(name))


if __name__ == "__main__":
    main()
