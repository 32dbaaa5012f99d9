"""Other doors open: badges, Binder, conda, an older front end, the workflows, the oldest and the newest releases."""

import json
import os
import re
import subprocess
import sys

import pytest
import tomli
import yaml
from build import links
from build.edition import make_edition
from build.lessons import EDITION, LESSONS, ROOT, name_of, read

from vpg_lab import widgets

UV = [sys.executable, "-m", "uv"]


def run(*command, **settings):
    settings = {"capture_output": True, "text": True, "encoding": "utf-8"} | settings
    return subprocess.run([str(part) for part in command], **settings)


# --- the project's address --------------------------------------------------------------------------------


ON_GITHUB, ELSEWHERE = "https://github.com/example.org/vpg", "https://example.org/somebody/vpg"


@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_badges_come_with_the_address_and_go_with_it(monkeypatch, path):
    text, name = read(path).cells[0].source, name_of(path)
    monkeypatch.setattr(links, "read_project", dict)
    without = links.with_badges(text, name)
    monkeypatch.setattr(links, "read_project", lambda: {"urls": {"Repository": ON_GITHUB}})
    made = {name: links.with_badges(text, name), f"{EDITION.name}/{path.name}": make_edition(path).cells[0].source}
    colab = "https://colab.research.google.com/github/example.org/vpg/blob/standalone/"
    binder = "https://mybinder.org/v2/gh/example.org/vpg/main?labpath=notebooks%2F"
    for name, at_github in made.items():
        assert at_github.count("[![Open in Colab](") == at_github.count("[![launch Binder](") == 1
        assert f"]({colab}{name})" in at_github and f"]({binder}{name.replace('/', '%2F')})" in at_github
    monkeypatch.setattr(links, "read_project", dict)
    assert links.with_badges(made[name_of(path)], name_of(path)) == without and "[![" not in without


def test_a_badge_leads_to_a_notebook_that_works_alone(monkeypatch):
    monkeypatch.setattr(links, "read_project", lambda: {"urls": {"Repository": ON_GITHUB}})
    branch, _, file = links.colab_address("companion/07_baselines.ipynb").partition("/blob/")[2].partition("/")
    assert (branch, file) == (links.BRANCH, "companion/07_baselines.ipynb")
    publish = yaml.safe_load((ROOT / ".github/workflows/publish.yml").read_text(encoding="utf-8"))
    steps = "\n".join(step.get("run", "") for step in publish["jobs"]["publish"]["steps"])
    assert "make.py --alone" in steps and f'.git" {links.BRANCH}' in steps


def test_elsewhere_than_on_github_there_is_binder_and_no_colab(monkeypatch):
    monkeypatch.setattr(links, "read_project", lambda: {"urls": {"Repository": f"{ELSEWHERE}/"}})
    text = links.with_badges("# Title\n\nText", "01_model.ipynb")
    assert "Colab" not in text and text.startswith("# Title\n\n[![launch Binder](")
    assert "mybinder.org/v2/git/https%3A%2F%2Fexample.org%2Fsomebody%2Fvpg/main?labpath=" in text
    monkeypatch.setattr(links, "read_project", dict)
    assert links.with_badges(text, "01_model.ipynb") == "# Title\n\nText"


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        (None, "**Next:** 3. Action (`03_action.ipynb`), from the lesson (`02_policy.ipynb`) [away](https://a.b/c.md)"),
        (
            ON_GITHUB,
            "**Next:** [3. Action](https://colab.research.google.com/github/example.org/vpg/blob/standalone/"
            "03_action.ipynb), from [the lesson](https://colab.research.google.com/github/example.org/vpg/blob/"
            "standalone/02_policy.ipynb) [away](https://a.b/c.md)",
        ),
        (
            ELSEWHERE,
            f"**Next:** [3. Action]({ELSEWHERE}/blob/main/notebooks/03_action.ipynb), from [the lesson]({ELSEWHERE}/"
            "blob/main/notebooks/02_policy.ipynb) [away](https://a.b/c.md)",
        ),
    ],
)
def test_alone_a_link_between_notebooks_leads_online_or_is_a_name(monkeypatch, address, expected):
    monkeypatch.setattr(links, "address", lambda: address)
    text = (
        "**Next:** [3. Action](../03_action.ipynb), from [the lesson](../02_policy.ipynb#here) [away](https://a.b/c.md)"
    )
    assert links.mend_links(text, "exercises/02_policy.ipynb", links.online_address) == expected


# --- Binder, conda, workflows -----------------------------------------------------------------------------


