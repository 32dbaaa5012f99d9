"""What nbgrader lacks for grading a class; nbgrader_config.py, beside this file, plugs it in.

vpg_judging.py grades one submission. Here, `Feedback` prepares what a student reads, and `ClassReport` what a teacher
reads: points, whom to look at, and which check lost most. As a program, this grades a class, students side by side:

    python vpg_grading.py vpg
"""

import argparse
import collections
import csv
import itertools
import multiprocessing
import os
import re
import secrets
import shutil
import statistics
import sys
import textwrap
import warnings
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import NamedTuple

import nbformat
from jinja2 import Environment, FileSystemLoader
from nbformat import NotebookNode
from nbgrader.api import Gradebook
from nbgrader.apps import NbGraderAPI
from nbgrader.apps.baseapp import NbGrader
from nbgrader.plugins import CsvExportPlugin
from nbgrader.preprocessors import GetGrades
from nbgrader.utils import has_failed, is_grade, is_solution, parse_utc
from vpg_judging import answered_by, digest, identifier, notes_of

HERE = Path(__file__).resolve().parent
STAMPS = ("timestamp.txt", "submission_secret.txt")  # what an exchange writes, and what nbgrader asks for
BY_HAND = "by hand "  # how a secret of ours begins
DATED = ", going by the date of the newest file, which may be that of unpacking"
QUESTION = re.compile(r"^\*\*(?:Predict first\.|Find the line\.|\d\.)\*\*.*?(?=^★)", re.M | re.S)

# ---- What a student reads ------------------------------------------------------------------------


class Feedback(GetGrades):
    """Prepare a feedback page: every check by its claim, with verdict and points, by answer; the total so far."""

    def preprocess(self, nb, resources):
        nb, resources = super().preprocess(nb, resources)
        questions, answers = questions_of(nb), {}
        for cell in nb.cells:
            name = answered_by(identifier(cell), {*questions})
            if is_solution(cell):
                answers[name] = {"cell": cell, "question": questions[name], "checks": []}
            elif is_grade(cell):
                given = {key: cell.metadata.nbgrader[key] for key in ("score", "points", "by_hand")}
                answers[name]["checks"].append(
                    given | {"claim": claim_of(cell, questions[name]), "said": verdict(cell)}
                )
        resources["answers"] = answers
        resources["title"] = nb.cells[0].source.partition("\n")[0].lstrip("# ") if nb.cells else ""
        with Gradebook(self.db_url) as gradebook:
            submission = gradebook.find_submission(self.assignment_id, self.student_id)
            resources["student"] = name_of(submission.student)
            resources["total"] = submission.score - submission.late_submission_penalty, submission.max_score
        return nb, resources

    def _get_score(self, cell, resources):
        super()._get_score(cell, resources)
        grade = self.gradebook.find_grade(identifier(cell), self.notebook_id, self.assignment_id, self.student_id)
        cell.metadata.nbgrader["by_hand"] = grade.manual_score is not None

    def _get_comment(self, cell, resources):
        """Only what a person wrote, and not nbgrader's "No response."."""
        comment = self.gradebook.find_comment(identifier(cell), self.notebook_id, self.assignment_id, self.student_id)
        cell.metadata.nbgrader["comment"] = comment.manual_comment


def leave_only_pages(assignment: str, student: str, notebooks: list[str]):
    """Remove what nbgrader copies beside the feedback pages, modules say; it calls this with a student's notebooks."""
    folder = Path("feedback", *Path(notebooks[0]).parts[-3:-1])
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.suffix != ".html" and path.name not in STAMPS:
            path.unlink()


def name_of(student) -> str:
    """Return what a student is called."""
    names = " ".join(filter(None, (student.first_name, student.last_name)))
    return f"{names} ({student.id})" if names else student.id


def questions_of(notebook: NotebookNode) -> dict[str, str]:
    """Return the text of every question, by its name, and for every other blank an empty one."""
    above = {identifier(cell): text.source for text, cell in itertools.pairwise(notebook.cells) if is_solution(cell)}
    found = {name: QUESTION.search(text) for name, text in above.items()}
    return {name: question[0].strip() if question else "" for name, question in found.items()}


def claim_of(cell: NotebookNode, question: str) -> str:
    """Return what a check asks for, in one line; of a question the question."""
    if question:
        return textwrap.shorten(re.sub(r"\*\*|`", "", question.partition("\n\n")[0]), 160, placeholder=" ...")
    return cell.metadata.get("vpg", {}).get("claim", identifier(cell)).replace("`", "")


