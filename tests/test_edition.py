"""The exercise edition: made from the lessons, blank where it should be, and graded right by the real nbgrader."""

import csv
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import nbformat
import pytest
from catalogue import fill_in, read_catalogue, references, right_solutions, run
from make import (
    EDITION,
    LESSONS,
    NOTEBOOKS,
    ROOT,
    blank,
    code_cells,
    exercises_of,
    has_tag,
    make_edition,
    questions_of,
    read,
    weigh,
    write_class,
)
from nbgrader_commands import Command

import vpg_helpers as vpg
from vpg_checks import KEPT_FUNCTIONS, with_my_functions

NAMES = [path.name for path in LESSONS]


def graded(notebook):
    return [cell for cell in notebook.cells if cell.metadata.get("nbgrader", {}).get("grade")]


@pytest.fixture(params=NAMES)
def edition(request):
    return read(EDITION / request.param)


# --- made from the lessons ----------------------------------------------------------------------------------


@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_committed_edition_is_what_the_lessons_make(path, tmp_path):
    nbformat.write(make_edition(path), tmp_path / path.name)
    assert (tmp_path / path.name).read_text() == (EDITION / path.name).read_text(), "run notebooks/make.py"


def test_edition_holds_a_notebook_for_every_lesson():
    assert sorted(path.name for path in EDITION.glob("*.ipynb")) == NAMES


def test_edition_says_what_made_it_and_has_a_line_for_every_claim(edition):
    assert "by `notebooks/make.py`: its text is edited there and not here" in edition.cells[0].source
    lines = [cell.source for cell in code_cells(edition, "check") if cell.source.startswith("check(")]
    assert lines and len(set(lines)) == len(lines) and not any("\n" in line for line in lines)


def test_blank_keeps_signature_and_docstring_and_loses_the_body():
    kept = 'def f(\n    a: int,\n) -> int:\n    """Say what is asked for.\n\n    In detail.\n    """\n'
    assert blank(kept + "    return a  # why\n") == kept + '    raise NotImplementedError("f is not written yet")'
    with pytest.raises(ValueError, match="f has no docstring"):
        blank("def f():\n    return 1")


def test_no_code_cell_gives_a_solution_away(edition):
    """Not in plain text: what go_on falls back to is sealed."""
    for name, source in references().items():
        body = strip_lines(source[len(blank(source).rpartition("\n")[0]) :])
        assert len(body) > 15, name
        assert not any(body in strip_lines(cell.source) for cell in code_cells(edition)), name


def strip_lines(source):
    return "\n".join(line.strip() for line in source.strip().splitlines())


def test_outputs_are_pictures_that_explain_and_no_answers(edition):
    for cell in code_cells(edition):
        assert cell.execution_count is None
        assert all("image/png" in output.get("data", {}) for output in cell.outputs)
        assert not (cell.outputs and has_tag(cell, "spoils"))
    assert not re.search(r"<summary>Answer</summary>", edition.cells[-1].source)


def test_pictures_stay_but_for_those_that_would_spoil_a_prediction():
    def pictures(notebook):
        return [
            cell for cell in code_cells(notebook) if any("image/png" in each.get("data", {}) for each in cell.outputs)
        ]

    spoiling, shown, kept = 0, 0, 0
    for path in LESSONS:
        lesson, edition = read(path), read(EDITION / path.name)
        shown, kept = shown + len(pictures(lesson)), kept + len(pictures(edition))
        for cell, following in zip(lesson.cells, lesson.cells[1:], strict=False):
            if has_tag(cell, "spoils") or ("question" in cell.metadata and following in pictures(lesson)):
                spoiling += 1
                source = (cell if has_tag(cell, "spoils") else following).source
                assert source not in [each.source for each in pictures(edition)]
    assert spoiling >= 5 and kept >= 0.6 * shown


def test_edition_folds_hints_and_reference(edition):
    texts = "\n".join(cell.source for cell in edition.cells if cell.cell_type == "markdown")
    blanks = [cell for cell in code_cells(edition) if "NotImplementedError" in cell.source]
    assert texts.count("<summary>Stuck? The reference</summary>") == len(blanks)
    assert texts.count("<summary>Hint 1</summary>") >= len(blanks)


def test_class_edition_has_no_folded_reference():
    cells = make_edition(LESSONS[0], with_reference=False).cells
    assert not any("The reference</summary>" in cell.source for cell in cells)


