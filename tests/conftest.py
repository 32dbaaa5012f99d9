"""For the tests that need one: a browser, and a copy of the project."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
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


class Copy:
    """A copy of the project in a folder of its own, with the texts of what make.py writes there."""

    def __init__(self, folder: Path):
        self.folder = folder
        left_out = shutil.ignore_patterns("__pycache__", ".*", "my_agent*")
        for name in ("notebooks", "vpg_lab", ".github"):
            shutil.copytree(ROOT / name, folder / name, ignore=left_out)
        for name in ("README.md", "pyproject.toml", "vpg_helpers.py"):
            shutil.copy(ROOT / name, folder)
        project = folder / "pyproject.toml"
        settings = project.read_text(encoding="utf-8")
        project.write_text(re.sub(r"\[project\.urls\]\n.*\n", "", settings), encoding="utf-8")

    def texts(self) -> dict[str, str]:
        """Return what the notebooks and the pages hold, by their names from the folder on."""
        made = [*self.folder.rglob("*.ipynb"), *self.folder.rglob("README.md")]
        return {path.relative_to(self.folder).as_posix(): path.read_text(encoding="utf-8") for path in made}

    def make(self, *options: str) -> dict[str, str]:
        """Run the copy's make.py with the copy's modules; return the texts."""
        command = [sys.executable, str(self.folder / "notebooks/make.py"), *options]
        environment = os.environ | {"PYTHONPATH": str(self.folder)}
        subprocess.run(command, cwd=self.folder, env=environment, check=True)
        return self.texts()


@pytest.fixture
def copied(tmp_path):
    """A copy of the project, without an address."""
    return Copy(tmp_path / "copy")
