"""What nbgrader lacks for grading a class; nbgrader_config.py, beside this file, plugs it in.

`Submission`, `Rebuild` and `Judge`, of vpg_judging.py, grade a notebook. `Feedback` prepares what a student reads;
`ClassReport` lists points and what a person must look at. As a program, this grades a class, students side by side:

    python vpg_grading.py vpg
"""

import argparse
import csv
import multiprocessing
import os
import re
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

import nbformat
from nbformat import NotebookNode
from nbgrader.api import MissingEntry
from nbgrader.apps import NbGraderAPI
from nbgrader.apps.baseapp import NbGrader
from nbgrader.plugins import CsvExportPlugin
from nbgrader.preprocessors import GetGrades
from nbgrader.utils import has_failed, is_grade, is_solution
from vpg_judging import Judge, Rebuild, Submission, answered_by, identifier, notes_of

__all__ = ["ClassReport", "Feedback", "Judge", "Rebuild", "Submission"]  # what nbgrader_config.py names

# ---- What a student reads ------------------------------------------------------------------------


class Feedback(GetGrades):
    """Prepare a feedback page: every check by its claim, with verdict and points, by answer."""

    def preprocess(self, nb, resources):
        nb, resources = super().preprocess(nb, resources)
        answers = {identifier(cell): {"cell": cell, "checks": []} for cell in nb.cells if is_solution(cell)}
        for cell in nb.cells:
            if is_grade(cell):
                name = answered_by(identifier(cell), set(answers))
                check = {
                    "claim": cell.metadata.get("vpg", {}).get("claim", identifier(cell)),
                    "said": verdict(cell),
                }
                answers[name]["checks"].append(
                    check | {key: cell.metadata.nbgrader[key] for key in ("score", "points")}
                )
        resources["answers"] = answers
        resources["title"] = nb.cells[0].source.partition("\n")[0].lstrip("# ") if nb.cells else ""
        return nb, resources


def verdict(cell: NotebookNode) -> str:
    """Return what a check said: its failure, or what it printed."""
    failures = [output for output in cell.outputs if output.output_type == "error"]
    if failures:
        said = failures[-1].evalue or re.sub(r"\x1b\[[\d;]*m", "", failures[-1].traceback[-1])
        return said if failures[-1].ename in ("CheckFailed", "NotWrittenYet") else f"{failures[-1].ename}: {said}"
    return "".join(output.get("text", "") for output in cell.outputs).strip() or ("" if has_failed(cell) else "held")


# ---- What a teacher reads ------------------------------------------------------------------------


class ClassReport(CsvExportPlugin):
    """Export grades.csv as nbgrader does; print the points and whom to look at, and write them."""

    def export(self, gradebook):
        super().export(gradebook)
        coursedir, ungraded = self.parent.coursedir, []
        for assignment in gradebook.assignments:
            lessons = [notebook.name for notebook in assignment.notebooks]
            rows = []
            for student in sorted({each.id for each in gradebook.students} | set(submitting(coursedir))):
                notes = look_at(coursedir, assignment.name, student, lessons)
                scores = [score_of(gradebook, lesson, assignment.name, student) for lesson in lessons]
                rows.append([student, *scores, sum(scores), assignment.max_score, "; ".join(notes)])
                ungraded += [student] * any("NOT GRADED" in note for note in notes)
            header = ["student", *lessons, "total", "of", "look at"]
            with open(f"class_report_{assignment.name}.csv", "w", newline="") as file:
                csv.writer(file).writerows([header, *rows])
            print_table(
                [
                    ["student", *(name[:2] for name in lessons), "total", "of"],
                    *(row[:-1] for row in rows),
                ]
            )
            print("\nLook at:", *(f"  {row[0]}: {row[-1]}" for row in rows if row[-1]), sep="\n")
        if ungraded:
            raise SystemExit(f"Without a full grade: {', '.join(ungraded)}")


def submitting(coursedir) -> Iterator[str]:
    """Yield the names of all folders in which somebody handed something in."""
    folder = Path(coursedir.format_path(coursedir.submitted_directory, "x", "x")).parents[1]
    return (path.name for path in folder.glob("*") if path.is_dir())


