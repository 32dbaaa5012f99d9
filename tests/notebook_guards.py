"""Close the loopholes through which a broken notebook passes under nbval 0.11; pyproject.toml loads it.

Each guard fails the cell by name: (1) a cell that was never executed has no outputs to compare with; (2) a cell
that catches the interrupt of its own time-out passes, and turns later failures into expected ones; (3) an unknown
magic, or a failing shell command, passes; (4) a dead kernel is waited for until the time-out; (5) exceptions in
threads, coroutines that nobody awaits, and whatever else a reader would see on stderr pass.
"""

import time
from queue import Empty

import pytest
from IPython.core.inputtransformer2 import TransformerManager
from nbval.plugin import IPyNbCell

POLL_SECONDS = 1.0

# Run after a notebook's last cell, so that what threads and coroutines left behind comes to light.
LAST_PROBE = """
import gc as _gc, inspect as _inspect, sys as _sys, threading as _threading, types as _types
for _thread in _threading.enumerate():
    if not _thread.daemon and _thread is not _threading.current_thread():
        _thread.join(5)
for _object in _gc.get_objects():
    # type(), not isinstance(): it asks nothing of the objects, some of which warn when asked
    if type(_object) is _types.CoroutineType and "ipykernel_" in _object.cr_code.co_filename:
        if _inspect.getcoroutinestate(_object) == "CORO_CREATED":
            print(f"coroutine {_object.__qualname__} was never awaited", file=_sys.stderr)
"""


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item, nextitem):
    """Note which cell is the last of its notebook to run."""
    if isinstance(item, IPyNbCell):
        item.is_last = nextitem is None or nextitem.parent is not item.parent
    return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item):
    """Run a notebook cell between the guards."""
    if not isinstance(item, IPyNbCell) or item.options["skip"]:
        return (yield)
    refuse_unexecuted(item)
    refuse_magic(item)
    kernel, timed_out_before = item.parent.kernel, item.parent.timed_out
    if not hasattr(kernel, "stderr_said"):
        watch(kernel)
    result = yield
    if item.parent.timed_out and not timed_out_before:
        item.raise_cell_error("The cell ran into its time-out and caught the interrupt")
    if item.is_last:
        kernel.await_idle(kernel.execute_cell_input(LAST_PROBE, allow_stdin=False), timeout=60)
    if kernel.stderr_said:
        said, kernel.stderr_said[:] = "".join(kernel.stderr_said), []
        item.raise_cell_error("This cell, or a thread or coroutine from an earlier one, wrote to stderr", said)
    return result


def refuse_unexecuted(item):
    """Fail where outputs are to be compared and none were ever made."""
    if item.options["check"] and item.cell.source.strip() and item.cell.execution_count is None:
        item.raise_cell_error("The cell was committed without having been executed")


def refuse_magic(item):
    """Fail where the cell is not plain Python: magics and shell commands fail silently, and differ by machine."""
    source = item.cell.source.rstrip()
    if TransformerManager().transform_cell(source).rstrip() != source:
        item.raise_cell_error("The cell holds a %magic, a !command or a ?query; lessons are plain Python")


def watch(kernel):
    """Let every wait for the kernel end when the kernel dies, and keep what arrives on stderr."""
    kernel.stderr_said = []
    get_message = kernel.get_message

    def get_message_while_alive(stream, timeout=None):
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            left = POLL_SECONDS if deadline is None else deadline - time.monotonic()
            try:
                message = get_message(stream, timeout=max(0.0, min(POLL_SECONDS, left)))
            except Empty:
                if not kernel.is_alive():
                    raise RuntimeError("The kernel died while the cell ran") from None
                if left <= POLL_SECONDS and deadline is not None:
                    raise
                continue
            if message["msg_type"] == "stream" and message["content"]["name"] == "stderr":
                kernel.stderr_said.append(message["content"]["text"])
            return message

    kernel.get_message = get_message_while_alive