def read_environment(name):
    return yaml.safe_load((ROOT / name).read_text(encoding="utf-8"))


def test_binder_s_environment_is_conda_s_without_the_project():
    """With a local file among the requirements, repo2docker builds the environment anew for every commit."""
    environment, binder = read_environment("environment.yml"), read_environment(".binder/environment.yml")
    packages = environment["dependencies"][-1]["pip"]
    assert packages.pop() == "-e .[lab]" and environment == binder
    build = ROOT / ".binder/postBuild"
    assert "pip install --no-deps --editable ." in build.read_text(encoding="utf-8") and build.read_text(
        encoding="utf-8"
    ).startswith("#!")
    assert os.name == "nt" or os.access(build, os.X_OK)


def test_a_learner_installs_no_tester_s_tools():
    extras = links.read_project()["optional-dependencies"]
    learner = " ".join(
        extras["lab"]
        + links.read_project()["dependencies"]
        + read_environment("environment.yml")["dependencies"][-1]["pip"]
    )
    assert not re.search("nbgrader|playwright|pytest|nbval|ruff", learner)
    assert "vpg-from-scratch[lab,site]" in extras["test"]


def test_uv_takes_pytorch_from_the_index_without_cuda():
    settings = tomli.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["uv"]
    (index,) = settings["index"]
    assert index["explicit"] and f"--extra-index-url {index['url']} " in (ROOT / "README.md").read_text(
        encoding="utf-8"
    )
    assert settings["sources"] == {"torch": {"index": index["name"], "marker": "sys_platform == 'linux'"}}


def test_workflow_runs_the_readme_s_command_on_every_system():
    job = yaml.safe_load((ROOT / ".github/workflows/test.yml").read_text(encoding="utf-8"))["jobs"]["test"]
    assert {system.partition("-")[0] for system in job["strategy"]["matrix"]["os"]} == {"ubuntu", "macos", "windows"}
    assert job["strategy"]["matrix"]["python"] == ["3.10", "3.14"]
    (pattern,) = re.findall(r"grep -E '(.*?)' README.md", job["steps"][-1]["run"])
    assert f"grep -E '{pattern}' README.md" in (ROOT / ".ci/run").read_text(encoding="utf-8")


def test_codespaces_runs_the_readme_s_first_command_on_the_tested_python():
    container = json.loads((ROOT / ".devcontainer/devcontainer.json").read_text(encoding="utf-8"))
    (first, *_) = re.findall(r"^python3 -m venv .*$", (ROOT / "README.md").read_text(encoding="utf-8"), re.M)
    assert first.startswith(container["postCreateCommand"] + " && ") and container["postCreateCommand"].count("&&") == 2
    python = next(line for line in read_environment("environment.yml")["dependencies"] if "python=" in str(line))
    assert container["image"].endswith(f":{python.removeprefix('python=')}")
    files = container["customizations"]["codespaces"]["openFiles"]
    assert files == [f"notebooks/{name_of(LESSONS[0])}"]


@pytest.mark.skipif(os.name == "nt", reason="the workflow runs on Linux")
def test_every_lesson_runs_in_colab_s_image_every_week_and_a_failure_opens_an_issue(tmp_path):
    workflow = yaml.safe_load((ROOT / ".github/workflows/colab.yml").read_text(encoding="utf-8"))
    (schedule,) = workflow[True]["schedule"]  # YAML takes the word "on" for true
    assert re.fullmatch(r"\d+ \d+ \* \* [0-6]", schedule["cron"]) and workflow["permissions"]["issues"] == "write"
    steps = workflow["jobs"]["colab"]["steps"]
    assert steps[-1]["if"] == "failure()" and "gh issue create" in steps[-1]["run"]
    for step in steps:
        assert run("bash", "-n", "-c", step.get("run", "")).stderr == ""
    (script,) = re.findall(r"<<'SCRIPT'\n(.*)^SCRIPT$", steps[-2]["run"], re.M | re.S)
    for path in LESSONS:
        (tmp_path / name_of(path)).parent.mkdir(exist_ok=True)
        (tmp_path / name_of(path)).touch()
    # In the place of Python, something that says what it is asked for and fails at one lesson.
    (tmp_path / "python3").write_text('#!/bin/sh\ncase "$*" in *04_*) exit 1;; esac\n', encoding="utf-8")
    (tmp_path / "python3").chmod(0o755)
    env = {**os.environ, "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"}
    said = run("bash", "-c", script, cwd=tmp_path, env=env)
    assert said.stdout.split("== ")[1:] == [f"{name_of(path)}\n" for path in LESSONS] and said.returncode == 1


