"""The files around the lessons agree with each other."""

import ast
import re
import subprocess
import sys

import pytest
import tomli
import yaml
from build.lessons import ROOT
from build.tables import MADE, PAGES, README_PICTURES, picture_from_lesson, with_tables
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

PYPROJECT = tomli.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PROJECT = PYPROJECT["project"]
# What a learner needs: the modules' packages, and a JupyterLab for them. A tester's tools are an extra.
MODULES, LAB = PROJECT["dependencies"], PROJECT["optional-dependencies"]["lab"]
REQUIREMENTS = [Requirement(line) for line in MODULES + LAB]
ENVIRONMENT = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
README = (ROOT / "README.md").read_text(encoding="utf-8")

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
    assert python.split("=")[1] in SpecifierSet(PROJECT["requires-python"])


# The first and the last Python for which a torch was built. What it says of itself is no help: 2.13.0 names 3.15, too.
PYTHONS = {"2.13.0": (10, 14)}


def test_the_pythons_that_are_promised_are_those_of_the_pinned_torch():
    (pin,) = pins()["torch"].specifier
    first, last = PYTHONS[pin.version]
    assert PROJECT["requires-python"] == f">=3.{first},<3.{last + 1}"
    assert f"You need Python 3.{first} to 3.{last} with pip" in README


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


def test_readme_s_lines_for_windows_are_the_same_steps():
    """PowerShell 5.1 knows no &&, and a renamed folder breaks the scripts beside Python, but not python -m."""
    (lines,) = re.findall(r"```bat\n(.*?)```", README, re.S)
    assert "&&" not in lines and "jupyter lab " not in re.findall(r"^python3 -m venv .*$", README, re.M)[0]
    make, install, start = lines.splitlines()
    assert make == "py -m venv .venv" and f' {pins()["torch"]} -e ".[lab]"' in install
    unix = re.findall(r"^python3 -m venv .*lab.*$", README, re.M)[0].split(" && ")[-1]
    assert start.replace("\\Scripts\\", "/bin/") == unix
    assert "renamed, moved or copied the folder? Delete `.venv`" in README


def test_ci_runs_the_readme_s_test_command():
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    (pattern,) = re.findall(r"grep -E '(.*?)' README.md", script)
    matching = [line for line in README.splitlines() if re.search(pattern, line)]
    assert len(matching) == 1 and matching[0].endswith("pytest")


def tracked():
    """Return the names of the files in git; skip where this is no checkout, or lies unpacked inside another one."""
    said = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, encoding="utf-8")
    if said.returncode or not said.stdout:
        pytest.skip("not a git checkout")
    return [name for name in said.stdout.splitlines() if (ROOT / name).exists()]


def test_top_level_is_the_architecture():
    top = {name.split("/")[0] for name in tracked()}
    named = {"notebooks", "vpg_helpers.py", "vpg_lab", "environment.yml", "README.md", "tests"}
    assert {name for name in top if not name.startswith(".")} == named | {"pyproject.toml", "LICENSE", "CITATION.cff"}


def test_the_citation_is_the_project_s_and_names_nobody():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == PROJECT["version"] and citation["license"] == PROJECT["license"]
    assert citation["title"] == README.splitlines()[0].removeprefix("# ")
    assert citation["abstract"].strip().removesuffix(".") == PROJECT["description"]
    (authors,) = citation["authors"]
    assert set(authors) == {"name"} and authors["name"] in (ROOT / "LICENSE").read_text(encoding="utf-8")


def test_the_newest_change_is_this_version_s():
    changes = (ROOT / ".github/CHANGELOG.md").read_text(encoding="utf-8")
    assert re.findall(r"^## (.+)$", changes, re.M)[0] == PROJECT["version"]


# --- no file is long, no line wide ------------------------------------------------------------------------


MOST_LINES = {"vpg_helpers.py": 330, "notebooks/make.py": 150}


def lines_of(name):
    return (ROOT / name).read_text(encoding="utf-8").splitlines()


def test_no_file_of_python_is_long_and_no_line_wide():
    for name in tracked():
        if name.endswith(".py"):
            lines = lines_of(name)
            assert len(lines) <= MOST_LINES.get(name, 400), f"{name} has {len(lines)} lines"
            assert max(map(len, lines), default=0) <= 120, name


def test_the_checks_together_do_not_grow():
    assert sum(len(lines_of(name)) for name in tracked() if name.startswith("vpg_lab/checks/")) <= 2_900


def test_git_keeps_line_ends_pictures_and_what_is_made():
    """With Windows' setting, too, since .ci/run is a script that a carriage return breaks."""
    names = tracked()
    attributes = ["eol", "text", "linguist-generated"]
    said = subprocess.run(
        ["git", "check-attr", "--stdin", *attributes],
        input="\n".join(names),
        cwd=ROOT,
        capture_output=True,
        text=True,
        encoding="utf-8",
    )
    found = {tuple(line.split(": ")[:2]): line.split(": ")[2] for line in said.stdout.splitlines()}
    for name in names:
        if name.endswith(".png"):
            assert found[name, "text"] == "unset", name
        else:
            assert found[name, "eol"] == "lf", name
        is_made = name.startswith("notebooks/exercises/") and name.endswith(".ipynb")
        assert (found[name, "linguist-generated"] == "set") == is_made, name


# --- imports run one way ----------------------------------------------------------------------------------


