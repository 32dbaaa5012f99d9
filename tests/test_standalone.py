"""A notebook alone, uploaded to Colab say: what it brings along, and that it runs where nothing else is."""

import base64
import bz2
import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from build import links
from build.edition import HIDDEN
from build.lessons import EDITION, LESSONS, ROOT, code_cells, exercises_of, name_of, read
from build.standalone import write_alone
from catalogue import fill_in, right_solutions
from nbclient import NotebookClient

from vpg_lab import widgets


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """Every notebook as one that works alone, by its name from notebooks/ on."""
    folder = tmp_path_factory.mktemp("alone")
    write_alone(folder)
    return {path.relative_to(folder).as_posix(): read(path) for path in sorted(folder.rglob("*.ipynb"))}


def source_of(name):
    return ROOT / "notebooks" / name


def unpacking(notebook):
    (cell,) = [cell for cell in notebook.cells if cell.id == "unpack"]
    return cell.source


def hide_the_project(folder):
    """Write a module that Python runs when it starts: it hides the project and the network; return the environment."""
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(
        f"""
import socket, sys

def connect(self, address):
    if self.family in (socket.AF_INET, socket.AF_INET6) and not str(address[0]).startswith(("127.", "::1")):
        raise OSError("no network")
    return before(self, address)

before, socket.socket.connect = socket.socket.connect, connect
sys.meta_path[:] = [each for each in sys.meta_path if "__editable__" not in repr(each)]
sys.path[:] = [each for each in sys.path if each != {str(ROOT)!r}]
""",
        encoding="utf-8",
    )
    return {**os.environ, "PYTHONPATH": str(folder), "PYTHONIOENCODING": "utf-8"}


@pytest.fixture
def lone(tmp_path):
    """Run code in a Python to which the project is not installed, in a folder of its own."""
    env = hide_the_project(tmp_path / "hook")

    def run_alone(code, *options):
        command = [sys.executable, *options, "-"]  # a line of a command has not room for three notebooks
        pipes = {"input": code, "capture_output": True, "encoding": "utf-8"}
        return subprocess.run(command, cwd=tmp_path, env=env, **pipes)

    assert "ModuleNotFoundError" in run_alone("import vpg_helpers").stderr
    return run_alone


def test_alone_is_every_notebook_and_it_grows_by_60_kilobytes_at_most(alone):
    assert set(alone) == {name_of(path) for path in [*LESSONS, *EDITION.glob("*.ipynb")]}
    for name, notebook in alone.items():
        size = len(nbformat.writes(notebook).encode())
        assert size <= source_of(name).stat().st_size + 60_000, name


def test_alone_it_differs_by_folded_cells_before_the_imports(alone):
    for name, notebook in alone.items():
        added = ["unpack"] + ["keep-what-you-write"] * name.startswith(EDITION.name)
        assert [cell.id for cell in notebook.cells[1 : 1 + len(added)]] == added
        assert all(cell.metadata == HIDDEN for cell in notebook.cells[1 : 1 + len(added)])
        left = [cell.source for cell in code_cells(notebook)[len(added) :]]
        assert left == [cell.source for cell in code_cells(read(source_of(name)))]


def test_alone_it_imports_what_it_imports_and_checks_what_it_checks(alone, monkeypatch):
    notebook = alone[f"{EDITION.name}/04_pseudo_loss.ipynb"]
    setup, *_ = code_cells(notebook, "setup")
    for name in [each for each in sys.modules if each.split(".")[0] in ("vpg_helpers", "vpg_lab")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [each for each in sys.meta_path if "__editable__" not in repr(each)])
    monkeypatch.setattr(sys, "path", [each for each in sys.path if Path(each).resolve() != ROOT])
    assert not importlib.util.find_spec("vpg_lab")
    exec(f"{unpacking(notebook)}\n{setup.source}", {})
    unpacked = sys.modules["vpg_lab.checks"]
    assert not Path(unpacked.__file__).is_relative_to(ROOT)
    assert list(unpacked.CLAIMS) == list(exercises_of(read(source_of("04_pseudo_loss.ipynb"))))


