"""A class of students, damaged and dishonest submissions among them, graded by the real nbgrader with our settings."""

import csv
import re
import shutil
import subprocess
import sys

import pytest
from build.lessons import NOTEBOOKS, code_cells, read
from graded import points
from nbgrader.api import Gradebook
from nbgrader_commands import Command
from students import CLASS, FIRST, NAMES, SECOND

from vpg_lab.learner import KEPT_FUNCTIONS


class Course:
    """A course folder, driven with nbgrader's commands; students hand in through an exchange, or as files."""

    def __init__(self, folder, lessons, settings="c.Judge.cpu_seconds = 10"):
        self.folder, self.lessons = folder, lessons
        self.course, self.submitted = folder / "course", folder / "course/submitted"
        for_class = [sys.executable, NOTEBOOKS / "make.py", "--for-class", self.course / "source/vpg"]
        subprocess.run(for_class, check=True)
        for path in (self.course / "source/vpg").glob("*.ipynb"):
            if path.name not in lessons:
                path.unlink()
        with (self.course / "nbgrader_config.py").open("a", encoding="utf-8") as config:
            print(settings, file=config)
        self.run("generate_assignment", "vpg")

    def start(self, *command, folder=None):
        log = self.folder / f"{'_'.join(command)}.log"
        return Command(list(command), folder or self.course, {"JUPYTER_DATA_DIR": str(self.folder / "data")}, log)

    def run(self, *command, folder=None, ends_with=0):
        self.start(*command, folder=folder).finish(ends_with=ends_with)

    def grade(self):
        """Grade what is new; return the exit status."""
        graded = subprocess.run(
            [sys.executable, "vpg_grading.py", "vpg"], cwd=self.course, capture_output=True, text=True, encoding="utf-8"
        )
        self.said = graded.stdout + graded.stderr
        return graded.returncode

    def grades(self):
        """Return the class report, by student; the points as numbers."""
        with (self.course / "class_report_vpg.csv").open(encoding="utf-8-sig") as report:
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


CORE = ["loses_metadata", "shadows_builtins", "replaces_judge"]


@pytest.mark.parametrize("names", [CORE, pytest.param([*CLASS], marks=pytest.mark.slow)], ids=["core", "whole class"])
def test_every_submission_gets_its_points_or_a_note(tmp_path, names):
    """Handed in as files, as a learning platform gives them; graded side by side, and reported."""
    course = Course(tmp_path, [FIRST, SECOND] if len(names) > len(CORE) else [SECOND])
    for name in names:
        shutil.copytree(course.course / "release/vpg", course.submitted / name / "vpg")
        CLASS[name].did(course.submitted / name / "vpg")
    (course.submitted / "nothing").mkdir()
    first, second = points(FIRST) if FIRST in course.lessons else {}, points(SECOND)
    assert course.grade() == 1 and re.search("Without a full grade: .*nothing", course.said), course.said
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
        (home / "nbgrader_config.py").write_text("\n".join(["c = get_config()", *settings]), encoding="utf-8")
        course.run("fetch_assignment", "vpg", folder=home)
        CLASS[name].did(home / "vpg")
        course.run("submit", "vpg", f"--student={name}", folder=home)
    course.run("collect", "vpg")
    shutil.copytree(tmp_path / "perfect/vpg", course.submitted / "by_hand/vpg")
    assert course.grade() == 0, course.said
    worth = sum(sum(points(name).values()) for name in NAMES)
    assert {name: row["total"] for name, row in course.grades().items()} == {
        "perfect": worth,
        "by_hand": worth,
        "blank": 0,
    }
    assert not any(row["look at"] for row in course.grades().values())
    assert course.lost("perfect") == set()
    program = (course.course / "autograded/perfect/vpg/my_agent.py").read_text(encoding="utf-8")
    assert all(f"\ndef {name}(" in program for name in KEPT_FUNCTIONS)
    course.run("generate_feedback", "vpg")
    page = (course.course / "feedback/blank/vpg/02_policy.html").read_text(encoding="utf-8")
    assert page.count("get_policy: not written yet") == 4, "in the summary and below it, for both of its checks"
    course.run("release_feedback", "vpg")
    course.run("fetch_feedback", "vpg", folder=tmp_path / "perfect")
    assert list((tmp_path / "perfect").rglob("02_policy.html"))