def test_the_helper_needs_no_picture_no_widget_and_no_notebook():
    code = "import sys, vpg_helpers; print(*sys.modules)"
    said = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True, encoding="utf-8"
    )
    unwanted = {"matplotlib", "PIL", "IPython", "ipywidgets", "vpg_lab.pictures", "vpg_lab.checks"}
    assert "vpg_helpers" in said.stdout.split() and not unwanted & set(said.stdout.split())


# What every module may import of the project. Nothing else, and nothing of it the other way.
ARROWS = {
    "vpg_helpers": {"vpg_lab.poles", "vpg_lab.refusals"},
    "vpg_lab.refusals": set(),
    "vpg_lab.poles": {"vpg_lab.refusals"},
    "vpg_lab.small_world": {"vpg_lab.refusals"},
    "vpg_lab.intervals": {"vpg_lab.refusals"},
    "vpg_lab.companion": {"vpg_helpers", "vpg_lab.refusals"},
    "vpg_lab.clinic": {"vpg_helpers"},
    "vpg_lab.pictures": set(),
    "vpg_lab.widgets": {"vpg_lab.pictures"},
    "vpg_lab.checks.expect": set(),
    "vpg_lab.checks.verdicts": set(),
    "vpg_lab.checks.worlds": {"vpg_lab.checks.expect"},
    "vpg_lab.checks": {"vpg_lab.checks.verdicts"},
    "vpg_lab.cells": set(),
    "vpg_lab.learner": {"vpg_lab.cells", "vpg_lab.checks.verdicts"},
    "vpg_lab.progress": {"vpg_lab.checks.verdicts", "vpg_lab.learner", "vpg_lab.pictures"},
}
LESSON_CHECKS = {"vpg_helpers", *(f"vpg_lab.{room}" for room in ("companion", "small_world"))}
LESSON_CHECKS |= {f"vpg_lab.checks.{room}" for room in ("expect", "verdicts", "worlds")}


BUILD = {
    "build": set(),
    "build.lessons": {"vpg_lab.checks"},
    "build.executing": {"build.lessons"},
    "build.freezing": {"vpg_lab.widgets"},
    "build.links": {"build.lessons"},
    "build.tables": {"build.lessons", "vpg_lab.learner"},
    "build.edition": {"build.lessons", "build.links", "vpg_lab.checks", "vpg_lab.learner", "vpg_lab.progress"},
    "build.course": {"build.lessons", "build.edition"},
    "build.standalone": {"build.lessons", "build.links", "build.edition"},
    "build.glossary": {"build.lessons"},
    "build.pages": {"build.glossary", "build.lessons", "build.links", "build.standalone"},
}
ARROWS |= BUILD | {"make": {*BUILD} - {"build", "build.freezing", "build.glossary"}}


def modules():
    paths = [(ROOT, path) for path in [ROOT / "vpg_helpers.py", *sorted((ROOT / "vpg_lab").rglob("*.py"))]]
    build = [ROOT / "notebooks/make.py", *sorted((ROOT / "notebooks/build").glob("*.py"))]
    for folder, path in paths + [(ROOT / "notebooks", path) for path in build]:
        yield ".".join(path.relative_to(folder).with_suffix("").parts).removesuffix(".__init__"), path


def imports_of(path):
    """Return what a module imports of the project, by whole names."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0
            whole = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= whole & set(dict(modules())) or {node.module}
    tests = {path.stem for path in (ROOT / "tests").glob("*.py")}
    return {name for name in found if name.split(".")[0] in {"vpg_helpers", "vpg_lab", "make", "build"} | tests}


@pytest.mark.parametrize(("module", "path"), [*modules()])
def test_imports_run_one_way(module, path):
    if module == "vpg_lab":
        assert not imports_of(path)
    elif module.startswith("vpg_lab.checks.lesson_"):
        assert imports_of(path) <= LESSON_CHECKS
    else:
        assert imports_of(path) == ARROWS[module]


def test_no_module_of_tests_imports_another_and_none_imports_make():
    for path in (ROOT / "tests").rglob("*.py"):
        assert not [name for name in imports_of(path) if name.startswith("test_") or name == "make"], path.name


# --- what pages show of the lessons -----------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_tables_of_lessons_are_made(page):
    text = page.read_text(encoding="utf-8")
    assert MADE.search(text) and with_tables(text, page) == text, "run notebooks/make.py"


@pytest.mark.parametrize("name", README_PICTURES)
def test_readme_s_pictures_are_the_lessons_own(name):
    assert f"(.github/{name})" in README
    assert (ROOT / ".github" / name).read_bytes() == picture_from_lesson(name)


# --- one encoding everywhere ------------------------------------------------------------------------------


def without_encoding(path):
    """Return the lines of a module that read or write text in whatever encoding a system has."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            given = {each.arg for each in node.keywords}
            name = getattr(node.func, "attr", getattr(node.func, "id", ""))
            modes = [each.value for each in node.args if isinstance(each, ast.Constant)]
            is_text = name in ("read_text", "write_text")
            is_text |= any(each.arg == "text" and getattr(each.value, "value", "") is True for each in node.keywords)
            is_text |= name == "open" and (isinstance(node.func, ast.Name) or modes[:1] in (["r"], ["w"], ["a"]))
            if is_text and not given & {"encoding", None} and not any("b" in str(mode) for mode in modes):
                yield node.lineno


def test_every_text_is_read_and_written_with_an_encoding():
    for name in tracked():
        if name.endswith(".py"):
            assert not [*without_encoding(ROOT / name)], name
