"""make.py says what is wrong with a lesson before it writes anything."""

import json
import os
import shutil
import subprocess
import sys

import pytest
from build import lessons
from build.executing import is_stale
from build.lessons import LESSONS

MODEL = f"notebooks/{LESSONS[0].name}"


def make(folder, *arguments, options=()):
    """Run make.py in a copy of the project; return what it says, and which files it has changed."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.suffix != ".pyc"]
    before = {path: path.read_bytes() for path in files}
    command = [sys.executable, *options, "notebooks/make.py", *arguments]
    env = os.environ | {"PYTHONPATH": str(folder)}
    said = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, encoding="utf-8")
    changed = {path.name for path in files if path.read_bytes() != before[path]}
    return said.stdout + said.stderr, changed


def without_ids(notebook):
    for cell in notebook["cells"]:
        del cell["id"]


def without_ids_and_older(notebook):
    without_ids(notebook)
    notebook["nbformat_minor"] = 4


def without_metadata(notebook):
    for cell in notebook["cells"]:
        cell["metadata"] = {}


def change(path, how):
    notebook = json.loads(path.read_text(encoding="utf-8"))
    how(notebook)
    path.write_text(json.dumps(notebook), encoding="utf-8")


SAID = "01_model.ipynb has lost {}: take back the version in git, and what you changed, in JupyterLab or VS Code"


@pytest.mark.parametrize(
    ("damage", "lost"),
    [
        (without_ids, "ids of cells"),
        (without_ids_and_older, "ids of cells"),
        (without_metadata, "the metadata of its cells"),
    ],
)
def test_a_damaged_lesson_is_named(tmp_path, monkeypatch, damage, lost):
    path = tmp_path / LESSONS[0].name
    shutil.copy(LESSONS[0], path)
    monkeypatch.setattr(lessons, "LESSONS", [path])
    monkeypatch.setattr(lessons, "NOTEBOOKS", tmp_path)
    lessons.refuse_damaged_lessons()
    change(path, damage)
    with pytest.raises(SystemExit) as refused:
        lessons.refuse_damaged_lessons()
    assert str(refused.value) == SAID.format(lost) + "; nothing was written"


def test_before_it_writes_it_names_a_damaged_lesson_and_a_copy_of_one(project_copy):
    change(project_copy / MODEL, without_metadata)
    shutil.copy(LESSONS[1], project_copy / "notebooks/02_policy-Copy1.ipynb")
    said, changed = make(project_copy, "--all")
    copy, damaged = said.splitlines()
    assert copy.startswith("02_policy-Copy1.ipynb is no lesson, so nothing is made of it;")
    assert damaged.startswith(SAID.format("the metadata of its cells")) and not changed


def test_a_lesson_without_outputs_is_stale(tmp_path):
    def strip(notebook):
        for cell in notebook["cells"]:
            if cell["cell_type"] == "code":
                cell |= {"outputs": [], "execution_count": None}

    path = tmp_path / LESSONS[0].name
    shutil.copy(LESSONS[0], path)
    assert not is_stale(path)
    change(path, strip)
    assert is_stale(path)


@pytest.mark.slow
def test_a_name_that_leads_nowhere_is_told(project_copy):
    said, changed = make(project_copy, "notebooks/02_policy-Copy2.ipynb")
    assert "there is no notebooks/02_policy-Copy2.ipynb" in said.splitlines()[-1] and not changed


@pytest.mark.slow
def test_without_assertions_it_does_not_begin(project_copy):
    said, changed = make(project_copy, options=["-OO"])
    assert "ImportError: Python runs without assertions" in said and not changed
