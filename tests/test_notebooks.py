"""The lessons as documents: well formed, executed, readable, and building what vpg_helpers.py holds."""

import ast
import math
import re
import subprocess
import sys
from urllib.parse import unquote

import nbformat
import numpy as np
import pytest
import torch
from build.edition import ANSWER
from build.executing import execute, fingerprint, is_stale, ruff
from build.lessons import (
    LESSONS,
    NOTEBOOKS,
    ROOT,
    check_lines,
    check_of,
    code_cells,
    exercises_of,
    has_tag,
    own,
    questions_of,
    read,
)
from build.links import with_badges, with_neighbors
from nbclient.exceptions import CellExecutionError
from taught import functions, taught_part

from vpg_lab import small_world
from vpg_lab.checks import CLAIMS
from vpg_lab.learner import KEPT_FUNCTIONS

MACHINE = re.compile(r"/home/|/root/|/tmp/|/Users/|\\Users\\|0x[0-9a-f]{6,}|site-packages")
KNOWN_TAGS = {"exercise", "check", "setup", "given", "spoils", "trainer", "nbval-ignore-output"}
KNOWN_METADATA = {"tags", "vpg", "jupyter"}


@pytest.fixture(params=LESSONS, ids=lambda path: path.stem)
def lesson(request):
    return read(request.param)


def test_no_notebook_is_left_out_of_the_list():
    assert LESSONS == sorted(LESSONS, key=lambda path: path.name)
    assert set(LESSONS) == {*NOTEBOOKS.glob("[0-9]*.ipynb"), *(NOTEBOOKS / "companion").glob("*.ipynb")}


@pytest.mark.parametrize("name", KEPT_FUNCTIONS)
def test_lesson_and_helper_define_the_same_function(name):
    helper = functions((ROOT / "vpg_helpers.py").read_text(encoding="utf-8"))[name]
    (taught,) = [cell for lesson in map(read, LESSONS) for each, cell in exercises_of(lesson).items() if each == name]
    assert "refuse_bad_" in ast.unparse(helper) and "refuse_bad_" not in taught.source
    assert taught_part(functions(taught.source)[name]) == taught_part(helper)


def test_lesson_4_and_helper_list_the_same_small_world():
    namespace = {"np": np, "torch": torch}
    for cell in code_cells(read(NOTEBOOKS / "04_pseudo_loss.ipynb"), "setup")[1:3]:
        exec(cell.source, namespace)
    assert np.array_equal(namespace["START"], small_world.START) and np.array_equal(
        namespace["DYNAMICS"], small_world.DYNAMICS
    )
    assert namespace["trajectories"] == small_world.list_trajectories()[0]


def test_the_helper_s_six_functions_stand_together_and_in_order():
    names = tuple(functions((ROOT / "vpg_helpers.py").read_text(encoding="utf-8")))
    assert names[:6] == KEPT_FUNCTIONS


def test_an_exercise_holds_one_documented_function_and_its_check_is_one_line(lesson):
    """The reader sees a value by hand first; nothing that the check needs stands in between."""
    cells = code_cells(lesson)
    for name, cell in exercises_of(lesson).items():
        (function,) = ast.parse(cell.source).body
        assert ast.get_docstring(function)
        text, check = check_of(lesson, name)
        assert text.cell_type == "markdown" and not set(text.metadata) and "##" not in text.source
        assert "\n" not in check.source
        assert len(check_lines(check.source)) == len(CLAIMS[name]) == len(own(cell)["exercise"]["points"])
        between = cells[cells.index(cell) + 1 : cells.index(check)]
        assert len(between) == 1 and between[0].outputs and not between[0].metadata
        assert len(between[0].source.splitlines()) <= 5


def test_what_only_judges_is_a_tenth_of_a_lesson_at_most(lesson):
    lines = {cell.id: len(cell.source.split("\n")) for cell in code_cells(lesson)}
    judging = [cell for cell in code_cells(lesson)[2:] if has_tag(cell, "check") or has_tag(cell, "setup")]
    assert sum(lines[cell.id] for cell in judging) <= 0.1 * sum(lines.values())


