"""The exercise edition: made from the lessons, blank where it should be, and right when it is filled in."""

import os
import re
import subprocess
import sys
from xml.etree import ElementTree

import nbformat
import pytest
from build.course import modules, write_class
from build.edition import make_edition
from build.lessons import EDITION, LESSONS, ROOT, code_cells, has_tag, own, read
from catalogue import fill_in, read_catalogue, references, right_solutions, run
from graded import graded, points

import vpg_helpers as vpg
from vpg_lab.learner import KEPT_FUNCTIONS, with_my_functions
from vpg_lab.progress import blank

NAMES = [path.name for path in LESSONS]


@pytest.fixture(params=NAMES)
def edition(request):
    return read(EDITION / request.param)


# --- made from the lessons ----------------------------------------------------------------------------------


@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_committed_edition_is_what_the_lessons_make(path, tmp_path):
    nbformat.write(make_edition(path), tmp_path / path.name)
    assert (tmp_path / path.name).read_text(encoding="utf-8") == (EDITION / path.name).read_text(encoding="utf-8"), (
        "run notebooks/make.py"
    )


def test_edition_holds_no_other_notebook():
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
    def explains(output):
        return "image/png" in output.get("data", {}) and not output.metadata.get("stands_still")

    def pictures(notebook):
        return [cell for cell in code_cells(notebook) if any(map(explains, cell.outputs))]

    spoiling, shown, kept = 0, 0, 0
    for path in LESSONS:
        lesson, edition = read(path), read(EDITION / path.name)
        shown, kept = shown + len(pictures(lesson)), kept + len(pictures(edition))
        for cell, following in zip(lesson.cells, lesson.cells[1:], strict=False):
            if has_tag(cell, "spoils") or ("question" in own(cell) and following in pictures(lesson)):
                spoiling += 1
                source = (cell if has_tag(cell, "spoils") else following).source
                assert source not in [each.source for each in pictures(edition)]
    assert spoiling >= 5 and kept >= 0.6 * shown


def test_edition_folds_hints_and_reference(edition):
    texts = "\n".join(cell.source for cell in edition.cells if cell.cell_type == "markdown")
    blanks = [cell for cell in code_cells(edition) if "NotImplementedError" in cell.source]
    assert texts.count("<summary>Stuck? The reference</summary>") == len(blanks)
    assert texts.count("<summary>Hint 1</summary>") >= len(blanks)


def test_a_class_gets_no_folded_reference_and_no_link_to_what_it_does_not_get():
    for path in LESSONS[:2]:
        text = "\n".join(cell.source for cell in make_edition(path, LESSONS[:2]).cells if cell.cell_type == "markdown")
        assert "The reference</summary>" not in text and "make.py" not in text
        assert set(re.findall(r"\]\((?!\w+:)([^)#]*)", text)) == {LESSONS[path == LESSONS[0]].name}


def test_a_class_gets_the_lessons_that_are_named_in_a_folder_of_the_teacher_s_alone(tmp_path):
    write_class(tmp_path / "course/source/vpg", LESSONS[:1])
    assert [path.name for path in (tmp_path / "course/source/vpg").glob("*.ipynb")] == NAMES[:1]
    assert (tmp_path / "course").stat().st_mode & 0o777 == 0o700 or os.name != "posix"
    with pytest.raises(SystemExit, match="nothing.ipynb: no lesson; give some of"):
        write_class(tmp_path / "course/source/vpg", [ROOT / "nothing.ipynb"])


def test_a_teacher_s_own_settings_are_never_overwritten(tmp_path):
    write_class(tmp_path / "course/source/vpg")
    config = tmp_path / "course/nbgrader_config.py"
    config.write_text(config.read_text(encoding="utf-8") + "c.CourseDirectory.course_id = 'vpg101'\n", encoding="utf-8")
    write_class(tmp_path / "course/source/vpg")
    assert "vpg101" in config.read_text(encoding="utf-8"), "settings added below ours stay"
    names = [path.relative_to(ROOT) for path in modules()]
    assert {"vpg_lab/drive_cart.html", "vpg_lab/checks/lesson_01.py"} < {name.as_posix() for name in names}
    for name in names:
        assert (tmp_path / "course/source/vpg" / name).read_bytes() == (ROOT / name).read_bytes()
    config.write_text("c = get_config()  # mine\n", encoding="utf-8")
    with pytest.raises(SystemExit, match="holds other settings"):
        write_class(tmp_path / "course/source/vpg")
    assert config.read_text(encoding="utf-8") == "c = get_config()  # mine\n"
    with pytest.raises(SystemExit, match="is not COURSE/source/NAME"):
        write_class(tmp_path / "vpg")


def test_what_is_our_own_in_the_metadata_stands_under_one_key(edition):
    assert set(edition.metadata) == {"kernelspec", "language_info"}
    for cell in edition.cells:
        assert set(cell.metadata) <= {"tags", "vpg", "nbgrader", "jupyter", "cellView"}


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
    text = (tmp_path / "my_agent.py").read_text(encoding="utf-8")
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
    said = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, encoding="utf-8")
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