def test_a_teacher_s_own_settings_are_never_overwritten(tmp_path):
    write_class(tmp_path / "course/source/vpg")
    config = tmp_path / "course/nbgrader_config.py"
    config.write_text(config.read_text() + "c.CourseDirectory.course_id = 'vpg101'\n")
    write_class(tmp_path / "course/source/vpg")
    assert "vpg101" in config.read_text(), "settings added below ours stay"
    config.write_text("c = get_config()  # mine\n")
    with pytest.raises(SystemExit, match="holds other settings"):
        write_class(tmp_path / "course/source/vpg")
    assert config.read_text() == "c = get_config()  # mine\n"
    with pytest.raises(SystemExit, match="is not COURSE/source/NAME"):
        write_class(tmp_path / "vpg")


def test_teacher_s_table_is_right():
    text = (EDITION / "README.md").read_text()
    lessons = [read(path) for path in LESSONS]
    for path, lesson in zip(LESSONS, lessons, strict=True):
        (row,) = [line for line in text.splitlines() if line.startswith(f"| [{path.stem}]({path.name})")]
        _, _, functions, reading, exercises, points_, _ = (part.strip() for part in row.split("|"))
        assert functions == ", ".join(f"`{name}`" for name in exercises_of(lesson))
        assert f"**Time:** {reading} minutes" in lesson.cells[0].source
        assert {"minutes": int(exercises), "points": int(points_)}.items() <= weigh(lesson).items()
    kinds = [question["kind"] for lesson in lessons for question in questions_of(lesson)]
    counts = len(references()), kinds.count("predict"), kinds.count("find"), kinds.count("quiz")
    assert tuple(map(int, re.findall(r"\d+", text.split("\n")[2])))[:4] == counts


def test_cells_carry_nbgrader_metadata(edition):
    identifiers = [cell.metadata["nbgrader"]["grade_id"] for cell in edition.cells if "nbgrader" in cell.metadata]
    assert len(set(identifiers)) == len(identifiers) and all(re.fullmatch(r"\w+", each) for each in identifiers)
    solutions = {each.metadata["nbgrader"]["grade_id"] for each in edition.cells if is_solution(each)}
    assert solutions and all(cell.metadata["nbgrader"]["points"] >= 1 for cell in graded(edition))
    for identifier in solutions:
        assert any(
            re.fullmatch(rf"check_{identifier}(_\d)?", each.metadata["nbgrader"]["grade_id"])
            for each in graded(edition)
        )


def is_solution(cell):
    return cell.metadata.get("nbgrader", {}).get("solution", False)


# --- run, blank and filled in -------------------------------------------------------------------------------


def run_exercises(name):
    """Run what an exercise notebook sets up, asks for, checks and goes on with, in this process; return what fails.

    The cells between them, which show and train, are the lesson's own and run with the lessons.
    """
    namespace, failures = {"__name__": "__main__"}, {}
    for cell in code_cells(read(EDITION / name)):
        identifier = cell.metadata.get("nbgrader", {}).get("grade_id")
        if identifier or has_tag(cell, "setup") or has_tag(cell, "given"):
            source = SOLUTIONS.get(name, {}).get(identifier, cell.source) if is_solution(cell) else cell.source
            try:
                run(source, namespace)
            except AssertionError as failure:  # CheckFailed of the module with the learner's functions
                failures[identifier] = str(failure)
    return failures


SOLUTIONS = right_solutions()


