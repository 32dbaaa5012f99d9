"""Make the exercise edition in notebooks/exercises/ out of the lessons.

    python tests/make_exercises.py                        # the committed edition
    python tests/make_exercises.py --for-class ~/course/source/vpg   # the same without the folded references

In a lesson, a cell tagged `exercise` holds one function, and the `check` cells behind it judge it; its metadata
`exercise` has stars, minutes, points (one entry per check) and hints. A Markdown cell with metadata `question` ends
in a folded answer, and the last cell's metadata `quiz` belongs to its three questions; each has a name, an answer,
and for every choice the sentence that says why. A cell tagged `spoils` shows what was to be predicted.
"""

import argparse
import ast
import base64
import functools
import hashlib
import json
import re
import shutil
from pathlib import Path

import nbformat
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell

ROOT = Path(__file__).parents[1]
LESSONS = sorted((ROOT / "notebooks").glob("*.ipynb"))
EDITION = ROOT / "notebooks" / "exercises"
ANSWER = re.compile(r"\n*<details><summary>Answer</summary>.*?</details>", re.S)

WELCOME = """\
**Exercise edition.** Where a cell says `raise NotImplementedError`, the code is yours to write; where a name is set to
`...`, the answer. Run the cells one by one. A check says in one line what is wrong: mend it and run both cells again,
or go on with the next cell. Hints unfold one by one. The lesson's main function is kept in `my_agent.py` beside this
notebook once it has passed, and later lessons use it. The exercises take {minutes} minutes on top of the reading, and
give {points} points.""".replace("\n", " ")
AFTERWARDS = "<details><summary>Once you have answered</summary>\n\n{}\n\n</details>"


def seal(text: str) -> str:
    """Put a text out of sight; vpg_helpers opens it again."""
    return base64.b64encode(text.encode()).decode()


def seal_question(settings: dict) -> str:
    """Seal the answer of a question and what is to be said of each choice, as vpg.judge reads them."""
    return seal(json.dumps({"answer": settings["answer"], "choices": settings["choices"]}, ensure_ascii=False))


def read(path: Path) -> NotebookNode:
    """Read a notebook."""
    return nbformat.read(path, as_version=4)


def has_tag(cell: NotebookNode, tag: str) -> bool:
    """Tell whether a cell carries a tag."""
    return tag in cell.metadata.get("tags", [])


def exercise_name(cell: NotebookNode) -> str:
    """Return the name of the function that an exercise cell defines."""
    (function,) = ast.parse(cell.source).body
    return function.name


def blank(source: str) -> str:
    """Return a function's signature and docstring, with a body that is not written yet."""
    (function,) = ast.parse(source).body
    docstring = function.body[0]
    if not (isinstance(docstring, ast.Expr) and isinstance(docstring.value, ast.Constant)):
        raise ValueError(f"{function.name} has no docstring; the exercise would not say what is asked for")
    kept = source.splitlines()[: docstring.end_lineno]
    return "\n".join([*kept, f'    raise NotImplementedError("{function.name} is not written yet")'])


def exercises_of(lesson: NotebookNode) -> dict[str, NotebookNode]:
    """Return a lesson's exercise cells, by the name of the function."""
    return {exercise_name(cell): cell for cell in lesson.cells if has_tag(cell, "exercise")}


def questions_of(lesson: NotebookNode) -> list[dict]:
    """Return a lesson's questions, those of the quiz last."""
    return [
        question
        for cell in lesson.cells
        for question in ([cell.metadata["question"]] if "question" in cell.metadata else cell.metadata.get("quiz", []))
    ]


def checks_of(lesson: NotebookNode, name: str) -> list[NotebookNode]:
    """Return the check cells of an exercise, in order."""
    judged = f"vpg.checking({name}"
    return [
        cell for cell in lesson.cells if has_tag(cell, "check") and re.search(re.escape(judged) + r"\b", cell.source)
    ]


@functools.cache
def earlier_functions(path: Path) -> list[str]:
    """Return the exercises of the lessons before this one which the helper holds too: what an agent is made of."""
    helper = {node.name for node in ast.parse((ROOT / "vpg_helpers.py").read_text()).body if hasattr(node, "name")}
    earlier = LESSONS[: LESSONS.index(ROOT / "notebooks" / path.name)]
    return [name for lesson in earlier for name in exercises_of(read(lesson)) if name in helper]


