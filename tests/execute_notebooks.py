"""Execute notebooks in place, from a fresh kernel, and keep only what a reader needs.

    python tests/execute_notebooks.py                            # every lesson
    python tests/execute_notebooks.py notebooks/02_policy.ipynb  # one

A second execution of a lesson without training leaves the file byte for byte as it is: no times are recorded,
no widget state is kept and streams are merged.
"""

import sys
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"


def execute(path: Path) -> None:
    """Run the notebook in its own folder and write it back; an exception in a cell leaves the file untouched."""
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
    client = NotebookClient(
        notebook,
        timeout=120,
        kernel_name="python3",
        resources={"metadata": {"path": str(path.parent)}},
        record_timing=False,
        coalesce_streams=True,
    )
    client.execute()
    notebook.metadata.pop("widgets", None)
    notebook.metadata["language_info"] = {"name": "python"}
    nbformat.write(notebook, path)


def main(arguments: list[str]) -> None:
    """Execute the notebooks named, or every lesson, and say how long each one took."""
    for path in [Path(argument) for argument in arguments] or sorted(NOTEBOOKS.glob("*.ipynb")):
        start = time.perf_counter()
        execute(path.resolve())
        print(f"{path.name}: {time.perf_counter() - start:.1f} s", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
