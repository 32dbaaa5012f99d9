"""One lesson more takes a notebook, a file of checks and one line in the list: make.py does the rest."""

import os
import subprocess
import sys

import nbformat
from build.executing import fingerprint
from build.lessons import LESSONS, code_cells, name_of, opening_of, read
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

NUMBER = len(LESSONS) + 1
LAST, ZEROS = LESSONS[-1].name, f"{NUMBER}_zeros.ipynb"
CHECKS = '''"""What the new lesson's exercise must do."""

from vpg_lab.checks.expect import case, expect_reference, mistakes
from vpg_lab.checks.verdicts import claim


@mistakes("count_zeros")
def counts_gone_wrong(numbers):
    return {"those are the ones": numbers.count(1), "those are all of them": len(numbers)}


@claim("count_zeros")
def counts_zeros(count_zeros):
    cases = [case("for 0, 1, 1, 0 and 2", [0.0, 1.0, 1.0, 0.0, 2.0, 0.0])]
    expect_reference(count_zeros, lambda numbers: numbers.count(0), counts_gone_wrong, cases)
'''
FUNCTION = '''def count_zeros(numbers: list[float]) -> int:
    """Return how many of some numbers are 0."""
    return numbers.count(0)'''
OPENING = f"""\
# {NUMBER}. Zeros: what is left?

Some numbers are 0. This lesson counts them.

**Time:** 5 minutes. **You need:** nothing."""
ENDING = """\
**Recap**

Zeros can be counted.

**Three questions**

1. How many zeros has 100?
<details><summary>Answer</summary>Two.</details>

2. And 10?
<details><summary>Answer</summary>One.</details>

3. And 1?
<details><summary>Answer</summary>None.</details>

**In Spinning Up:** nowhere."""


def question(name, kind):
    choices = {"none": "It has none.", "one": "It has one.", "two": "It has two."}
    asked = {"name": name, "kind": kind, "answer": "one", "choices": choices}
    return asked | {"stars": 1, "minutes": 2, "points": [1], "hints": []}


def make_lesson():
    """Return the smallest lesson that has an exercise, a question and a quiz."""
    settings = {"stars": 1, "minutes": 5, "points": [3], "hints": ["Lists count.", "`numbers.count`."]}
    quiz = [question(f"quiz_{number}", "quiz") for number in (1, 2, 3)]
    predict = "**Predict.** How many zeros has 10?\n\n<details><summary>Answer</summary>One.</details>"
    lesson = new_notebook(
        cells=[
            new_markdown_cell(OPENING),
            new_code_cell("from vpg_lab.checks import check", metadata={"tags": ["setup"]}),
            new_markdown_cell("The function:"),
            new_code_cell(FUNCTION, metadata={"tags": ["exercise"], "vpg": {"exercise": settings}}),
            new_markdown_cell("One of two:"),
            new_code_cell("count_zeros([0.0, 1.0])"),
            new_markdown_cell("The check:"),
            new_code_cell("check(count_zeros)", metadata={"tags": ["check"]}),
            new_markdown_cell(predict, metadata={"vpg": {"question": question("zeros_of_10", "predict")}}),
            new_markdown_cell(ENDING, metadata={"vpg": {"quiz": quiz}}),
        ]
    )
    for number, cell in enumerate(code_cells(lesson), 1):  # so that the test takes no kernel
        cell.execution_count = number
    lesson.metadata["vpg"] = {"executed": fingerprint(lesson)}
    return lesson


def texts_of(folder):
    """Return what the notebooks and the pages in a folder hold, by their names from there on."""
    made = [*folder.rglob("*.ipynb"), *folder.rglob("*.md")]
    return {path.relative_to(folder).as_posix(): path.read_text(encoding="utf-8") for path in made}


def test_one_lesson_more_takes_a_notebook_its_checks_and_one_line(project_copy):
    tmp_path = project_copy
    companion = tmp_path / "notebooks/companion"
    nbformat.write(make_lesson(), companion / ZEROS)
    (tmp_path / f"vpg_lab/checks/lesson_{NUMBER}.py").write_text(CHECKS, encoding="utf-8")
    listed = tmp_path / "notebooks/build/lessons.py"
    text, line = listed.read_text(encoding="utf-8"), f'"{name_of(LESSONS[-1])}",\n'
    assert text.count(line) == 1
    listed.write_text(text.replace(line, f'{line}        "companion/{ZEROS}",\n'), encoding="utf-8")

    before = texts_of(tmp_path)
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    subprocess.run([sys.executable, "notebooks/make.py"], cwd=tmp_path, env=environment, check=True)
    after = texts_of(tmp_path)
    pages = [f"{folder}README.md" for folder in ("", "notebooks/companion/", "notebooks/exercises/")]
    lessons = [f"notebooks/{folder}/{name}" for folder in ("companion", "exercises") for name in (LAST, ZEROS)]
    assert {name for name in after if after[name] != before.get(name)} == {*pages, *lessons}
    title, row = f"[{NUMBER}. Zeros]", f"({ZEROS}) | What is left? | `count_zeros` | 5 |\n"
    assert f"| {title}{row}".replace("(", "(notebooks/companion/", 1) in after["README.md"]
    assert f"| {title}{row}" in after["notebooks/companion/README.md"]
    stem = ZEROS.removesuffix(".ipynb")
    assert f"| [{stem}]({ZEROS}) | `count_zeros` | 5 | 13 | 7 |\n" in after["notebooks/exercises/README.md"]
    last, zeros = (read(companion / name).cells[-1].source for name in (LAST, ZEROS))
    assert f"**Next:** {title}({ZEROS}): what is left? **Back:** [{NUMBER - 2}. " in last
    assert zeros.startswith(f"{ENDING}\n\n**Next:** this was the last lesson. [The map](README.md) lists")
    assert zeros.endswith(f"**Back:** [{opening_of(read(LESSONS[-1])).title}]({LAST}).")