def verdict(cell: NotebookNode) -> str:
    """Return what a check said: its failure, or what it printed."""
    failures = [output for output in cell.outputs if output.output_type == "error"]
    if failures:
        said = failures[-1].evalue or re.sub(r"\x1b\[[\d;]*m", "", failures[-1].traceback[-1])
        return said if failures[-1].ename in ("CheckFailed", "NotWrittenYet") else f"{failures[-1].ename}: {said}"
    return "".join(output.get("text", "") for output in cell.outputs).strip() or ("" if has_failed(cell) else "held")


# ---- What a teacher reads ------------------------------------------------------------------------


class ClassReport(CsvExportPlugin):
    """Export grades.csv as nbgrader does; print points and whom to look at, and write them, and what was lost most."""

    def export(self, gradebook):
        super().export(gradebook)
        for assignment in gradebook.assignments:
            if assignment.name in self.assignment or (assignment.submissions and not self.assignment):
                print(f"\n{assignment.name}\n")
                report(gradebook, self.parent.coursedir, assignment, self.student)


class Standing(NamedTuple):
    """Where a student stands: points by lesson, what to look at, and of every check its claim, grade and verdict."""

    student: str
    email: str
    scores: dict[str, float]
    notes: list[str]
    judged: dict[tuple[str, str], tuple]
    handed_in: bool

    @property
    def total(self) -> float:
        return sum(self.scores.values())


def stand(gradebook, coursedir, assignment, student: str) -> Standing:
    """Return where a student stands in an assignment."""
    lessons = [notebook.name for notebook in assignment.notebooks]
    graded = read_graded(coursedir, assignment.name, student, lessons)
    elsewhere = {each.name for each in gradebook.assignments} - {assignment.name}
    handed_in, notes = look_at(coursedir, assignment.name, student, graded, elsewhere)
    scores, grades = dict.fromkeys(lessons, 0.0), {}
    email = next((each.email or "" for each in gradebook.students if each.id == student), "")
    for submission in [each for each in assignment.submissions if each.student.id == student]:
        if late := submission.total_seconds_late:
            secret = Path(coursedir.format_path(coursedir.submitted_directory, student, assignment.name), STAMPS[1])
            by_hand = secret.exists() and secret.read_text(encoding="utf-8").startswith(BY_HAND)
            notes.append(f"late by {timedelta(seconds=int(late))}{DATED * by_hand}")
        for notebook in submission.notebooks:
            scores[notebook.name] = max(0.0, notebook.score - (notebook.late_submission_penalty or 0))
            for grade in notebook.grades:
                grades[notebook.name, grade.name] = grade
                if grade.manual_score is not None and grade.needs_manual_grade:
                    now = f"{grade.auto_score or 0:g}, and has been graded again since"
                    notes.append(f"{notebook.name} {grade.name}: {grade.manual_score:g} by hand; the check gives {now}")
    judged = {}
    for lesson, notebook in graded.items():
        questions = questions_of(notebook) if notebook else {}
        for cell in filter(is_grade, notebook.cells if notebook else []):
            if grade := grades.get((lesson, identifier(cell))):
                claim = claim_of(cell, questions[answered_by(identifier(cell), {*questions})])
                judged[lesson, identifier(cell)] = claim, grade, verdict(cell)
    return Standing(student, email, scores, notes, judged, handed_in)


def report(gradebook, coursedir, assignment, only: list[str]) -> list[str]:
    """Print and write an assignment's report; return who has no full grade, of some students or of all."""
    name, lessons = assignment.name, [notebook.name for notebook in assignment.notebooks]
    students = sorted({student.id for student in gradebook.students} | {*submitting(coursedir)})
    standings = [stand(gradebook, coursedir, assignment, student) for student in students]
    checks = [*check_rows(standings)]
    rows = [
        [each.student, *each.scores.values(), each.total, assignment.max_score, "; ".join(each.notes)]
        for each in standings
    ]
    grades = [[each.student, each.email, each.total if each.handed_in else ""] for each in standings]
    write_csv(f"class_report_{name}.csv", ["student", *lessons, "total", "of", "look at"], rows)
    write_csv(f"class_checks_{name}.csv", CHECKS, checks)
    write_csv(f"platform_{name}.csv", ["username", "email", name], grades)
    lost = sorted((row for row in checks if row[5]), key=lambda row: -row[5] / row[6])
    handed_in = [(*each.scores.values(), each.total) for each in standings if each.handed_in]
    means = [statistics.mean(column) for column in zip(*handed_in, strict=True)]
    template = Environment(loader=FileSystemLoader(HERE / "templates"), autoescape=True).get_template(
        "class_report.html.j2"
    )
    page = template.render(
        name=name, of=assignment.max_score, lessons=lessons, standings=standings, means=means, checks=checks, lost=lost
    )
    Path(f"class_report_{name}.html").write_text(page, encoding="utf-8")
    rows = [row for row in rows if not only or row[0] in only]
    print_table([["student", *(lesson[:2] for lesson in lessons), "total", "of"], *(row[:-1] for row in rows)])
    print("\nLook at:", *(f"  {row[0]}: {row[-1]}" for row in rows if row[-1]), sep="\n")
    print(f"\nIn full, with the checks that were lost most: class_report_{name}.html")
    return [row[0] for row in rows if "NOT GRADED" in row[-1]]


