"""Executing a lesson, in place and so that nothing of the machine is left in it."""

import hashlib
import importlib.util
import subprocess
import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode

from build.lessons import NOTEBOOKS, ROOT, code_cells, own, read

WIDGET = "application/vnd.jupyter.widget-view+json"
# What the kernel runs first, without a name left behind: sliders show themselves as pages that need no kernel.
FREEZE = f"__import__('sys').path.append({str(NOTEBOOKS)!r}); __import__('build.freezing').freezing.show_frozen()"


def fingerprint(lesson: NotebookNode) -> str:
    """Return what changes when the code of a lesson does."""
    return hashlib.sha256("\0".join(cell.source for cell in code_cells(lesson)).encode()).hexdigest()[:16]


def is_stale(path: Path) -> bool:
    """Tell whether a lesson's code is another than the code that was executed, or a tool took its outputs away."""
    lesson = read(path)
    stripped = any(cell.source.strip() and cell.execution_count is None for cell in code_cells(lesson))
    return stripped or own(lesson).get("executed") != fingerprint(lesson)


def ruff(*command: str | Path) -> subprocess.CompletedProcess:
    """Run ruff on lessons: a page is not as wide as an editor."""
    command = [sys.executable, "-m", "ruff", *command, "--config", "line-length=100"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, encoding="utf-8")


def execute(path: Path) -> None:
    """Run the notebook in its own folder and write it back; where a cell raises, leave the file.

    No times are recorded, no widget state is kept, streams are merged: without training, a second execution leaves
    the file byte for byte as it is. Raises ModuleNotFoundError where the package is missing that freezes sliders.
    """
    if not importlib.util.find_spec("resvg_py"):
        raise ModuleNotFoundError('a lesson is executed with what the tests need: pip install -e ".[test]"')
    notebook = read(path)
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
    client = NotebookClient(
        notebook,
        timeout=120,
        kernel_name="python3",
        resources={"metadata": {"path": str(path.parent)}},
        record_timing=False,
        coalesce_streams=True,
        extra_arguments=[f"--IPKernelApp.exec_lines={FREEZE}"],
    )
    client.execute()
    for cell in code_cells(notebook):
        # A widget without a kernel is a blank.
        cell.outputs = [output for output in cell.outputs if WIDGET not in output.get("data", {})]
        for output in cell.outputs:
            # An animation's live form holds the picture once more, and a sanitizer may drop it.
            if "image/png" in output.get("data", {}):
                output.data.pop("text/html", None)
    notebook.metadata.pop("widgets", None)
    notebook.metadata |= {
        "language_info": {"name": "python"},
        "vpg": {"executed": fingerprint(notebook)},
    }
    nbformat.write(notebook, path)
