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
TIMEOUT = 4  # seconds a cell


class Broken(NamedTuple):
    """A notebook: its cells, and what must be said of each; nothing where a cell must pass."""

    cells: list[str]
    said: list[str]
    executed: bool = True
    tags: tuple[str, ...] = ("nbval-ignore-output",)


NOTEBOOKS = {
    "sound": Broken(["import threading", "threading.Thread(target=int).start()", "1 + 1"], ["", "", ""]),
    "wrong_output": Broken(["1 + 1"], ["Unexpected output fields"], tags=()),
    "unexecuted": Broken(["x = 1"], ["committed without having been executed"], executed=False, tags=()),
    "swallowed_time_out": Broken(
        ["import time\ntry:\n    time.sleep(60)\nexcept KeyboardInterrupt:\n    pass"], ["caught the interrupt"]
    ),
    "magic_and_shell": Broken(
        ["%unknown_magic\nx = 1", "!false", "x = !false", "%%time\nx = 1", "len?"], ["lessons are plain Python"] * 5
    ),
    "dead_kernel": Broken(["import os\nos._exit(1)"], ["The kernel died"]),
    "stderr": Broken(
        [
            "import threading\nthread = threading.Thread(target=lambda: 1 / 0)\nthread.start()\nthread.join()",
            "import warnings\nwarnings.warn('old')",
            "1 + 1",
        ],
        ["ZeroDivisionError", "UserWarning", ""],
    ),
    "thread_after_the_last_cell": Broken(
        ["import threading\nthreading.Timer(0.5, lambda: 1 / 0).start()"], ["ZeroDivisionError"]
    ),
    "coroutine_after_the_last_cell": Broken(
        ["async def nobody_waits():\n    pass\n\n\nforgotten = nobody_waits()"], ["nobody_waits was never awaited"]
    ),
}


@pytest.fixture(scope="module")
def cases(tmp_path_factory):
    """Run all notebooks under nbval with the guards; return notebook -> what was said and seconds, for every cell."""
    folder = tmp_path_factory.mktemp("broken")
    for name, notebook in NOTEBOOKS.items():
        cells = [nbformat.v4.new_code_cell(source, metadata={"tags": list(notebook.tags)}) for source in notebook.cells]
        for number, cell in enumerate(cells, 1):
            cell["execution_count"] = number if notebook.executed else None
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
    notebook = NOTEBOOKS[name]
    assert len(cases[name]) == len(notebook.cells)
    for (said, _), expected in zip(cases[name], notebook.said, strict=True):
        assert expected in said and bool(said) == bool(expected)


def test_what_a_thread_or_a_warning_writes_is_named_as_such(cases):
    for name in ("stderr", "thread_after_the_last_cell", "coroutine_after_the_last_cell"):
        assert "wrote to stderr" in cases[name][0][0]


def test_dead_kernel_fails_at_once(cases):
    ((_, seconds),) = cases["dead_kernel"]
    assert seconds < TIMEOUT - 1