def test_lesson_5_shows_learning_before_its_middle():
    lesson = read(NOTEBOOKS / "05_training.ipynb")
    (first, *_) = [place for place, cell in enumerate(lesson.cells) if "LiveCurve" in cell.source]
    assert first < len(lesson.cells) / 2 and "image/png" in str(lesson.cells[first].outputs)
    assert sum(bool(line.strip()) for cell in code_cells(lesson) for line in cell.source.splitlines()) <= 230


def test_no_other_cell_takes_the_name_of_an_exercise(lesson):
    """Or a learner who comes back to an exercise would have a check judge a tensor."""
    names = {*exercises_of(lesson), *(question["name"] for question in questions_of(lesson))}
    for cell in code_cells(lesson):
        if not has_tag(cell, "exercise"):
            nodes = [node for node in ast.walk(ast.parse(cell.source)) if isinstance(node, ast.Name)]
            assert not names & {node.id for node in nodes if isinstance(node.ctx, ast.Store)}


def test_lessons_have_exercises_of_every_kind(lesson):
    """One function at least, one prediction, one line to find; hints that grow, and a quiz of three."""
    exercises = [own(cell)["exercise"] for cell in code_cells(lesson, "exercise")]
    questions = questions_of(lesson)
    assert exercises and {question["kind"] for question in questions[:-3]} == {"predict", "find"}
    assert (
        [question["kind"] for question in questions[-3:]]
        == ["quiz"] * 3
        == [question["kind"] for question in own(lesson.cells[-1])["quiz"]]
    )
    assert all(2 <= len(settings["hints"]) <= 3 for settings in exercises)
    for settings in [*exercises, *questions]:
        assert 1 <= settings["stars"] <= 4 and settings["minutes"] >= 1 and min(settings["points"]) >= 1
    for question in questions:
        sentences = list(question["choices"].values())
        assert question["answer"] in question["choices"] and len(set(sentences)) == len(sentences) >= 3
        assert set(question.get("texts", question["choices"])) == set(question["choices"])
        assert all(choice == choice.strip().lower() for choice in question["choices"])


def test_a_question_ends_in_its_folded_answer(lesson):
    for cell in lesson.cells:
        if "question" in own(cell):
            assert len(ANSWER.findall(cell.source)) == 1 and cell.source.endswith("</details>")


def test_executed_in_order_without_errors_or_stderr(lesson):
    assert [cell.execution_count for cell in code_cells(lesson)] == list(range(1, len(code_cells(lesson)) + 1))
    for cell in code_cells(lesson):
        for output in cell.outputs:
            assert output.output_type != "error"
            assert output.get("name") != "stderr", output.get("text")


def test_nothing_of_the_machine_that_ran_it_is_left(lesson):
    assert set(lesson.metadata) == {"kernelspec", "language_info", "vpg"}
    for cell in lesson.cells:
        assert set(cell.metadata) <= KNOWN_METADATA and set(cell.metadata.get("tags", [])) <= KNOWN_TAGS
        texts = [cell.source]
        for output in cell.get("outputs", []):
            texts += [output.get("text", "")] + [
                text for kind, text in output.get("data", {}).items() if kind.startswith("text/")
            ]
        assert not MACHINE.search("\n".join(texts)), cell.source


def test_every_picture_has_a_sentence_in_its_place(lesson):
    for cell in code_cells(lesson):
        for output in cell.outputs:
            data = output.get("data", {})
            if "image/png" in data:
                assert re.fullmatch(r"[A-Z0-9].{20,}[.]", data["text/plain"]), data["text/plain"]
            # An untrusted page, GitHub's for one, drops scripts and SVG: what is left must read as a sentence.
            if "text/html" in data:
                without_script = re.sub(r"<script>.*</script>", "", data["text/html"], flags=re.S)
                assert re.search(r"<p>[A-Z][^<]+[.]</p>", without_script) and "<svg" not in without_script
                assert 'aria-label="' in without_script
            assert "application/vnd.jupyter.widget-view+json" not in data
    for cell in lesson.cells:
        assert "![](" not in cell.source and "<img" not in cell.source