def load_functions(path: Path) -> list[NotebookNode]:
    """Return the cells that put the learner's functions of earlier lessons in the place of the reference."""
    names = earlier_functions(path)
    if not names:
        return []
    said = "Where your own functions of earlier lessons were kept, `vpg` holds them instead of the reference:"
    mine = ", ".join(f'"{name}"' for name in names)
    load = f"vpg = vpg.with_my_functions({mine})"
    return [new_markdown_cell(said), new_code_cell(load, metadata={"nbgrader": grading("my_functions")})]


def grading(identifier: str, points: int = 0, solution: bool = False) -> dict:
    """Return nbgrader's metadata: a cell for an answer, one that gives points, or one that is only locked."""
    metadata = {
        "grade": bool(points),
        "grade_id": identifier,
        "locked": not solution,
        "schema_version": 3,
        "solution": solution,
        "task": False,
    }
    return metadata | ({"points": points} if points else {})


def weigh(lesson: NotebookNode) -> dict[str, int]:
    """Return the minutes and the points of a lesson's exercises, questions and quiz together."""
    settings = [cell.metadata["exercise"] for cell in exercises_of(lesson).values()] + questions_of(lesson)
    return {
        "minutes": sum(each["minutes"] for each in settings),
        "points": sum(sum(each["points"]) for each in settings),
    }


def describe(settings: dict) -> str:
    """Return stars, minutes and points in one line."""
    stars = "★" * settings["stars"] + "☆" * (4 - settings["stars"])
    minutes, points = settings["minutes"], sum(settings["points"])
    return f"{stars} · {minutes} minute{'s' * (minutes > 1)} · {points} point{'s' * (points > 1)}"


def fold_hints(settings: dict) -> str:
    """Return the hints, each folded."""
    return "\n\n".join(
        f"<details><summary>Hint {number}</summary>\n\n{hint}\n\n</details>"
        for number, hint in enumerate(settings["hints"], 1)
    )


def make_exercise(cell, number_of_checks, with_reference):
    """Return the cells that stand for an exercise cell, and those that follow its last check."""
    name, settings = exercise_name(cell), cell.metadata["exercise"]
    if len(settings["points"]) != number_of_checks:
        raise ValueError(
            f"{name} has {number_of_checks} checks and points {settings['points']}; give each check points"
        )
    before = [
        new_markdown_cell(f"**Write `{name}`.** {describe(settings)}\n\n{fold_hints(settings)}"),
        new_code_cell(blank(cell.source), metadata={"tags": ["exercise"], "nbgrader": grading(name, solution=True)}),
    ]
    reference = f"<details><summary>Stuck? The reference</summary>\n\n```python\n{cell.source}\n```\n\n</details>\n\n"
    ways_on = "The next cell goes on with your function if it has passed, and with the reference if not."
    call = f'vpg.go_on(\n    "{name}",\n    globals(),\n    "{seal(cell.source)}",\n    claims={number_of_checks},\n)'
    after = [
        new_markdown_cell((reference if with_reference else "") + ways_on),
        new_code_cell(call, metadata={"jupyter": {"source_hidden": True}, "nbgrader": grading(f"go_on_{name}")}),
    ]
    return before, after


def make_question(text, settings):
    """Return the cells of a question: its text, the blank for the answer, and the judge."""
    name, sealed = settings["name"], seal_question(settings)
    choices = " or ".join(f'"{choice}"' for choice in settings["choices"])
    options = "\n".join(f"- {key}: {text}" for key, text in settings.get("texts", {}).items())
    parts = [text, options, f"{describe(settings)}. Write your answer in place of the dots.", fold_hints(settings)]
    return [
        new_markdown_cell("\n\n".join(part for part in parts if part)),
        new_code_cell(f"{name} = ...  # {choices}", metadata={"nbgrader": grading(name, solution=True)}),
        new_markdown_cell("And what comes of it:"),
        new_code_cell(
            f'vpg.judge(\n    "{name}",\n    {name},\n    "{sealed}",\n)',
            metadata={
                "tags": ["check"],
                "jupyter": {"source_hidden": True},
                "nbgrader": grading(f"check_{name}", settings["points"][0]),
            },
        ),
    ]