def modules_in(notebook):
    """Return the files that a notebook brings along: path -> text."""
    packed = re.search(r'unpack\("(.+)"\)', unpacking(notebook))[1]
    return json.loads(bz2.decompress(base64.b85decode(packed)))[1]


def test_alone_a_notebook_has_all_that_it_names(alone):
    lessons = {path.name: path for path in LESSONS}
    for name, notebook in alone.items():
        modules, lesson = modules_in(notebook), read(lessons[Path(name).name])
        source = "\n".join(cell.source for cell in code_cells(lesson) + code_cells(notebook))
        rooms = ("pictures", "widgets", "small_world", "companion", "clinic")
        named = [("vpg", "vpg_helpers.py"), *((room, f"vpg_lab/{room}.py") for room in rooms)]
        for prefix, module in named:
            for each in set(re.findall(rf"\b{prefix}\.(\w+)", source)):
                defined = rf"^(def|class) {each}\b|^(\w+, )*{each}\b.* = |^from \S+ import .*\b{each}\b"
                assert re.search(defined, modules[module], re.M), (name, each)


def test_alone_a_notebook_brings_what_it_imports_and_the_checks_of_no_other_lesson(alone):
    modules = modules_in(alone["companion/09_continuous_actions.ipynb"])
    assert [path for path in modules if "lesson_" in path] == ["vpg_lab/checks/lesson_09.py"]
    assert {"vpg_lab/companion.py", "vpg_lab/poles.py"} < set(modules)
    assert not {"vpg_lab/widgets.py", "vpg_lab/drive_cart.html", "vpg_lab/learner.py"} & set(modules)
    assert "vpg_lab/learner.py" in modules_in(alone[f"{EDITION.name}/09_continuous_actions.ipynb"])


def test_what_is_unpacked_holds_the_page_of_the_cart(alone, lone):
    code = "\nfrom vpg_lab import widgets\nprint(widgets.drive_cart()._repr_html_())"
    said = lone(unpacking(alone["01_model.ipynb"]) + code)
    assert said.stderr == "" and said.stdout == widgets.drive_cart()._repr_html_() + "\n"


def test_unpacking_takes_a_tenth_of_a_second_at_most_and_leaves_nothing(alone, lone):
    largest = max((unpacking(notebook) for notebook in alone.values()), key=len)
    code = f"import time\nstart = time.process_time()\n{largest}\nprint(time.process_time() - start)\n"
    code += "import sys\nprint(sys.path[0])\nprint(*dir())"
    runs = [lone(code).stdout.splitlines() for _ in range(3)]
    assert min(float(seconds) for seconds, _, _ in runs) <= 0.1
    for _, folder, names in runs:
        assert not Path(folder).exists(), "the folder goes when the kernel does"
        assert not {"unpack", "packed", "base64"} & set(names.split())


def test_where_the_modules_are_installed_unpacking_does_nothing(alone):
    before, namespace = list(sys.path), {}
    exec(unpacking(alone["01_model.ipynb"]), namespace)
    assert sys.path == before and set(namespace) == {"__builtins__"}


def test_a_missing_package_is_named_with_the_line_that_installs_it(alone, lone):
    """The line is the requirement of pyproject.toml, so the front end's own packages are left alone."""
    hide = "import importlib.util as u\nfind = u.find_spec\n"
    hide += "u.find_spec = lambda name, *more: None if name in ('gymnasium', 'PIL') else find(name, *more)\n"
    said = lone(hide + unpacking(alone["01_model.ipynb"])).stderr.splitlines()[-1]
    assert said.endswith(" of its own, and this cell again: %pip install " + lines_of("gymnasium", "pillow"))


def lines_of(*packages):
    return " ".join(f'"{line}"' for line in links.read_project()["dependencies"] if line.startswith(packages))


