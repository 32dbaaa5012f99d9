"""Run nbgrader's commands as processes of their own, without the two seconds in which each would import nbgrader."""

import multiprocessing
import os
import sys
from pathlib import Path

# A server imports nbgrader once and forks for every command; where there is no fork, each command imports anew.
_CONTEXT = multiprocessing.get_context(
    "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else None
)
if hasattr(_CONTEXT, "set_forkserver_preload"):
    _CONTEXT.set_forkserver_preload(["nbgrader.apps.nbgraderapp"])


class Command:
    """A running `nbgrader ...` in a folder; wait for it with finish."""

    def __init__(self, arguments: list[str], folder: Path, environment: dict[str, str], log: Path):
        self.arguments, self.log = arguments, log
        self.process = _CONTEXT.Process(target=_run, args=(arguments, folder, environment, log))
        self.process.start()

    def finish(self, timeout: float = 600, ends_with: int = 0):
        """Wait; fail with what it printed if it ended with another exit status than it should."""
        self.process.join(timeout)
        assert self.process.exitcode == ends_with, f"nbgrader {self.arguments}: {self.log.read_text(encoding='utf-8')}"


def _run(arguments, folder, environment, log):
    os.chdir(folder)
    os.environ.update(environment)
    with log.open("w", encoding="utf-8") as output:
        os.dup2(output.fileno(), 1)
        os.dup2(output.fileno(), 2)
    sys.argv = ["nbgrader", *arguments]
    from nbgrader.apps.nbgraderapp import main

    main()