def split_quiz(cell):
    """Return the last cell as the text before its questions, the questions one by one, and the text after them."""
    before, rest = cell.source.split("**Three questions**\n")
    *questions, after = re.split(r"<details>.*?</details>", rest, flags=re.S)
    return before.strip(), [re.sub(r"^\d\. ", "", question.strip()) for question in questions], after.strip()


def without_spoilers(cell, follows_question):
    """Return a code cell as it is, without an execution and with no output but a picture that explains."""
    keep_pictures = not (follows_question or has_tag(cell, "spoils"))
    outputs = [each for each in cell.outputs if keep_pictures and "image/png" in each.get("data", {})]
    tags = [tag for tag in cell.metadata.get("tags", []) if tag != "nbval-ignore-output"]
    kept = {key: cell.metadata[key] for key in ("jupyter", "nbgrader") if key in cell.metadata}
    copied = new_code_cell(cell.source, metadata=kept | ({"tags": tags} if tags else {}))
    copied.outputs = [
        NotebookNode(each, **({"execution_count": None} if "execution_count" in each else {})) for each in outputs
    ]
    return copied


def make(path: Path, with_reference: bool = True) -> NotebookNode:
    """Return the exercise edition of one lesson."""
    lesson, cells, follow_up, follows_question = read(path), [], {}, False
    for place, cell in enumerate(lesson.cells):
        settings = cell.metadata.get("question")
        if has_tag(cell, "exercise"):
            checks = checks_of(lesson, exercise_name(cell))
            before, after = make_exercise(cell, len(checks), with_reference)
            cells += before
            for number, check in enumerate(checks, 1):
                points = cell.metadata["exercise"]["points"][number - 1]
                check.metadata["nbgrader"] = grading(f"check_{exercise_name(cell)}_{number}", points)
            follow_up[checks[-1].id] = after
        elif cell.cell_type == "code":
            cells += [without_spoilers(cell, follows_question), *follow_up.pop(cell.id, [])]
            follows_question = False
            if place == 1:  # the set-up cell
                cells += load_functions(path)
        elif settings:
            cells += make_question(ANSWER.sub("", cell.source).strip(), settings)
            if lesson.cells[place + 1].cell_type == "code":
                cells.append(new_markdown_cell("See for yourself:"))
        elif "quiz" in cell.metadata:
            before, questions, after = split_quiz(cell)
            cells.append(new_markdown_cell(f"{before}\n\n**Three questions**"))
            for number, (question, quiz) in enumerate(zip(questions, cell.metadata["quiz"], strict=True), 1):
                cells += make_question(f"**{number}.** {question}", quiz)
            cells.append(new_markdown_cell(after))
        else:
            cells.append(new_markdown_cell(edit(cell, place, lesson)))
        follows_question |= bool(settings) or "**Predict first.**" in cell.source
    return finish(path, lesson, cells)


def edit(cell, place, lesson):
    """Return the text of a cell as the edition has it: what would answer the question before it is folded."""
    if place == 0:
        return f"{cell.source}\n\n{WELCOME.format(**weigh(lesson))}"
    if "question" in lesson.cells[place - 1].metadata and "##" not in cell.source:
        return AFTERWARDS.format(cell.source)
    return cell.source.replace("**Predict first.**", "**Predict first** (no points).")


def finish(path, lesson, cells):
    """Return the notebook with cell ids that depend on nothing but place and lesson."""
    for place, cell in enumerate(cells):
        cell.id = hashlib.sha256(f"{path.stem} {place}".encode()).hexdigest()[:8]
    return nbformat.v4.new_notebook(cells=cells, metadata=lesson.metadata)


def main() -> None:
    """Write every notebook of the edition."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--for-class", type=Path, metavar="FOLDER", help="write it there, without folded references")
    folder = parser.parse_args().for_class
    for path in LESSONS:
        target = (folder or EDITION) / path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        nbformat.write(make(path, with_reference=folder is None), target)
    if folder:
        shutil.copy(EDITION / "nbgrader_config.py", folder.parents[1])


if __name__ == "__main__":
    main()
