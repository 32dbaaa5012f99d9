"""What nbgrader's metadata in the edition say: which cells earn points, and how many."""

from build.lessons import EDITION, read
from nbformat import NotebookNode


def graded(notebook: NotebookNode) -> list[NotebookNode]:
    """Return the cells that earn points."""
    return [cell for cell in notebook.cells if cell.metadata.get("nbgrader", {}).get("grade")]


def points(name: str) -> dict[str, int]:
    """Return what each graded cell of a notebook of the edition is worth, by grade_id."""
    cells = [cell.metadata["nbgrader"] for cell in graded(read(EDITION / name))]
    return {cell["grade_id"]: cell["points"] for cell in cells}