def test_sentences_stand_between_code_cells(lesson):
    kinds = [cell.cell_type for cell in lesson.cells]
    assert all("code" != a or "code" != b for a, b in zip(kinds, kinds[1:], strict=False))
    assert kinds[0] == kinds[-1] == "markdown"


def test_cells_are_short_and_plain(lesson):
    sources = [cell.source for cell in code_cells(lesson)]
    assert all(sum(bool(line.strip()) for line in source.splitlines()) <= 25 for source in sources)
    assert not any("filterwarnings" in source or "import *" in source for source in sources)


def test_opening_and_ending_hold_what_a_reader_needs(lesson):
    first, last = lesson.cells[0].source, lesson.cells[-1].source
    assert len(first.split()) <= 150
    assert re.match(r"# \d+\. .+\?\n", first) and "**Time:**" in first and "**You need:**" in first
    assert "## Words for this lesson" in "\n".join(cell.source for cell in lesson.cells)
    for heading in ("**Recap**", "**Three questions**", "**In Spinning Up:**", "**Next:**"):
        assert heading in last
    assert last.count("<details>") == 3
    assert "https://spinningup.openai.com/en/latest/" in last


def test_stated_minutes_follow_the_rule(lesson):
    """130 words a minute and five seconds for a line of code, rounded up to five minutes."""
    texts = [
        re.sub(r"```.*?```|\]\([^)]*\)", "", cell.source, flags=re.S) for cell in lesson.cells if "outputs" not in cell
    ]
    words = sum(len(re.findall(r"[A-Za-z][\w'’-]*", text)) for text in texts)
    lines = sum(bool(line.strip()) for cell in code_cells(lesson) for line in cell.source.splitlines())
    minutes = 5 * math.ceil((words / 130 + lines * 5 / 60) / 5)
    assert f"**Time:** {minutes} minutes" in lesson.cells[0].source


def test_predictions_have_folded_answers(lesson):
    predictions = [cell.source for cell in lesson.cells if "**Predict first.**" in cell.source]
    assert predictions
    for source in predictions:
        assert source.count("**Predict first.**") <= source.count("<details><summary>Answer</summary>")


PAGES = [ROOT / "README.md", ROOT / ".github/CONTRIBUTING.md", *NOTEBOOKS.glob("**/README.md")]
PAGES += sorted(NOTEBOOKS.glob("**/[0-9][0-9]_*.ipynb"))
CODE = r"```.*?```|\$\$.*?\$\$"  # and formulas: their brackets are no links


def text_of(path):
    """Return the Markdown of a page or a notebook, without code and formulas that stand on lines of their own."""
    if path.suffix != ".ipynb":
        return re.sub(CODE, "", path.read_text(encoding="utf-8"), flags=re.S)
    cells = [cell.source for cell in read(path).cells if cell.cell_type == "markdown"]
    return "\n".join(re.sub(CODE, "", source, flags=re.S) for source in cells)