def test_an_old_package_is_named_like_a_missing_one(alone, lone):
    """Where it is imported already, the kernel keeps the old one until it is started again."""
    old = "from importlib import metadata\nversion = metadata.version\n"
    old += "metadata.version = lambda name: '0.29.1' if name == 'gymnasium' else version(name)\n"
    for before, said in (("", "of its own, and"), ("import gymnasium\n", "of its own, restart the kernel, and")):
        error = lone(old + before + unpacking(alone["01_model.ipynb"])).stderr.splitlines()[-1]
        assert error.endswith(f"{said} this cell again: %pip install {lines_of('gymnasium')}")


def test_without_pip_the_line_is_one_for_uv(alone, lone):
    hide = "import importlib.util as u\nfind = u.find_spec\n"
    hide += "u.find_spec = lambda name, *more: None if name in ('gymnasium', 'pip') else find(name, *more)\n"
    said = lone(hide + unpacking(alone["01_model.ipynb"])).stderr.splitlines()[-1]
    assert said.endswith(f'this cell again: !uv pip install --python "{sys.executable}" {lines_of("gymnasium")}')


def test_an_older_module_beside_the_notebook_is_not_used(alone, lone, tmp_path):
    (tmp_path / "vpg_helpers.py").write_text("OLD = True\n", encoding="utf-8")
    (tmp_path / "vpg_lab").mkdir()
    code = "import vpg_helpers\nassert vpg_helpers.OLD\n" + unpacking(alone["01_model.ipynb"])
    code += "\nimport vpg_helpers, vpg_lab.checks\nprint(hasattr(vpg_helpers, 'OLD'), vpg_lab.checks.__file__)"
    said = lone(code)
    assert said.stderr == "" and said.stdout.startswith("False ") and str(tmp_path / "vpg_lab") not in said.stdout


def test_two_notebooks_in_one_kernel_have_their_own_checks(alone, lone):
    code = ""
    for name in ("02_policy", "04_pseudo_loss", "04_pseudo_loss"):
        code += unpacking(alone[f"{EDITION.name}/{name}.ipynb"]) + "\nfrom vpg_lab.checks import CLAIMS\n"
        code += "print('get_policy' in CLAIMS, 'calculate_loss' in CLAIMS, len(sys.path))\n"
    said = lone("import sys\n" + code)
    first, second, again = said.stdout.splitlines()
    assert said.stderr == "" and first.startswith("True False") and second.startswith("False True") and second == again


COLAB = """
from types import SimpleNamespace as Space
import os, pathlib, sys
def said(what):
    return lambda *given: print(what, *given)
def refuse(*given):
    raise ValueError("mount failed")
def upload():
    print("uploads")
    for name in UPLOADED:
        pathlib.Path(name).write_text("new")
os.chdir = said("goes to")
colab = Space(drive=Space(mount=said("mounts")), files=Space(upload=upload, download=said("downloads")))
sys.modules |= {"google": Space(colab=colab), "google.colab": colab}
"""
COLAB_WITHOUT_DRIVE = COLAB + "colab.drive.mount = refuse\n"


@pytest.fixture
def keep_in_colab(alone, lone, tmp_path, monkeypatch):
    """Run the cell that keeps what is written, with a choice; return what it says."""
    monkeypatch.chdir(tmp_path)
    (cell,) = [cell for cell in alone[f"{EDITION.name}/02_policy.ipynb"].cells if cell.id == "keep-what-you-write"]
    line = next(line for line in cell.source.splitlines() if "# @param" in line)

    def keep(choice, machine, uploaded=()):
        assert choice in json.loads(line.partition("# @param ")[2]) and '= "is lost"' in line
        code = machine.replace("UPLOADED", repr(uploaded)) + cell.source.replace('= "is lost"', f'= "{choice}"', 1)
        said = lone(code, "-S")
        assert said.stderr == ""
        return said.stdout.splitlines()

    return keep


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ("is lost", []),
        ("is kept in Drive", ["mounts /content/drive", "goes to /content/drive/MyDrive"]),
        ("is uploaded", ["uploads", "Nothing new was uploaded."]),
        ("is downloaded", ["downloads my_agent.py"]),
    ],
)
def test_in_colab_the_learner_s_file_goes_where_the_form_says(keep_in_colab, choice, expected):
    Path("my_agent.py").touch()
    assert keep_in_colab(choice, COLAB) == expected


