"""Every door opens: a notebook uploaded alone, Colab, Binder, conda, the oldest and newest releases, pages to read."""

import base64
import bz2
import functools
import http.server
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from urllib.parse import unquote

import make
import nbformat
import pytest
import standalone
import yaml
from bs4 import BeautifulSoup
from catalogue import fill_in, right_solutions
from make import (
    EDITION,
    LESSONS,
    ROOT,
    code_cells,
    exercises_of,
    name_of,
    read,
    write_alone,
    write_site,
)
from nbclient import NotebookClient

from vpg_lab import widgets

UV = [sys.executable, "-m", "uv"]


def run(*command, **settings):
    settings = {"capture_output": True, "text": True, "encoding": "utf-8"} | settings
    return subprocess.run([str(part) for part in command], **settings)


# --- a notebook alone -------------------------------------------------------------------------------------


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
    (folder / "sitecustomize.py").write_text(f"""
import socket, sys

def connect(self, address):
    if self.family in (socket.AF_INET, socket.AF_INET6) and not str(address[0]).startswith(("127.", "::1")):
        raise OSError("no network")
    return before(self, address)

before, socket.socket.connect = socket.socket.connect, connect
sys.meta_path[:] = [each for each in sys.meta_path if "__editable__" not in repr(each)]
sys.path[:] = [each for each in sys.path if each != {str(ROOT)!r}]
""")
    return {**os.environ, "PYTHONPATH": str(folder)}


@pytest.fixture
def lone(tmp_path):
    """Run code in a Python to which the project is not installed, in a folder of its own."""
    env = hide_the_project(tmp_path / "hook")

    def run_alone(code, *options):
        return run(sys.executable, *options, "-c", code, cwd=tmp_path, env=env)

    assert "ModuleNotFoundError" in run_alone("import vpg_helpers").stderr
    return run_alone


def test_every_notebook_is_there_alone(alone):
    lessons = [name_of(path) for path in LESSONS]
    assert set(lessons) | {name_of(path) for path in EDITION.glob("*.ipynb")} <= set(alone)


def test_alone_a_notebook_grows_by_48_kilobytes_at_most(alone):
    for name, notebook in alone.items():
        size = len(nbformat.writes(notebook).encode())
        assert size <= source_of(name).stat().st_size + 48_000, name


def test_alone_it_differs_by_folded_cells_before_the_imports(alone):
    for name, notebook in alone.items():
        added = ["unpack"] + ["keep-what-you-write"] * name.startswith(EDITION.name)
        assert [cell.id for cell in notebook.cells[1 : 1 + len(added)]] == added
        assert all(cell.metadata == standalone.HIDDEN for cell in notebook.cells[1 : 1 + len(added)])
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


def test_alone_a_notebook_has_all_that_it_names(alone):
    lessons = {path.name: path for path in LESSONS}
    for name, notebook in alone.items():
        packed = re.search(r'unpack\("(.+)"\)', unpacking(notebook))[1]
        _, modules = json.loads(bz2.decompress(base64.b85decode(packed)))
        lesson = read(lessons[Path(name).name])
        source = "\n".join(cell.source for cell in code_cells(lesson) + code_cells(notebook))
        rooms = ("pictures", "widgets", "small_world", "companion")
        named = [("vpg", "vpg_helpers.py"), *((room, f"vpg_lab/{room}.py") for room in rooms)]
        for prefix, module in named:
            for each in set(re.findall(rf"\b{prefix}\.(\w+)", source)):
                defined = rf"^(def|class) {each}\b|^(\w+, )*{each}\b.* = |^from \S+ import .*\b{each}\b"
                assert re.search(defined, modules[module], re.M), (name, each)


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
    wanted = [line for line in standalone.read_project()["dependencies"] if line.startswith(("gymnasium", "pillow"))]
    assert said.endswith("this cell again: %pip install " + " ".join(f'"{line}"' for line in wanted))