def anchors_of(path):
    """Return what a link may name: a notebook's headings as Jupyter spells them, a page's as GitHub does."""
    headings = [heading.strip().replace("`", "") for heading in re.findall(r"^#+ (.+)$", text_of(path), flags=re.M)]
    if path.suffix != ".ipynb":
        headings = [re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings]
    return {heading.replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_link_inside_the_project_leads_somewhere(path):
    without_formulas = re.sub(r"`[^`\n]*`|\$[^$\n]*\$", "", text_of(path))
    links = re.findall(r"\]\((?!https?:)([^)\s]*)\)", without_formulas)
    for link in links:
        file, _, anchor = unquote(link).partition("#")
        target = (path.parent / file).resolve() if file else path
        assert target.exists(), f"{path.name} links to {link}"
        assert not anchor or anchor in anchors_of(target), f"{path.name} links to {link}; there is {anchors_of(target)}"


def test_every_row_of_the_map_names_a_section_or_says_why_not():
    text = (NOTEBOOKS / "companion/README.md").read_text(encoding="utf-8")
    tables, answers = text[text.index("## [Part 1") :].split("## What learners ask beyond that")
    rows = re.findall(r"^\| (.+) \| (.+) \|$", tables, flags=re.M)
    rows = [row for row in rows if not row[1].startswith("lesson and section")]
    elsewhere = [row for row in rows if re.match("not here: .", row[1])]
    # The exercise edition is the one place that is no section of a lesson.
    target = r"\[(\d+, .+?\]\((\.\./)?\d\d_\w+\.ipynb#|the exercise edition\])"
    assert all(re.match(target, where) for row, where in rows if (row, where) not in elsewhere)
    counts = f"Of {len(rows)} rows {len(rows) - len(elsewhere)} run; {len(elsewhere)} are not here"
    assert counts in text, counts
    for _, answer in re.findall(r"^\| (.+\?) \| (.+) \|$", answers, flags=re.M):
        script, what = re.search(r"\(`(\w+\.py) (?:--)?(\w+)", answer).groups()
        assert what in (ROOT / "tests/benchmarks" / script).read_text(encoding="utf-8")


@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_a_lesson_s_links_to_its_neighbors_and_its_badges_are_made(path):
    first, *_, last = read(path).cells
    assert with_badges(first.source, path.relative_to(NOTEBOOKS).as_posix()) == first.source, "run notebooks/make.py"
    assert with_neighbors(last.source, path) == last.source, "run notebooks/make.py"


def test_notebooks_stay_small():
    assert all(path.stat().st_size <= 1024 * 1024 for path in LESSONS)


@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_committed_lessons_are_not_stale(path):
    lesson = read(path)
    assert not is_stale(path), "run notebooks/make.py"
    code_cells(lesson)[-1].source += "\n"
    assert own(lesson)["executed"] != fingerprint(lesson)


def test_ruff_has_nothing_to_say():
    for command in (["check"], ["format", "--check"]):
        said = subprocess.run(
            [sys.executable, "-m", "ruff", *command, str(ROOT)], capture_output=True, text=True, encoding="utf-8"
        )
        assert said.returncode == 0, said.stdout + said.stderr
        said = ruff(*command, *LESSONS)
        assert said.returncode == 0, said.stdout + said.stderr


ANIMATION = """
class Animation:
    def _repr_png_(self):
        return b"frames"

    def _repr_html_(self):
        return "<picture></picture>"

    def __repr__(self):
        return "A sentence in its place."
"""


@pytest.fixture
def executed(tmp_path):
    """A notebook with what `execute` must keep and what it must drop."""
    sources = [
        ANIMATION,
        "import ipywidgets",
        "print('one')\nprint('two')\n1 + 1",
        "Animation()",
        "ipywidgets.IntSlider()",
    ]
    cells = [nbformat.v4.new_code_cell(source) for source in sources]
    path = tmp_path / "lesson.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata={"widgets": {}}), path)
    assert is_stale(path)
    execute(path)
    return path


def test_execution_keeps_what_a_reader_needs(executed):
    notebook = read(executed)
    assert not is_stale(executed) and "widgets" not in notebook.metadata
    *_, numbers, animation, slider = code_cells(notebook)
    assert [output.get("text") or output["data"]["text/plain"] for output in numbers.outputs] == ["one\ntwo\n", "2"]
    assert set(animation.outputs[0].data) == {"image/png", "text/plain"}
    assert slider.outputs == [] and slider.execution_count == 5 and "execution" not in slider.metadata


def test_executing_again_changes_nothing_and_a_cell_that_raises_leaves_the_file(executed):
    before = executed.read_bytes()
    execute(executed)
    assert executed.read_bytes() == before
    notebook = read(executed)
    notebook.cells[2].source = "1 / 0"
    nbformat.write(notebook, executed)
    before = executed.read_bytes()
    with pytest.raises(CellExecutionError, match="ZeroDivisionError"):
        execute(executed)
    assert executed.read_bytes() == before
