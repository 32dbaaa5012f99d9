"""A browser for the tests that need one, and an IPython."""

import shutil
import sys

import pytest
from build.lessons import ROOT
from IPython.core.interactiveshell import InteractiveShell
from learners import SET_UP

from vpg_lab import learner
from vpg_lab.checks import verdicts

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.fixture(scope="module")
def browser():
    """A Chromium without a window; the tests that ask for it are skipped where none is installed."""
    playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("no Chromium is installed")
    options = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=options)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def ipython():
    """An IPython in this process, as a notebook's kernel has it: its failed cells are noted."""
    main = sys.modules["__main__"]  # IPython puts its own in this place
    shell = InteractiveShell.instance()
    shell.history_manager.enabled = False  # the user's own stays as it is
    verdicts.watch_cells(shell)
    yield shell
    InteractiveShell.clear_instance()
    sys.modules["__main__"] = main


@pytest.fixture
def cells(ipython, tmp_path, monkeypatch, capsys):
    """A function that runs cells, one after the other, in a folder of their own, and returns what the last one said."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(learner, "HOME", tmp_path)
    ipython.reset(new_session=True)

    def run(*sources):
        for source in sources:
            capsys.readouterr()
            ipython.run_cell(source, store_history=True)
        return capsys.readouterr().out

    run(SET_UP)
    return run


@pytest.fixture
def project_copy(tmp_path):
    """A folder with what make.py needs of the project."""
    for name in ("notebooks", "vpg_lab", ".github"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__", ".*"))
    for name in ("README.md", "pyproject.toml", "vpg_helpers.py"):
        shutil.copy(ROOT / name, tmp_path)
    return tmp_path
