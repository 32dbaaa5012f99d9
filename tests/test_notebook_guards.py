"""One small broken notebook per loophole of nbval: each must fail, with the guard's own message.

All of them run once, in one process, as they would beside each other in the project.
"""

import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

import nbformat
import pytest

TESTS = Path(__file__).parent
TIMEOUT = 6  # seconds a cell


class Cell(NamedTuple):
    """A cell, and what must be said of it; nothing where it must pass."""

    source: str
    said: str = ""
    executed: bool = True
    compared: bool = False


NOTEBOOKS = {
    "cells": [
        Cell("import threading"),
        Cell("threading.Thread(target=int).start()"),
        Cell("1 + 1"),
        Cell("1 + 1", "Unexpected output fields", compared=True),
        Cell("x = 1", "committed without having been executed", executed=False, compared=True),
        *(
            Cell(source, "plain Python")
            for source in ("%magic\nx = 1", "!false", "x = !false", "%%time\nx = 1", "len?")
        ),
        Cell("thread = threading.Thread(target=lambda: 1 / 0)\nthread.start()\nthread.join()", "ZeroDivisionError"),
        Cell("import warnings\nwarnings.warn('old')", "UserWarning"),
        Cell("1 + 1"),
    ],
    "swallowed_time_out": [
        Cell("import time\ntry:\n    time.sleep(60)\nexcept KeyboardInterrupt:\n    pass", "caught the interrupt")
    ],
    "dead_kernel": [Cell("import os\nos._exit(1)", "The kernel died")],
    "thread_after_the_last_cell": [
        Cell("import threading\nthreading.Timer(0.5, lambda: 1 / 0).start()", "ZeroDivisionError")
    ],
    "coroutine_after_the_last_cell": [
        Cell("async def nobody_waits():\n    pass\n\n\nforgotten = nobody_waits()", "nobody_waits was never awaited")
    ],
}


@pytest.fixture(scope="module")
def cases(tmp_path_factory):
    """Run all notebooks under nbval with the guards; return notebook -> what was said and seconds, for every cell."""
    folder = tmp_path_factory.mktemp("broken")
    for name, notebook in NOTEBOOKS.items():
        cells = []
        for number, cell in enumerate(notebook, 1):
            tags = {} if cell.compared else {"tags": ["nbval-ignore-output"]}
            cells.append(nbformat.v4.new_code_cell(cell.source, metadata=tags))
            cells[-1]["execution_count"] = number if cell.executed else None
        nbformat.write(nbformat.v4.new_notebook(cells=cells), folder / f"{name}.ipynb")
    report = folder / "report.xml"
    guards = ["-p", "notebook_guards", "-p", "no:cacheprovider", f"--rootdir={folder}", f"--junitxml={report}"]
    nbval = ["--nbval", "--nbval-current-env", f"--nbval-cell-timeout={TIMEOUT}"]
    environment = os.environ | {"PYTHONPATH": str(TESTS)}
    subprocess.run(
        [sys.executable, "-m", "pytest", *guards, *nbval, "."], cwd=folder, env=environment, capture_output=True
    )
    found = {name: [] for name in NOTEBOOKS}
    for case in ElementTree.parse(report).iter("testcase"):
        failures = [failure.get("message") + failure.text for failure in case.iter("failure")]
        name = (set(case.get("classname").split(".")) & set(NOTEBOOKS)).pop()
        found[name].append(("".join(failures), float(case.get("time"))))
    return found


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_each_broken_cell_fails_with_the_guard_s_message_and_no_other(cases, name):
    assert len(cases[name]) == len(NOTEBOOKS[name])
    for (said, _), cell in zip(cases[name], NOTEBOOKS[name], strict=True):
        assert cell.said in said and bool(said) == bool(cell.said), cell.source


def test_what_is_written_to_stderr_is_named_as_such(cases):
    said = [said for name in NOTEBOOKS for said, _ in cases[name]]
    assert sum("wrote to stderr" in each for each in said) == 4


def test_dead_kernel_fails_at_once(cases):
    ((_, seconds),) = cases["dead_kernel"]
    assert seconds < TIMEOUT - 1