@pytest.mark.parametrize("path", sorted((ROOT / ".github/ISSUE_TEMPLATE").glob("*.yml")), ids=lambda path: path.stem)
def test_an_issue_form_asks_for_what_is_needed(path):
    form = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert set(form) == {"name", "description", "body"}
    assert len({field["id"] for field in form["body"]}) == len(form["body"]) >= 3
    assert all(field["type"] in ("input", "textarea") and field["attributes"]["label"] for field in form["body"])
    assert form["body"][0]["validations"]["required"] is True


# --- an older front end, other releases -------------------------------------------------------------------


def test_sliders_are_made_of_ipywidgets_own_controls():
    """Colab and a classic front end with ipywidgets 7 have these and no others."""
    waiting, modules = (
        [widgets.slide(lambda a, b, c: "", play="a", a=(0, 9, 1), b=(0.0, 1.0, 0.5), c=["x", "y"])],
        set(),
    )
    while waiting:
        widget = waiting.pop()
        modules.add(widget._model_module)
        waiting += getattr(widget, "children", [])
    assert modules == {"@jupyter-widgets/controls"}


TORCH = os.environ.get("TORCH_WHEELS", "https://download.pytorch.org/whl/cpu/torch/")  # builds for CPUs, as +cpu


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere PyTorch's builds are not called +cpu")
@pytest.mark.parametrize("resolution", ["lowest-direct", "highest"])
@pytest.mark.parametrize("python", ["3.10", "3.13"])
def test_the_oldest_and_the_newest_releases_serve(tmp_path, python, resolution):
    """What pyproject.toml allows, of every package the oldest or the newest; the tools of the tests are new."""
    found = run(*UV, "python", "find", "--no-python-downloads", python)
    if found.returncode:
        pytest.skip(f"Python {python} is not installed")
    project = links.read_project()
    floor = re.search(r"torch>=([\d.]+)", " ".join(project["dependencies"]))[1]
    override = f"torch=={floor}.0+cpu" if resolution == "lowest-direct" else "torch"
    (tmp_path / "override.txt").write_text(override, encoding="utf-8")
    run(*UV, "venv", "--python", found.stdout.strip(), tmp_path / "venv", check=True)
    there = tmp_path / "venv/bin/python"
    options = ["--python", there, "--find-links", TORCH, "--override", tmp_path / "override.txt"]
    said = run(*UV, "pip", "install", *options, "--resolution", resolution, *project["dependencies"])
    if said.returncode and TORCH in said.stderr:
        pytest.skip("no build of PyTorch for CPUs can be had here")
    assert said.returncode == 0, said.stderr
    tools = ["pytest", "nbval", "nbclient", "ipykernel", "pyyaml", "packaging", "tomli"]
    said = run(*UV, "pip", "install", *options, *tools)
    assert said.returncode == 0, said.stderr
    tests = ["algorithm", "batches", "pictures", "learners_file", "exercises"]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [there, "-m", "pytest", "-q", "-p", "no:cacheprovider", *(f"tests/test_{name}.py" for name in tests)]
    said = run(*command, "notebooks", cwd=ROOT, env=env)
    assert said.returncode == 0, said.stdout[-5_000:]
    print(said.stdout.splitlines()[-1])


@pytest.mark.slow
@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_another_processor_s_rounding_changes_no_compared_output(path):
    """PyTorch without AVX adds up in another order."""
    env = {**os.environ, "ATEN_CPU_CAPABILITY": "default", "PYTHONPATH": str(ROOT)}
    said = run(sys.executable, "-m", "pytest", "-q", "-n0", "-p", "no:cacheprovider", path, cwd=ROOT, env=env)
    assert said.returncode == 0, said.stdout[-5_000:]


@pytest.mark.slow
def test_repo2docker_builds_the_environment_before_it_copies_the_project():
    said = run(*UV, "tool", "run", "--from", "jupyter-repo2docker", "repo2docker", "--no-build", "--debug", ROOT)
    if "Failed to fetch" in said.stderr:
        pytest.skip("repo2docker cannot be had here")
    assert said.returncode == 0, said.stderr
    lines = (said.stdout + said.stderr).splitlines()
    (environment,) = [
        place for place, line in enumerate(lines) if "env update" in line and ".binder/environment.yml" in line
    ]
    (project,) = [place for place, line in enumerate(lines) if re.search(r"COPY .*src/ \$\{REPO_DIR\}", line)]
    assert environment < project