CHECKS = ["lesson", "check", "claim", "of", "mean", "lost by", "of so many", "commonest verdict then", "heard by"]


def check_rows(standings: list[Standing]) -> Iterator[list]:
    """Yield a row for every check: its mean, how many lost points, and what those who wrote something heard most."""
    for place in dict.fromkeys(place for each in standings for place in each.judged):
        judged = [each.judged[place] for each in standings if place in each.judged]
        scores, points = [grade.score or 0 for _, grade, _ in judged], judged[0][1].max_score
        said = [said for _, grade, said in judged if (grade.score or 0) < points]
        written = [each for each in said if "not written yet" not in each] or said
        # The same mistake gives other numbers in another answer.
        kinds = {each: re.sub(r"-?\d[\d.e]*", "#", each) for each in written}
        counted = collections.Counter(kinds[each] for each in written)
        example = max(written, key=lambda each: counted[kinds[each]], default="")
        heard = counted[kinds.get(example)]
        yield [*place, judged[0][0], points, round(statistics.mean(scores), 2), len(said), len(judged), example, heard]


def submitting(coursedir) -> Iterator[str]:
    """Yield the names of all folders in which somebody handed something in."""
    folder = Path(coursedir.format_path(coursedir.submitted_directory, "x", "x")).parents[1]
    return (path.name for path in folder.glob("*") if path.is_dir() and is_theirs(path.relative_to(folder)))


def read_graded(coursedir, assignment: str, student: str, lessons: list[str]) -> dict[str, NotebookNode | None]:
    """Return a student's graded notebooks by lesson; None for one that is not graded."""
    folder = Path(coursedir.format_path(coursedir.autograded_directory, student, assignment))
    paths = {lesson: folder / f"{lesson}.ipynb" for lesson in lessons}
    return {lesson: nbformat.read(path, as_version=4) if path.exists() else None for lesson, path in paths.items()}


def look_at(coursedir, assignment: str, student: str, graded: dict, elsewhere: set[str]) -> tuple[bool, list[str]]:
    """Return whether a student handed in anything, and what a person must look at; elsewhere is other assignments."""
    submitted = Path(coursedir.format_path(coursedir.submitted_directory, student, assignment))
    home = submitted.parent
    handed_in = [path for path in sorted(home.rglob("*.ipynb")) if is_theirs(path.relative_to(home), elsewhere)]
    if not handed_in:
        return False, ["NOT GRADED: handed in no notebook"]
    missing = [lesson for lesson in graded if submitted / f"{lesson}.ipynb" not in handed_in]
    others = [str(path.relative_to(home)) for path in handed_in if path.parent != submitted or path.stem not in graded]
    notes = [f"NOT GRADED: no {', '.join(missing)}"] * bool(missing)
    if others:
        notes.append(f"other notebooks: {', '.join(others)}" + "; rename, and grade again" * bool(missing))
    if len(missing) < len(graded) and not any(graded.values()):
        notes.append("NOT GRADED yet: grade, and see what is said")
    elif not is_graded(submitted, graded):
        notes.append("NOT GRADED: handed in again since; grade again")
    for lesson, notebook in graded.items():
        notes += [f"{lesson} {note}" for note in notes_of(notebook)] if notebook else []
    return True, notes


def is_theirs(path: Path, elsewhere: set[str] = frozenset()) -> bool:
    """Tell whether a file may be a student's work: not what a system or an environment keeps, nor of elsewhere."""
    kept = {"venv", "site-packages", "node_modules"} | elsewhere
    return not any(part.startswith((".", "__")) or part in kept for part in path.parts)


def is_graded(submitted: Path, graded: dict[str, NotebookNode | None]) -> bool:
    """Tell whether what was graded is what lies in a folder."""
    return all(
        (digest(path) if path.exists() else None) == (notebook and notebook.metadata.get("vpg", {}).get("digest"))
        for lesson, notebook in graded.items()
        for path in [submitted / f"{lesson}.ipynb"]
    )


def write_csv(name: str, header: list[str], rows: list[list]):
    """Write a table, for spreadsheets too: they take a file that begins so for UTF-8."""
    with open(name, "w", newline="", encoding="utf-8-sig") as file:
        csv.writer(file).writerows([header, *rows])