@pytest.mark.parametrize("name", ["my_agent (1).py", "my_agent(2).py", "my_agent (1) (1).py"])
def test_in_colab_a_second_upload_is_used_and_the_first_stays(keep_in_colab, name):
    Path("my_agent.py").write_text("old", encoding="utf-8")
    said = keep_in_colab("is uploaded", COLAB, [name])
    moved = "The my_agent.py that was here is now my_agent.before-1.py."
    assert said == ["uploads", moved, f"{name} is used as my_agent.py."]
    assert (
        Path("my_agent.py").read_text(encoding="utf-8") == "new"
        and Path("my_agent.before-1.py").read_text(encoding="utf-8") == "old"
    )
    said = keep_in_colab("is uploaded", COLAB, [name])
    assert "The my_agent.py that was here is now my_agent.before-2.py." in said


def test_in_colab_what_does_not_work_is_one_plain_line(keep_in_colab):
    (said,) = keep_in_colab("is kept in Drive", COLAB_WITHOUT_DRIVE)
    assert said == '"is kept in Drive" does not work here (ValueError: mount failed); choose otherwise.'
    (said,) = keep_in_colab("is downloaded", COLAB)
    assert said == "There is nothing to download yet: no function has passed its checks."
    (said,) = keep_in_colab("is kept in Drive", "")
    assert said == "This is not Colab: what you write is kept beside this notebook."


def test_what_is_hidden_is_hidden_in_jupyterlab_and_in_colab(alone):
    hidden = 0
    for notebook in alone.values():
        for cell in code_cells(notebook):
            assert ("cellView" in cell.metadata) == ("jupyter" in cell.metadata)
            hidden += "cellView" in cell.metadata
    assert hidden > 2 * len(LESSONS)


def test_alone_no_link_leads_to_a_file_that_is_not_there(alone):
    texts = [cell.source for notebook in alone.values() for cell in notebook.cells if cell.cell_type == "markdown"]
    links = re.findall(r"\]\(([^)\s]+)\)", re.sub(r"```.*?```|`[^`]*`|\$[^$]*\$", "", "\n".join(texts), flags=re.S))
    assert links and all(link.startswith(("https://", "#")) for link in links)


@pytest.fixture
def lone_kernel(tmp_path, monkeypatch):
    """A kernel that has neither the project nor a network; its name."""
    env = hide_the_project(tmp_path / "hook")
    folder = tmp_path / "jupyter/kernels/lone"
    folder.mkdir(parents=True)
    argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    settings = {"argv": argv, "display_name": "lone", "language": "python", "env": {"PYTHONPATH": env["PYTHONPATH"]}}
    (folder / "kernel.json").write_text(json.dumps(settings), encoding="utf-8")
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))
    return "lone"


LONE = [(name_of(path), None) for path in LESSONS] + [
    (f"{EDITION.name}/{path.name}", filled) for path in LESSONS for filled in (False, True)
]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "filled"), LONE)
def test_alone_in_an_empty_folder_without_a_network_a_notebook_runs(alone, lone_kernel, tmp_path, name, filled):
    notebook = nbformat.from_dict(alone[name])
    if filled:
        fill_in(notebook, right_solutions()[Path(name).name])
    folder = tmp_path / "empty"
    folder.mkdir()
    resources = {"metadata": {"path": str(folder)}}
    NotebookClient(notebook, timeout=120, kernel_name=lone_kernel, resources=resources, allow_errors=True).execute()
    outputs = [output for cell in code_cells(notebook) for output in cell.outputs]
    assert not [output.text for output in outputs if output.get("name") == "stderr"]
    errors = {output.ename for output in outputs if output.output_type == "error"}
    assert errors == ({"NotWrittenYet"} if filled is False else set())