COLAB = """
from types import SimpleNamespace as Space
import os, sys
def said(what):
    return lambda *given: print(what, *given)
os.chdir = said("goes to")
colab = Space(drive=Space(mount=said("mounts")), files=Space(upload=said("uploads"), download=said("downloads")))
sys.modules |= {"google": Space(colab=colab), "google.colab": colab}
"""


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ("is lost", []),
        ("is kept in Drive", ["mounts /content/drive", "goes to /content/drive/MyDrive"]),
        ("is uploaded", ["uploads"]),
        ("is downloaded", ["downloads my_agent.py"]),
    ],
)
def test_in_colab_the_learner_s_file_goes_where_the_form_says(alone, lone, choice, expected):
    (cell,) = [cell for cell in alone[f"{EDITION.name}/02_policy.ipynb"].cells if cell.id == "keep-what-you-write"]
    line = next(line for line in cell.source.splitlines() if "# @param" in line)
    assert choice in json.loads(line.partition("# @param ")[2]) and '= "is lost"' in line
    said = lone(COLAB + cell.source.replace('= "is lost"', f'= "{choice}"', 1), "-S")
    assert said.stdout.splitlines() == expected and said.stderr == ""


def test_what_is_hidden_is_hidden_in_jupyterlab_and_in_colab(alone):
    hidden = 0
    for notebook in alone.values():
        for cell in code_cells(notebook):
            assert ("cellView" in cell.metadata) == ("jupyter" in cell.metadata)
            hidden += "cellView" in cell.metadata
    assert hidden > 2 * len(LESSONS)


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


# --- the project's address --------------------------------------------------------------------------------


ON_GITHUB, ELSEWHERE = "https://github.com/example.org/vpg", "https://example.org/somebody/vpg"


@pytest.fixture
def copied(tmp_path, monkeypatch):
    """Copy what make.py writes badges on; return a function that gives the copy an address, or none, and makes it."""
    shutil.copytree(make.NOTEBOOKS, tmp_path / "notebooks")
    shutil.copy(ROOT / "README.md", tmp_path)
    monkeypatch.setattr(standalone, "ROOT", tmp_path)
    monkeypatch.setattr(make, "ROOT", tmp_path)
    monkeypatch.setattr(make, "NOTEBOOKS", tmp_path / "notebooks")
    monkeypatch.setattr(make, "LESSONS", [tmp_path / path.relative_to(ROOT) for path in LESSONS])
    project = re.sub(r"\[project\.urls\]\n.*\n", "", (ROOT / "pyproject.toml").read_text(encoding="utf-8"))

    def make_all(address):
        urls = f'\n[project.urls]\nRepository = "{address}"\n' if address else ""
        (tmp_path / "pyproject.toml").write_text(project + urls, encoding="utf-8")
        make.write_badges()
        make.write_edition(tmp_path / "notebooks" / EDITION.name)
        made = [*(tmp_path / "notebooks").rglob("*.ipynb"), tmp_path / "README.md"]
        return {path.relative_to(tmp_path).as_posix(): path.read_text(encoding="utf-8") for path in made}

    return make_all


def test_badges_come_with_the_address_and_go_with_it(copied):
    without, at_github, again = copied(None), copied(ON_GITHUB), copied(None)
    assert without == again and not any("[![" in text for text in without.values())
    assert without["README.md"] == re.sub(standalone.BADGE_LINE, "", (ROOT / "README.md").read_text(encoding="utf-8"))
    colab = "https://colab.research.google.com/github/example.org/vpg/blob/standalone/"
    binder = "https://mybinder.org/v2/gh/example.org/vpg/main?labpath=notebooks%2F"
    for path, text in at_github.items():
        name = path.removeprefix("notebooks/") if path.endswith(".ipynb") else LESSONS[0].name
        assert text.count("[![Open in Colab](") == text.count("[![launch Binder](") == 1
        assert f"]({colab}{name})" in text and f"]({binder}{name.replace('/', '%2F')})" in text


def test_a_badge_leads_to_a_notebook_that_works_alone(alone, monkeypatch):
    monkeypatch.setattr(standalone, "read_project", lambda: {"urls": {"Repository": ON_GITHUB}})
    for name in alone:
        branch, _, file = standalone.colab_address(name).partition("/blob/")[2].partition("/")
        assert file == name and branch == standalone.BRANCH
    publish = yaml.safe_load((ROOT / ".github/workflows/publish.yml").read_text())
    steps = "\n".join(step.get("run", "") for step in publish["jobs"]["publish"]["steps"])
    assert "make.py --alone" in steps and f'.git" {standalone.BRANCH}' in steps