def print_table(rows: list[list]):
    """Print rows in columns."""
    texts = [[f"{value:g}" if isinstance(value, float) else str(value) for value in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
    for first, *others in texts:
        print(first.ljust(widths[0]), *(text.rjust(width) for text, width in zip(others, widths[1:], strict=True)))


# ---- A class side by side ------------------------------------------------------------------------


def stamp(submitted: Path):
    """Write what an exchange would have written, where it is missing or older than the newest notebook."""
    newest = max((path.stat().st_mtime for path in submitted.glob("*.ipynb")), default=0.0)
    handed_in = datetime.fromtimestamp(newest, timezone.utc)
    time, secret = (submitted / name for name in STAMPS)
    try:
        known = parse_utc(time.read_text(encoding="utf-8").strip()).replace(tzinfo=timezone.utc)
    except (OSError, ValueError, AttributeError):
        known = None
    if newest and (known is None or known < handed_in):
        time.unlink(missing_ok=True)
        time.write_text(f"{handed_in:%Y-%m-%d %H:%M:%S.%f} UTC", encoding="utf-8")
    if not secret.exists():
        secret.write_text(BY_HAND + secrets.token_hex(), encoding="utf-8")


def load() -> NbGrader:
    """Return an nbgrader with the settings of the folder we are in."""
    # Nothing that a teacher could do something about: nbgrader's database, and cells that are there twice.
    warnings.filterwarnings("ignore", "Object of type .* not in session|Non-unique cell id")
    app = NbGrader()
    app.initialize([])
    app.log.setLevel("WARNING")
    return app


def grade(assignment: str, student: str) -> tuple[str, str]:
    """Autograde one student; return what went wrong, or an empty string, and what nbgrader said."""
    app = load()
    # Writers wait for each other; SQLite would give up after five seconds.
    app.coursedir.db_url += "?timeout=300"
    result = NbGraderAPI(app.coursedir, parent=app).autograde(assignment, student, force=True)
    return result.get("error", ""), result.get("log", "")


def main():
    """Grade what is new, students side by side; then export the grades and report."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("assignment", help="vpg, say")
    parser.add_argument("--students", nargs="*", default=[], help="only these")
    parser.add_argument("--force", action="store_true", help="grade again what was graded")
    parser.add_argument("--side-by-side", type=int, default=os.cpu_count(), help="how many; one a core")
    settings = parser.parse_args()
    os.chdir(HERE)
    app = load()
    coursedir, assignment, students = app.coursedir, settings.assignment, []
    with Gradebook(coursedir.db_url, coursedir.course_id) as gradebook:
        if assignment not in [each.name for each in gradebook.assignments]:
            raise SystemExit(f"{assignment} is no assignment of {HERE}: nbgrader generate_assignment {assignment}")
        lessons = [notebook.name for notebook in gradebook.find_assignment(assignment).notebooks]
    for name in settings.students or sorted(submitting(coursedir)):
        submitted = Path(coursedir.format_path(coursedir.submitted_directory, name, assignment))
        if settings.students and not submitted.is_dir():
            raise SystemExit(f"{name} has handed in nothing: {submitted} is no folder")
        if any((submitted / f"{lesson}.ipynb").exists() for lesson in lessons):
            if settings.force or not is_graded(submitted, read_graded(coursedir, assignment, name, lessons)):
                stamp(submitted)
                # nbgrader would keep pages about what was handed in before.
                feedback = coursedir.format_path(coursedir.feedback_directory, name, assignment)
                shutil.rmtree(feedback, ignore_errors=True)
                students.append(name)
    # One thread a kernel: side by side, more would only get in each other's way.
    os.environ |= {"OMP_NUM_THREADS": "1"}
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(settings.side_by_side, context) as pool:
        running = {pool.submit(grade, assignment, name): name for name in students}
        for number, future in enumerate(as_completed(running), 1):
            error, said = future.result()
            print(f"{number} of {len(students)}: {running[future]}{' failed' * bool(error)}", flush=True)
            if "SystemExit" in error:
                pool.shutdown(cancel_futures=True)
                raise SystemExit(error.rpartition("SystemExit: ")[2])
            if error:
                print(said, file=sys.stderr)
    plugin = ClassReport(parent=app)
    with Gradebook(coursedir.db_url, coursedir.course_id) as gradebook:
        CsvExportPlugin.export(plugin, gradebook)
        ungraded = report(gradebook, coursedir, gradebook.find_assignment(assignment), settings.students)
    if ungraded:
        raise SystemExit(f"Without a full grade: {', '.join(ungraded)}")


if __name__ == "__main__":
    main()