def score_of(gradebook, lesson: str, assignment: str, student: str) -> float:
    """Return a student's points for a lesson, less any penalty for lateness; 0 without a grade."""
    try:
        found = gradebook.find_submission_notebook(lesson, assignment, student)
    except MissingEntry:
        return 0.0
    return max(0.0, found.score - (found.late_submission_penalty or 0))


def look_at(coursedir, assignment: str, student: str, lessons: list[str]) -> list[str]:
    """Return what a person must look at in a student's submission and its grades."""
    submitted = Path(coursedir.format_path(coursedir.submitted_directory, student, assignment))
    graded = Path(coursedir.format_path(coursedir.autograded_directory, student, assignment))
    home, notes = submitted.parent, []
    handed_in = sorted(path for path in home.rglob("*.ipynb") if ".ipynb_checkpoints" not in path.parts)
    if not handed_in:
        return ["NOT GRADED: handed in no notebook"]
    missing = [lesson for lesson in lessons if submitted / f"{lesson}.ipynb" not in handed_in]
    others = [str(path.relative_to(home)) for path in handed_in if path.parent != submitted or path.stem not in lessons]
    if missing:
        notes.append(f"NOT GRADED: no {', '.join(missing)}")
    if others:
        notes.append(f"other notebooks: {', '.join(others)}" + "; rename, and grade again" * bool(missing))
    if coursedir.get_existing_timestamp(str(submitted)) != coursedir.get_existing_timestamp(str(graded)):
        notes.append("NOT GRADED: handed in again since; grade again")
    for lesson in lessons:
        path = graded / f"{lesson}.ipynb"
        if path.exists():
            notes += [f"{lesson} {note}" for note in notes_of(nbformat.read(path, as_version=4))]
        elif lesson not in missing:
            notes.append(f"NOT GRADED: {lesson}; nbgrader stopped at it")
    return notes


def print_table(rows: list[list]):
    """Print rows in columns."""
    texts = [[f"{value:g}" if isinstance(value, float) else str(value) for value in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
    for first, *others in texts:
        print(
            first.ljust(widths[0]),
            *(text.rjust(width) for text, width in zip(others, widths[1:], strict=True)),
        )


# ---- A class side by side ------------------------------------------------------------------------


def load() -> NbGrader:
    """Return an nbgrader with the settings of the folder we are in."""
    app = NbGrader()
    app.initialize([])
    return app


def grade(assignment: str, student: str, force: bool) -> tuple[str, str]:
    """Autograde one student; return what went wrong, or an empty string, and what nbgrader said."""
    app = load()
    # Writers wait for each other; SQLite would give up after five seconds.
    app.coursedir.db_url += "?timeout=300"
    result = NbGraderAPI(app.coursedir, parent=app).autograde(assignment, student, force=force)
    return result.get("error", ""), result.get("log", "")


def main():
    """Grade what is new, students side by side; then export the grades and report."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("assignment", help="vpg, say")
    parser.add_argument("--students", nargs="*", help="only these")
    parser.add_argument("--force", action="store_true", help="grade again what was graded")
    parser.add_argument("--side-by-side", type=int, default=os.cpu_count(), help="how many; one a core")
    settings = parser.parse_args()
    coursedir = load().coursedir
    students = settings.students or sorted(
        name
        for name in submitting(coursedir)
        if os.path.isdir(coursedir.format_path(coursedir.submitted_directory, name, settings.assignment))
    )
    # One thread a kernel: side by side, more would only get in each other's way.
    os.environ |= {"OMP_NUM_THREADS": "1"}
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(settings.side_by_side, context) as pool:
        running = {pool.submit(grade, settings.assignment, name, settings.force): name for name in students}
        for number, future in enumerate(as_completed(running), 1):
            error, said = future.result()
            print(
                f"{number} of {len(students)}: {running[future]}{' failed' * bool(error)}",
                flush=True,
            )
            if "SystemExit" in error:
                pool.shutdown(cancel_futures=True)
                raise SystemExit(error.rpartition("SystemExit: ")[2])
            if error:
                print(said, file=sys.stderr)
    os.execv(sys.executable, [sys.executable, "-m", "nbgrader", "export"])


if __name__ == "__main__":
    main()