@pytest.mark.slow
def test_where_the_project_cannot_be_imported_nothing_is_graded(tmp_path):
    course = Course(tmp_path, [SECOND])
    shutil.copytree(course.course / "release/vpg", course.submitted / "somebody/vpg")
    (course.course / "source/vpg/vpg_lab/checks/__init__.py").write_text("import no_such_module", encoding="utf-8")
    assert course.grade() == 1 and "cannot check exercises (ModuleNotFoundError" in course.said
    assert not (course.course / "autograded/somebody/vpg").exists()


@pytest.mark.slow
def test_what_comes_later_in_a_term_is_graded_and_said(tmp_path):
    """Handed in by hand, renamed, handed in again, points by hand, late, and a second assignment."""
    course = Course(tmp_path, [FIRST])
    for name in ("ada", "ben", "eve"):
        shutil.copytree(course.course / "release/vpg", course.submitted / name / "vpg")
    CLASS["perfect"].did(course.submitted / "ben/vpg")
    (course.submitted / "eve/vpg" / FIRST).rename(course.submitted / "eve/vpg/solved.ipynb")
    course.run("db", "assignment", "add", "vpg", "--duedate=2020-01-01 12:00 UTC")
    assert course.grade() == 1
    notes = {name: row["look at"] for name, row in course.grades().items()}
    assert notes["eve"] == "NOT GRADED: no 01_model; other notebooks: vpg/solved.ipynb; rename, and grade again"
    assert re.fullmatch(r"late by \d+ days, [\d:]+, going by the date of the newest file, .*", notes["ben"])
    check = "check_create_model_1"
    with Gradebook(f"sqlite:///{course.course}/gradebook.db") as gradebook:  # what formgrader does
        grade = gradebook.find_grade(check, "01_model", "vpg", "ada")
        grade.manual_score, grade.needs_manual_grade = 0.5, False
        gradebook.find_comment("create_model", "01_model", "vpg", "ada").manual_comment = "a **start**"
        gradebook.db.commit()
    course.run("generate_feedback", "vpg")
    shutil.rmtree(course.submitted / "ada")
    shutil.copytree(course.submitted / "ben", course.submitted / "ada")  # she hands in again
    (course.submitted / "eve/vpg/solved.ipynb").rename(course.submitted / "eve/vpg" / FIRST)
    generated = course.course / "source/vpg"
    shutil.copytree(generated, generated.with_name("later"))
    course.run("generate_assignment", "later")
    assert course.grade() == 0
    worth, row = sum(points(FIRST).values()), course.grades()["ada"]
    assert row["total"] == worth - points(FIRST)[check] + 0.5
    assert f"01_model {check}: 0.5 by hand; the check gives" in row["look at"]
    assert course.grades()["eve"]["total"] == 0 and "NOT GRADED" not in course.grades()["eve"]["look at"]
    assert not (course.course / "class_report_later.csv").exists()
    course.run("generate_feedback", "vpg")
    page = (course.course / "feedback/ada/vpg/01_model.html").read_text(encoding="utf-8")
    for said in (
        f"<b>{row['total']:g}</b> of {worth}",
        "◐ in part",
        "graded by hand",
        "<strong>start</strong>",
        ">ada<",
    ):
        assert said in page, said
    assert "No response" not in page
    files = {path.name for path in (course.course / "feedback/ada/vpg").rglob("*")}
    assert files == {"01_model.html", "timestamp.txt", "submission_secret.txt"}
