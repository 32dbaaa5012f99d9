"""Execute notebooks in place, from a fresh kernel, and keep only what a reader needs.

    python tests/execute_notebooks.py                            # every lesson
    python tests/execute_notebooks.py notebooks/02_policy.ipynb  # one

A second execution of a lesson without training leaves the file byte for byte as it is: no times are recorded,
no widget state is kept and streams are merged.
"""

import base64
import sys
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient

ROOT = Path(__file__).parents[1]
NOTEBOOKS = ROOT / "notebooks"

WIDGET = "application/vnd.jupyter.widget-view+json"

# The README shows two pictures out of the lessons: file name -> (lesson, how its description begins).
README_PICTURES = {
    "after_training.png": ("05_training.ipynb", "Animation, After training"),
    "learning_curves.png": ("06_learning_curves.ipynb", "Three panels: two recipes"),
}


def picture_from_lesson(name: str) -> bytes:
    """Return the PNG that the lesson's committed output holds."""
    lesson, description = README_PICTURES[name]
    for cell in nbformat.read(NOTEBOOKS / lesson, as_version=4).cells:
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            if data.get("text/plain", "").startswith(description):
                return base64.b64decode(data["image/png"])
    raise LookupError(f"{lesson} has no picture whose description begins with {description!r}")


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
    for cell in notebook.cells:
        # A widget without a kernel is a blank; what it shows is drawn beside it as a picture.
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if WIDGET not in output.get("data", {})]
            for output in cell.outputs:
                # An animation's live form holds the picture once more, and a sanitizer may drop it: the PNG stays.
                if "image/png" in output.get("data", {}):
                    output.data.pop("text/html", None)
    notebook.metadata.pop("widgets", None)
    notebook.metadata["language_info"] = {"name": "python"}
    nbformat.write(notebook, path)


def main(arguments: list[str]) -> None:
    """Execute the notebooks named, or every lesson; say how long each took; renew the README's pictures."""
    for path in [Path(argument) for argument in arguments] or sorted(NOTEBOOKS.glob("*.ipynb")):
        start = time.perf_counter()
        execute(path.resolve())
        print(f"{path.name}: {time.perf_counter() - start:.1f} s", flush=True)
    for name in README_PICTURES:
        (ROOT / ".github" / name).write_bytes(picture_from_lesson(name))


if __name__ == "__main__":
    main(sys.argv[1:])