def test_elsewhere_than_on_github_there_is_binder_and_no_colab(monkeypatch):
    monkeypatch.setattr(standalone, "read_project", lambda: {"urls": {"Repository": f"{ELSEWHERE}/"}})
    text = standalone.with_badges("# Title\n\nText", "01_model.ipynb")
    assert "Colab" not in text and text.startswith("# Title\n\n[![launch Binder](")
    assert "mybinder.org/v2/git/https%3A%2F%2Fexample.org%2Fsomebody%2Fvpg/main?labpath=" in text
    monkeypatch.setattr(standalone, "read_project", dict)
    assert standalone.with_badges(text, "01_model.ipynb") == "# Title\n\nText"


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
    monkeypatch.setattr(standalone, "address", lambda: address)
    text = (
        "**Next:** [3. Action](../03_action.ipynb), from [the lesson](../02_policy.ipynb#here) [away](https://a.b/c.md)"
    )
    assert standalone.mend_links(text, "exercises/02_policy.ipynb", standalone.online_address) == expected


def test_alone_no_link_leads_to_a_file_that_is_not_there(alone):
    texts = [cell.source for notebook in alone.values() for cell in notebook.cells if cell.cell_type == "markdown"]
    links = re.findall(r"\]\(([^)\s]+)\)", re.sub(r"```.*?```|`[^`]*`|\$[^$]*\$", "", "\n".join(texts), flags=re.S))
    assert links and all(link.startswith(("https://", "#")) for link in links)


# --- Binder, conda, workflows -----------------------------------------------------------------------------


def read_environment(name):
    return yaml.safe_load((ROOT / name).read_text())


def test_binder_s_environment_is_conda_s_without_the_project():
    """With a local file among the requirements, repo2docker builds the environment anew for every commit."""
    environment, binder = read_environment("environment.yml"), read_environment(".binder/environment.yml")
    packages = environment["dependencies"][-1]["pip"]
    assert packages.pop() == "-e .[lab]" and environment == binder
    build = ROOT / ".binder/postBuild"
    assert "pip install --no-deps --editable ." in build.read_text() and build.read_text().startswith("#!")
    assert os.name == "nt" or os.access(build, os.X_OK)


def test_a_learner_installs_no_tester_s_tools():
    extras = standalone.read_project()["optional-dependencies"]
    learner = " ".join(
        extras["lab"]
        + standalone.read_project()["dependencies"]
        + read_environment("environment.yml")["dependencies"][-1]["pip"]
    )
    assert not re.search("nbgrader|playwright|pytest|nbval|ruff", learner)
    assert "vpg-from-scratch[lab,site]" in extras["test"]


def test_workflow_runs_the_readme_s_command_on_every_system():
    job = yaml.safe_load((ROOT / ".github/workflows/test.yml").read_text())["jobs"]["test"]
    assert {system.partition("-")[0] for system in job["strategy"]["matrix"]["os"]} == {"ubuntu", "macos", "windows"}
    assert job["strategy"]["matrix"]["python"] == ["3.10", "3.13"]
    (pattern,) = re.findall(r"grep -E '(.*?)' README.md", job["steps"][-1]["run"])
    assert f"grep -E '{pattern}' README.md" in (ROOT / ".ci/run").read_text()


# --- pages to read ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The pages, and a server for them on loopback: (folder, address)."""
    pytest.importorskip("math_core", reason="the extra [site] is not installed")
    folder = tmp_path_factory.mktemp("site")
    write_site(folder)
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(folder))
    handler.func.log_message = lambda *_: None
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield folder, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


def test_pages_are_small_and_link_to_each_other(site):
    folder, _ = site
    pages = {path.relative_to(folder).as_posix(): path.read_text(encoding="utf-8") for path in folder.rglob("*.html")}
    assert set(pages) >= {"index.html", *(name_of(path.with_suffix(".html")) for path in LESSONS)}
    assert sum(path.stat().st_size for path in folder.glob("*.*")) <= 6_000_000
    for name, text in pages.items():
        for target in re.findall(r'href="([^"#]+)', text):
            if not target.startswith(("https://", "data:")):
                assert (folder / name).parent.joinpath(target).exists(), f"{name} links to {target}"
        assert not re.search(r'(src|srcset)="(?!data:)|url\(|@import|<link[^>]+href="http', text), name
        assert 'aria-current="page"' in text and "badge" not in text


