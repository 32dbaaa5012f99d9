"""What pages show of the lessons: the tables of README and teachers, and the README's two pictures."""

import base64
import os
import re
from pathlib import Path

from build.lessons import (
    EDITION,
    LESSONS,
    NOTEBOOKS,
    ROOT,
    code_cells,
    exercises_of,
    opening_of,
    own,
    questions_of,
    read,
    weigh,
    write_if_changed,
)
from vpg_lab.learner import KEPT_FUNCTIONS

PAGES = [ROOT / "README.md", NOTEBOOKS / "companion" / "README.md", EDITION / "README.md"]
# What stands between such lines of a page is made; the name is that of a function in TABLES.
MADE = re.compile(r"(<!-- (\w+), made by notebooks/make.py -->\n\n).*?(\n\n<!-- end -->)", re.S)
# The README's pictures: name -> (lesson, how its description begins).
README_PICTURES = {
    "after_training.png": ("05_training.ipynb", "Animation, After training"),
    "learning_curves.png": ("06_learning_curves.ipynb", "Three panels: two recipes"),
}


def list_lessons(page: Path, companion: bool = False) -> list[str]:
    """Return the table of the first lessons, or of the companion's, as a page has it; the six functions are bold."""
    rows = ["| lesson | question | functions built | minutes |", "|---|---|---|---|"]
    for path in LESSONS:
        if (path.parent != NOTEBOOKS) == companion:
            lesson = read(path)
            title, question, minutes = opening_of(lesson)
            link = Path(os.path.relpath(path, page.parent)).as_posix()
            names = [f"**`{name}`**" if name in KEPT_FUNCTIONS else f"`{name}`" for name in exercises_of(lesson)]
            question = question[0].upper() + question[1:]
            rows.append(f"| [{title}]({link}) | {question} | {', '.join(names)} | {minutes} |")
    return rows


def list_exercises(_page: Path) -> list[str]:
    """Return the teacher's table, what each notebook of the edition takes, and what they take together."""
    lessons = {path: read(path) for path in LESSONS}
    rows = [
        "| notebook | functions to write | reading, minutes | exercises, minutes | points |",
        "|---|---|---|---|---|",
    ]
    for path, lesson in lessons.items():
        functions = ", ".join(f"`{name}`" for name in exercises_of(lesson))
        minutes, points = weigh(lesson).values()
        reading = opening_of(lesson).minutes
        rows.append(f"| [{path.stem}]({path.name}) | {functions} | {reading} | {minutes} | {points} |")
    written = [own(cell)["exercise"] for lesson in lessons.values() for cell in exercises_of(lesson).values()]
    kinds = [question["kind"] for lesson in lessons.values() for question in questions_of(lesson)]
    points = sum(weigh(lesson)["points"] for lesson in lessons.values())
    together = (
        f"Together: {len(written)} functions to write, {kinds.count('predict')} predictions, {kinds.count('find')} "
        f"faulty listings in which to find the line, and {kinds.count('quiz')} quiz questions. Of {points} points "
        f"{sum(sum(settings['points']) for settings in written)} are for functions; the rest are for choices, with as "
        "many tries as a student wants."
    )
    return [*rows, "", together]


TABLES = {
    "lessons": list_lessons,
    "companion": lambda page: list_lessons(page, companion=True),
    "exercises": list_exercises,
}


def with_tables(text: str, page: Path) -> str:
    """Return a page's text with its tables made anew."""
    return MADE.sub(lambda part: part[1] + "\n".join(TABLES[part[2]](page)) + part[3], text)


def picture_from_lesson(name: str) -> bytes:
    """Return the PNG that the lesson's committed output holds."""
    lesson, description = README_PICTURES[name]
    for cell in code_cells(read(NOTEBOOKS / lesson)):
        for output in cell.outputs:
            data = output.get("data", {})
            if data.get("text/plain", "").startswith(description):
                return base64.b64decode(data["image/png"])
    raise LookupError(f"{lesson} has no picture whose description begins with {description!r}")


def write_tables() -> None:
    """Write what pages show of the lessons."""
    for page in PAGES:
        write_if_changed(page, with_tables(page.read_text(encoding="utf-8"), page).encode())
    for name in README_PICTURES:
        write_if_changed(ROOT / ".github" / name, picture_from_lesson(name))
