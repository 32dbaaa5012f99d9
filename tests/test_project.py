"""The files around the lessons agree with each other."""

import ast
import re
import subprocess
import sys

import pytest
import tomli
import yaml
from make import LESSONS, README_PICTURES, ROOT, picture_from_lesson
from packaging.requirements import Requirement
from packaging.version import Version

PYPROJECT = tomli.loads((ROOT / "pyproject.toml").read_text())
PROJECT = PYPROJECT["project"]
# What a learner needs: the modules' packages, and a JupyterLab for them. A tester's tools are an extra.
MODULES, LAB = PROJECT["dependencies"], PROJECT["optional-dependencies"]["lab"]
REQUIREMENTS = [Requirement(line) for line in MODULES + LAB]
ENVIRONMENT = yaml.safe_load((ROOT / "environment.yml").read_text())
README = (ROOT / "README.md").read_text()

# What Google Colab shipped in August 2026.
COLAB = {"torch": "2.11", "gymnasium": "1.3.0", "numpy": "2.1.3", "matplotlib": "3.10", "ipython": "7.34"}
COLAB |= {"ipywidgets": "7.7.1", "pillow": "11.3"}
CPU_INDEX = "--extra-index-url https://download.pytorch.org/whl/cpu"


def pins():
    (pip,) = [entry["pip"] for entry in ENVIRONMENT["dependencies"] if isinstance(entry, dict)]
    assert pip[0] == CPU_INDEX, "or PyPI's torch brings CUDA on Linux"
    return {Requirement(line).name: Requirement(line) for line in pip if not line.startswith("-")}


def test_environment_pins_each_dependency_once_within_its_range():
    assert set(pins()) == {requirement.name for requirement in REQUIREMENTS}
    for requirement in REQUIREMENTS:
        (pin,) = pins()[requirement.name].specifier
        assert pin.operator == "==" and pin.version in requirement.specifier


def test_environment_s_python_is_allowed():
    (python,) = [entry for entry in ENVIRONMENT["dependencies"] if str(entry).startswith("python=")]
    assert Version(python.split("=")[1]) >= Version(PROJECT["requires-python"].removeprefix(">="))


@pytest.mark.parametrize(("name", "version"), COLAB.items())
def test_ranges_take_in_colab(name, version):
    """And what the modules need asks for no more than Colab has: it ships neither jupyter nor a JupyterLab."""
    ranges = {Requirement(line).name: Requirement(line).specifier for line in MODULES}
    assert version in ranges[name] and set(ranges) == set(COLAB)


def test_readme_s_commands_install_the_tested_torch():
    commands = re.findall(r"^python3 -m venv .*$", README, re.M)
    assert len(commands) == 2, "one command opens the first lesson, one runs every test"
    install = f"pip install --no-deps {CPU_INDEX} {pins()['torch']} &&"
    assert all(install in command for command in commands)


def test_ci_runs_the_readme_s_test_command():
    script = (ROOT / ".ci" / "run").read_text()
    (pattern,) = re.findall(r"grep -E '(.*?)' README.md", script)
    matching = [line for line in README.splitlines() if re.search(pattern, line)]
    assert len(matching) == 1 and matching[0].endswith("pytest")


def test_top_level_is_the_architecture():
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if tracked.returncode:
        pytest.skip("not a git checkout")
    top = {name.split("/")[0] for name in tracked.stdout.splitlines()}
    named = {"notebooks", "vpg_helpers.py", "vpg_lab", "environment.yml", "README.md", "tests"}
    assert {name for name in top if not name.startswith(".")} == named | {"pyproject.toml", "LICENSE"}


def test_the_helper_needs_no_picture_no_widget_and_no_notebook():
    code = "import sys, vpg_helpers; print(*sys.modules)"
    said = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    unwanted = {"matplotlib", "PIL", "IPython", "ipywidgets", "vpg_lab.pictures", "vpg_lab.checks"}
    assert "vpg_helpers" in said.stdout.split() and not unwanted & set(said.stdout.split())
    assert len((ROOT / "vpg_helpers.py").read_text().splitlines()) <= 330


# What every module may import of the project. Nothing else, and nothing of it the other way.
ARROWS = {
    "vpg_helpers": {"vpg_lab.poles", "vpg_lab.refusals"},
    "vpg_lab.refusals": set(),
    "vpg_lab.poles": {"vpg_lab.refusals"},
    "vpg_lab.small_world": {"vpg_lab.refusals"},
    "vpg_lab.intervals": {"vpg_lab.refusals"},
    "vpg_lab.companion": {"vpg_helpers", "vpg_lab.refusals"},
    "vpg_lab.pictures": set(),
    "vpg_lab.widgets": {"vpg_lab.pictures"},
    "vpg_lab.checks.expect": set(),
    "vpg_lab.checks.verdicts": {"vpg_helpers"},
    "vpg_lab.checks.worlds": {"vpg_lab.companion", "vpg_lab.checks.expect"},
    "vpg_lab.checks": {"vpg_lab.checks.verdicts"},
    "vpg_lab.learner": {"vpg_helpers", "vpg_lab.checks.verdicts"},
}
LESSON_CHECKS = {"vpg_helpers", *(f"vpg_lab.{room}" for room in ("companion", "small_world"))}
LESSON_CHECKS |= {f"vpg_lab.checks.{room}" for room in ("expect", "verdicts", "worlds")}


def modules():
    for path in [ROOT / "vpg_helpers.py", *sorted((ROOT / "vpg_lab").rglob("*.py"))]:
        yield ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"), path


def imports_of(path):
    """Return what a module imports of the project, by whole names."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0
            whole = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= whole & set(dict(modules())) or {node.module}
    return {name for name in found if name.split(".")[0] in ("vpg_helpers", "vpg_lab", "make", "build", "catalogue")}


@pytest.mark.parametrize(("module", "path"), [*modules()])
def test_imports_run_one_way(module, path):
    if module == "vpg_lab":
        assert not imports_of(path)
    elif module.startswith("vpg_lab.checks.lesson_"):
        assert imports_of(path) <= LESSON_CHECKS
    else:
        assert imports_of(path) == ARROWS[module]


def test_readme_s_lesson_table_is_complete():
    for lesson in LESSONS:
        link = f"({lesson.relative_to(ROOT).as_posix()})"
        (row,) = [line for line in README.splitlines() if link in line and "|" in line]
        title, _, _ = lesson.read_text().partition("?")
        question = title.rpartition(": ")[2]
        assert question.lower() in row.lower(), f"{lesson.name}: the table should ask '{question}?'"
        (minutes,) = re.findall(r"\*\*Time:\*\* (\d+) minutes", lesson.read_text())
        assert row.rstrip("| ").endswith(minutes)


@pytest.mark.parametrize("name", README_PICTURES)
def test_readme_s_pictures_are_the_lessons_own(name):
    assert f"(.github/{name})" in README
    assert (ROOT / ".github" / name).read_bytes() == picture_from_lesson(name)