def test_a_page_s_links_lead_to_sections_that_are_there(site):
    pages = {path: BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser") for path in site[0].rglob("*.html")}
    seen = 0
    for path, page in pages.items():
        for link in page.select("main a[href*='#']"):
            file, _, section = link["href"].partition("#")
            if file and not file.startswith("https://"):
                target = pages[(path.parent / file).resolve()]
                # As a browser looks: for the section as it is written, then decoded.
                assert target.find(id=section) or target.find(id=unquote(section)), f"{path.name}: {link['href']}"
                seen += 1
    assert seen > 100


def test_pages_draw_formulas_fold_checks_and_describe_pictures(site):
    for path in LESSONS:
        page = BeautifulSoup((site[0] / name_of(path.with_suffix(".html"))).read_text(encoding="utf-8"), "html.parser")
        lesson = read(path)
        assert len(page.select("details.check")) == len(code_cells(lesson, "check"))
        described = [image["alt"] for image in page.select("img.output")]
        outputs = [output for cell in code_cells(lesson) for output in cell.outputs]
        assert described == [each["data"]["text/plain"] for each in outputs if "image/png" in each.get("data", {})]
        texts = [
            re.sub("```.*?```", "", cell.source, flags=re.S) for cell in lesson.cells if cell.cell_type == "markdown"
        ]
        formulas = sum(len(re.findall(r"\$\$.+?\$\$|\$[^$]+\$", text, flags=re.S)) for text in texts)
        assert len(page.select("math")) == formulas
        for shown in page.select("pre, code, script, math"):
            shown.decompose()
        assert "$" not in page.main.get_text()


def test_pages_ask_no_other_host_and_fit_a_phone(browser, site):
    folder, address = site
    page, asked, errors = browser.new_page(viewport={"width": 390, "height": 800}), [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: errors.append(str(error)))
    for path in sorted(folder.rglob("*.html")):
        page.goto(f"{address}/{path.relative_to(folder).as_posix()}")
        assert page.evaluate("document.documentElement.scrollWidth") <= 390, path.name
    assert asked and all(each.startswith((address, "data:")) for each in asked) and errors == []
    page.close()


@pytest.mark.parametrize("theme", ["dark", "light"])
def test_pages_have_the_reader_s_theme_and_a_switch(browser, site, theme):
    page = browser.new_page(color_scheme=theme)
    page.goto(site[1])

    def is_dark():
        red = page.evaluate("getComputedStyle(document.body).backgroundColor").partition("(")[2].partition(",")[0]
        return int(red) < 100

    assert is_dark() == (theme == "dark")
    page.click("nav button")
    page.reload()
    assert is_dark() == (theme == "light"), "the choice is kept"
    page.close()


def drive(frame, page):
    """Push with a key until the pole has fallen."""
    frame.locator(".vpg-drive").focus()
    page.keyboard.down("ArrowRight")
    frame.get_by_text("The pole fell").wait_for(timeout=10_000)
    page.keyboard.up("ArrowRight")


def test_cart_is_driven_on_the_page(browser, site):
    page = browser.new_page()
    page.goto(f"{site[1]}/{LESSONS[0].with_suffix('.html').name}")
    drive(page, page)
    page.close()


def test_cart_is_driven_in_a_frame_without_rights(browser):
    """Colab shows an output in a frame of another origin, which may run scripts and not much else."""
    page = browser.new_page()
    page.set_content('<iframe sandbox="allow-scripts" width="700" height="400"></iframe>')
    page.evaluate("html => document.querySelector('iframe').srcdoc = html", widgets.drive_cart()._repr_html_())
    drive(page.frame_locator("iframe"), page)
    page.close()


# --- on demand: every notebook alone, and other releases --------------------------------------------------


@pytest.fixture
def lone_kernel(tmp_path, monkeypatch):
    """A kernel that has neither the project nor a network; its name."""
    env = hide_the_project(tmp_path / "hook")
    folder = tmp_path / "jupyter/kernels/lone"
    folder.mkdir(parents=True)
    argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    settings = {"argv": argv, "display_name": "lone", "language": "python", "env": {"PYTHONPATH": env["PYTHONPATH"]}}
    (folder / "kernel.json").write_text(json.dumps(settings))
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
    project = standalone.read_project()
    floor = re.search(r"torch>=([\d.]+)", " ".join(project["dependencies"]))[1]
    override = f"torch=={floor}.0+cpu" if resolution == "lowest-direct" else "torch"
    (tmp_path / "override.txt").write_text(override)
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