def test_filled_in_nothing_fails_and_lesson_5_trains_the_learner_s_program(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in NAMES:
        assert run_exercises(name) == {}, name
    text = (tmp_path / "my_agent.py").read_text()
    assert all(f"# ---- {function} ----" in text for function in KEPT_FUNCTIONS)
    mine = with_my_functions(*KEPT_FUNCTIONS)
    _, curve = mine.train(epochs=2, max_timesteps=100)
    assert curve == vpg.train(epochs=2, max_timesteps=100)[1]


def test_blank_every_check_says_not_written_yet(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys.modules[__name__], "SOLUTIONS", {})
    for name in NAMES:
        failures = run_exercises(name)
        assert set(failures) == set(points(name)), name
        assert all("not written yet" in said for said in failures.values())
    assert not (tmp_path / "my_agent.py").exists()


def run_under_nbval(folder, names):
    """Return what every failing cell says: (notebook, number of the code cell) -> text."""
    report = folder / "report.xml"
    guards = ["-p", "notebook_guards", "-p", "no:cacheprovider", "-o", "addopts=", "-o", "norecursedirs="]
    nbval = ["--nbval-lax", "--nbval-current-env", "--nbval-cell-timeout=120", f"--junitxml={report}"]
    command = [sys.executable, "-m", "pytest", "-q", *guards, *nbval, f"--rootdir={folder}", *names]
    environment = os.environ | {"PYTHONPATH": str(ROOT / "tests")}
    said = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert said.returncode in (0, 1), said.stdout + said.stderr
    cases = ElementTree.parse(report).iter("testcase")
    failures, run = {}, 0
    for case in cases:
        run += 1
        name = case.get("classname").split(".")[-1] if ".ipynb" not in case.get("classname") else case.get("classname")
        number = int(case.get("name").split()[-1])
        for failure in case.findall("failure"):
            failures[re.search(r"\d\d_\w+", name)[0] + ".ipynb", number] = failure.get("message") + failure.text
    assert run == sum(len(code_cells(read(folder / name))) for name in names)
    return failures


def run_edition(tmp_path, names, solutions):
    for name in names:
        notebook = fill_in(read(EDITION / name), solutions.get(name, {}))
        for cell in code_cells(notebook):
            cell.outputs = []  # nbval wants no pictures in cells without a number
        nbformat.write(notebook, tmp_path / name)
    return run_under_nbval(tmp_path, names)


@pytest.mark.slow
def test_filled_in_every_cell_passes_under_nbval(tmp_path):
    assert run_edition(tmp_path, NAMES, SOLUTIONS) == {}


@pytest.mark.slow
@pytest.mark.parametrize("number", [0, 1])
def test_filled_in_with_other_styles_every_cell_passes_under_nbval(tmp_path, number):
    """What follows an exercise must not lean on the way in which the lesson solves it."""
    solutions = {name: dict(known) for name, known in SOLUTIONS.items()}
    for name in NAMES:
        for exercise in references().keys() & solutions[name].keys():
            styles = [answer.code for answer in read_catalogue("right_answers.txt") if answer.exercise == exercise]
            solutions[name][exercise] = styles[number % len(styles)]
    assert run_edition(tmp_path, NAMES, solutions) == {}


@pytest.mark.slow
def test_blank_nothing_but_the_checks_fails_under_nbval(tmp_path):
    failures = run_edition(tmp_path, NAMES, {})
    expected = {
        (name, number)
        for name in NAMES
        for number, cell in enumerate(code_cells(read(EDITION / name)))
        if cell in graded(read(EDITION / name))
    }
    assert set(failures) == expected
    assert all("not written yet" in said for said in failures.values())


# --- a class, with the real nbgrader ------------------------------------------------------------------------

ENDLESS = "def get_policy(model, observation):\n    while True:\n        pass"
MISTAKES = {
    # student: (blank, what was written there, the checks that must take points)
    "twice_softmax": ("get_policy", "    return Categorical(logits=torch.softmax(logits, dim=-1))", {1, 2}),
    "flat_batch": ("get_policy", "    return Categorical(logits=logits.flatten())", {2}),
    "wrong_sign": ("probability_of_right", "    return 1 / (1 + torch.exp(difference))", {1}),
}


class Course:
    """A course folder, an exchange and students' homes, driven with nbgrader's commands."""

    def __init__(self, folder, lessons):
        self.folder, self.lessons = folder, lessons
        self.course, exchange = folder / "course", folder / "exchange"
        exchange.mkdir()
        exchange.chmod(0o777)
        for_class = [sys.executable, NOTEBOOKS / "make.py", "--for-class", self.course / "source/vpg"]
        subprocess.run(for_class, check=True)
        for path in (self.course / "source/vpg").glob("*.ipynb"):
            if path.name not in lessons:
                path.unlink()
        shutil.copy(self.course / "nbgrader_config.py", folder / "nbgrader_config.py")
        with (folder / "nbgrader_config.py").open("a") as config:
            print("c.CourseDirectory.course_id = 'vpg101'", file=config)
            print(f"c.Exchange.root = {str(exchange)!r}", file=config)
            print("c.ExchangeCollect.check_owner = False", file=config)  # one user plays all the students here
            print("c.Execute.timeout = 10" if len(lessons) == 1 else "", file=config)
        shutil.copy(folder / "nbgrader_config.py", self.course)
        self.run("generate_assignment", "vpg")
        self.run("release_assignment", "vpg")

    def start(self, *command, folder=None):
        # nbgrader calls alembic by its name
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        environment = {"PATH": path, "JUPYTER_DATA_DIR": str(self.folder / "data")}
        log = self.folder / f"{'_'.join(command)}.log"
        return Command(list(command), folder or self.course, environment, log)

    def run(self, *command, folder=None):
        self.start(*command, folder=folder).finish()

    def hand_in(self, solutions):
        """Fetch as a student, fill in and submit, for every student: {student: {notebook: {grade_id: source}}}."""
        fetched = self.folder / "fetched"
        fetched.mkdir()
        shutil.copy(self.folder / "nbgrader_config.py", fetched)
        self.run("fetch_assignment", "vpg", folder=fetched)
        submitting = []
        for student, notebooks in solutions.items():
            home = self.folder / student
            shutil.copytree(fetched, home)
            for name in self.lessons:
                path = home / "vpg" / name
                nbformat.write(fill_in(read(path), notebooks.get(name, {})), path)
            submitting.append(self.start("submit", "vpg", f"--student={student}", folder=home))
        for command in submitting:
            command.finish()

    def grade(self):
        """Collect and autograde; return each student's score."""
        self.run("collect", "vpg")
        self.run("autograde", "vpg")
        self.run("export")
        with (self.course / "grades.csv").open() as grades:
            return {row["student_id"]: float(row["score"]) for row in csv.DictReader(grades)}

    def verdicts(self, student):
        """Return the graded cells of a student, those with points and those without: two sets of grade ids."""
        passed, failed = set(), set()
        for name in self.lessons:
            for cell in graded(read(self.course / "autograded" / student / "vpg" / name)):
                wrong = any(output.output_type == "error" for output in cell.outputs)
                (failed if wrong else passed).add(cell.metadata["nbgrader"]["grade_id"])
        return passed, failed


def points(name):
    """Return what each graded cell of a notebook is worth, by grade_id."""
    cells = [cell.metadata["nbgrader"] for cell in graded(read(EDITION / name))]
    return {cell["grade_id"]: cell["points"] for cell in cells}


THE_WHOLE_CLASS = ["perfect", "empty", "half", "endless", *MISTAKES]


@pytest.mark.parametrize(
    "students",
    # Half of it blank, and all of it with a mistake in one claim: between them every kind of cell is won and lost.
    [["half", "flat_batch"], pytest.param(THE_WHOLE_CLASS, marks=pytest.mark.slow)],
    ids=["two", "whole class"],
)
def test_nbgrader_marks_a_class(tmp_path, students):
    name, right = "02_policy.ipynb", right_solutions()
    half = {"probability_of_right", "who_gains_from_5", "timid_line"}
    last_line = {blank_name: references()[blank_name].splitlines()[-1] for blank_name, _, _ in MISTAKES.values()}
    classroom = {
        "perfect": right[name],
        "empty": {},
        "half": {blank_name: right[name][blank_name] for blank_name in half},
        "endless": right[name] | {"get_policy": ENDLESS},
    }
    for student, (blank_name, wrong, _) in MISTAKES.items():
        mistaken = references()[blank_name].replace(last_line[blank_name], wrong)
        classroom[student] = right[name] | {blank_name: mistaken}
    course = Course(tmp_path, [name])
    course.hand_in({student: {name: classroom[student]} for student in students})
    scores, worth = course.grade(), points(name)
    lost = {
        "perfect": set(),
        "empty": set(worth),
        "half": set(worth) - {"check_probability_of_right_1", "check_who_gains_from_5", "check_timid_line"},
        "endless": {"check_get_policy_1", "check_get_policy_2"},
        **{
            student: {f"check_{blank_name}_{number}" for number in numbers}
            for student, (blank_name, _, numbers) in MISTAKES.items()
        },
    }
    assert set(scores) == set(students)
    for student in students:
        checks = lost[student]
        assert course.verdicts(student)[1] == checks, student
        assert scores[student] == sum(worth.values()) - sum(worth[check] for check in checks), student


@pytest.mark.slow
def test_nbgrader_gives_full_marks_and_none_for_all_six_lessons(tmp_path):
    course = Course(tmp_path, NAMES)
    course.hand_in({"perfect": right_solutions(), "empty": {}})
    assert course.grade() == {"perfect": sum(sum(points(name).values()) for name in NAMES), "empty": 0}
    assert course.verdicts("perfect")[1] == set()
    program = (course.course / "autograded/perfect/vpg/my_agent.py").read_text()
    assert all(f"\ndef {name}(" in program for name in KEPT_FUNCTIONS)
