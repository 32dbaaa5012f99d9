"""One small broken notebook per loophole of nbval: each must fail, with the guard's own message."""

from pathlib import Path

import nbformat
import pytest

TESTS = Path(__file__).parent


@pytest.fixture
def run_notebook(pytester, monkeypatch):
    """Return a function that writes cells into a notebook and runs it under nbval with the guards."""
    monkeypatch.setenv("PYTHONPATH", str(TESTS))

    def run(*sources, executed=True, tags=("nbval-ignore-output",), timeout=20):
        cells = [nbformat.v4.new_code_cell(source, metadata={"tags": list(tags)}) for source in sources]
        for number, cell in enumerate(cells, 1):
            cell["execution_count"] = number if executed else None
        nbformat.write(nbformat.v4.new_notebook(cells=cells), pytester.path / "lesson.ipynb")
        options = [
            "-p",
            "notebook_guards",
            "--nbval",
            "--nbval-current-env",
            f"--nbval-cell-timeout={timeout}",
        ]
        return pytester.runpytest_subprocess(*options, "lesson.ipynb")

    return run


def test_sound_notebook_passes(run_notebook):
    run_notebook("import threading", "threading.Thread(target=int).start()", "1 + 1").assert_outcomes(passed=3)


def test_wrong_output_fails(run_notebook):
    result = run_notebook("1 + 1", tags=())
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*Unexpected output fields*"])


def test_unexecuted_cell_fails(run_notebook):
    result = run_notebook("x = 1", executed=False, tags=())
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*committed without having been executed*"])


def test_swallowed_time_out_fails(run_notebook):
    source = "import time\ntry:\n    time.sleep(60)\nexcept KeyboardInterrupt:\n    pass"
    result = run_notebook(source, timeout=2)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*caught the interrupt*"])


def test_magic_and_shell_fail(run_notebook):
    sources = ["%unknown_magic\nx = 1", "!false", "x = !false", "%%time\nx = 1", "len?"]
    result = run_notebook(*sources)
    result.assert_outcomes(failed=len(sources))
    result.stdout.fnmatch_lines(["*lessons are plain Python*"] * len(sources))


def test_dead_kernel_fails_at_once(run_notebook):
    result = run_notebook("import os\nos._exit(1)", timeout=300)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*The kernel died*"])
    assert result.duration < 60


def test_stderr_of_threads_and_warnings_fails(run_notebook):
    thread = "import threading\nthread = threading.Thread(target=lambda: 1 / 0)\nthread.start()\nthread.join()"
    result = run_notebook(thread, "import warnings\nwarnings.warn('old')", "1 + 1")
    result.assert_outcomes(failed=2, passed=1)
    result.stdout.fnmatch_lines(["*wrote to stderr*", "*ZeroDivisionError*", "*wrote to stderr*", "*UserWarning*"])


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("import threading\nthreading.Timer(0.5, lambda: 1 / 0).start()", "*ZeroDivisionError*"),
        (
            "async def nobody_waits():\n    pass\n\n\nforgotten = nobody_waits()",
            "*nobody_waits was never awaited*",
        ),
    ],
    ids=["thread", "coroutine"],
)
def test_errors_after_the_last_cell_fail(run_notebook, source, said):
    result = run_notebook(source)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*wrote to stderr*", said])
