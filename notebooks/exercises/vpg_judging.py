"""What happens to one submission: it is rebuilt, and judged. vpg_grading.py, beside this file, offers both to nbgrader.

A submission is not repaired: `Rebuild` takes the notebook as it was released and puts the student's answers and own
cells into it. `Judge` runs what is judged and what that needs, with the course's own modules, and outlives the kernel.
What a person must look at is noted in the graded notebook.
"""

import importlib.util
import json
import os
import re
import shutil
import symtable
import sys
from ast import literal_eval
from pathlib import Path

import nbformat
from IPython.core.inputtransformer2 import TransformerManager
from jupyter_client.kernelspec import get_kernel_spec
from nbclient.exceptions import CellTimeoutError, DeadKernelError
from nbconvert.exporters import NotebookExporter
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from nbformat.validator import normalize
from nbgrader.preprocessors import Execute, NbGraderPreprocessor
from nbgrader.utils import is_grade, is_solution

OWN = "own"  # the tag of a cell that is the student's: added, copied, or a lesson's that they changed
JUDGING = ("vpg_lab.checks", "vpg_lab.learner")
IMPORT_THE_JUDGE = "from vpg_lab.checks import check, judge; from vpg_lab.learner import go_on"
# Evaluated in the kernel: what stands behind every name that judges, or that a check leans on. COURSE is the names of
# the course's modules. What torch puts in the place of its own functions, when its compiler is imported, is torch's
# still.
FINGERPRINT = """[__import__("importlib").import_module(name) for name in JUDGING] and __import__("json").dumps({
    f"{where}.{name}":
        "torch" if getattr(code, "co_filename", "").startswith(__import__("torch").__path__[0])
        else [id(value), id(code)]
    for modules in [{
        name: vars(module) for name, module in list(__import__("sys").modules.items())
        if name.split(".")[0] in COURSE or name in ("torch", "numpy", "math", "builtins")
    }]
    for where, names in [
        *modules.items(),
        *((f"{module}.{name}", vars(value)) for module in modules if module.split(".")[0] in COURSE
          for name, value in list(modules[module].items()) if isinstance(value, type)),
        ("torch.Tensor", vars(__import__("torch").Tensor)),
        *__import__("vpg_lab.checks").checks.CLAIMS.items(),
    ]
    for name, value in list(names.items()) if callable(value)
    for code in [getattr(value, "__code__", None)]
} | {"file": __import__("vpg_helpers").__file__})"""


def notes_of(notebook: NotebookNode) -> list[str]:
    """Return what a person must look at in a graded notebook, sentences; the list that its metadata hold."""
    return notebook.metadata.setdefault("vpg", {}).setdefault("look_at", [])


def identifier(cell: NotebookNode) -> str:
    """Return the name under which nbgrader knows a cell, or an empty string."""
    return cell.metadata.get("nbgrader", {}).get("grade_id", "")


def answered_by(name: str, blanks: set[str]) -> str:
    """Return the blank that a cell belongs to: get_policy for check_get_policy_1."""
    name = re.sub(r"^(check|go_on)_", "", name)
    return name if name in blanks else re.sub(r"_\d+$", "", name)


def blanks_of(notebook: NotebookNode) -> set[str]:
    """Return the names of a notebook's blanks."""
    return {identifier(cell) for cell in notebook.cells if is_solution(cell)}


# ---- A submission becomes the released notebook with the student's answers -----------------------


class Submission(NotebookExporter):
    """nbgrader's exporter; what cannot be read as a notebook is read as an empty one."""

    def from_file(self, file_stream, resources=None, **kw):
        try:
            _, notebook = normalize(nbformat.read(file_stream, as_version=4))
            for cell in notebook.cells:
                _ = (
                    cell.cell_type,
                    cell.source.strip(),
                    cell.metadata.get("nbgrader", {}).get("grade_id"),
                )
        except Exception as error:
            notebook = new_notebook()
            notes_of(notebook).append(f"is no notebook ({type(error).__name__})")
        return self.from_notebook_node(notebook, resources=resources, **kw)


class Rebuild(NbGraderPreprocessor):
    """Take the notebook as it was released, with the answers and own cells of the submitted one."""

    def preprocess(self, nb, resources):
        coursedir, names = self.parent.parent.coursedir, resources["nbgrader"]
        folder = Path(coursedir.format_path(coursedir.release_directory, ".", names["assignment"]))
        released = nbformat.read(folder / f"{names['notebook']}.ipynb", as_version=4)
        # A submission must not bring notes of its own: only what could not be read has some, and no cells.
        notes_of(released).extend(merge(nb, released) if nb.cells else notes_of(nb) or merge(nb, released))
        return released, resources


def merge(submitted: NotebookNode, released: NotebookNode) -> list[str]:
    """Put the answers and own cells of a submitted notebook into a released one.

    A cell is known by nbgrader's name, by its id, or by its text. The first of several with one
    name is the answer; the others are own cells: they run where they stand, so that what counts is
    what the student saw. Returns what a person must look at.
    """
    known = {}
    for place, cell in enumerate(released.cells):
        cell.metadata.pop("execution", None)
        known |= {("text", cell.source.strip()): place, ("id", cell.id): place}
        if identifier(cell):
            known["name", identifier(cell)] = place
    found, changed, copied, own, last = set(), [], [], {}, -1
    for cell in submitted.cells:
        keys = ("name", identifier(cell)), ("id", cell.get("id")), ("text", cell.source.strip())
        place = next((known[key] for key in keys if key in known), None)
        ours = released.cells[place] if place is not None else None
        if place is None or place in found:
            if ours is None or is_solution(ours):
                own.setdefault(last, []).append(cell)
                copied += [identifier(ours)] if ours is not None else []
            continue
        last = place
        found.add(place)
        if is_solution(ours):
            ours.source = cell.source
        elif cell.source.strip() != ours.source.strip() and cell.cell_type == ours.cell_type == "code":
            if identifier(ours):
                changed.append(identifier(ours))
            else:
                ours.source, ours.outputs = cell.source, []
                ours.metadata.tags = [OWN]
    missing = [identifier(cell) for place, cell in enumerate(released.cells) if identifier(cell) and place not in found]
    for place in sorted(own, reverse=True):
        released.cells[place + 1 : place + 1] = [
            new_code_cell(cell.source, metadata={"tags": [OWN]})
            if cell.cell_type == "code"
            else new_markdown_cell(cell.source)
            for cell in own[place]
        ]
    if not found:
        return ["holds nothing of the notebook that was handed out"]
    said = {
        "deleted and put back": missing,
        "changed and put back": changed,
        "there more than once": copied,
    }
    return [f"{what}: {', '.join(dict.fromkeys(names))}" for what, names in said.items() if names]


# ---- What runs while grading ---------------------------------------------------------------------


def names_of(source: str) -> tuple[set[str], set[str]]:
    """Return the global names that a cell uses, and those that it makes; none if it is no code."""
    try:
        top = symtable.symtable(TransformerManager().transform_cell(source), "cell", "exec")
    except SyntaxError:
        return set(), set()
    tables, used = [top], set()
    for table in tables:  # the list grows while it is walked
        tables += table.get_children()
        used |= {each.get_name() for each in table.get_symbols() if each.is_referenced() and each.is_global()}
    made = {each.get_name() for each in top.get_symbols() if each.is_assigned() or each.is_imported()}
    used |= {each.get_name() for each in top.get_symbols() if each.is_referenced()}
    return used, made


def places_to_run(cells: list[NotebookNode]) -> set[int]:
    """Return which cells run: nbgrader's, and every other that makes a name that these use."""
    code = {place: names_of(cell.source) for place, cell in enumerate(cells) if cell.cell_type == "code"}
    running = {place for place in code if identifier(cells[place]) or "import *" in cells[place].source}
    more = running
    while more:
        used = set().union(*(code[place][0] for place in running))
        more = {place for place in code.keys() - running if code[place][1] & used}
        running = running | more
    return running


def importable(folder: Path) -> dict[Path, str]:
    """Return what can be imported from a folder, files and folders, and under which name."""
    found = {path: path.name.partition(".")[0] for path in sorted(folder.iterdir())}
    return {
        path: name
        for path, name in found.items()
        if name.isidentifier() and (path.is_dir() or path.suffix in (".py", ".pyc", ".so", ".pyd"))
    }


def remove(path: Path):
    """Remove a file, or a folder with all that is in it."""
    shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


def put_back_modules(folder: Path, source: Path) -> set[str]:
    """Replace what a folder has under the names of the course's modules by the course's; return these names.

    nbgrader lays the course's files over those of a submission, once. This leaves none of the submission's between
    them, and none that an answer wrote while it was judged.
    """
    ours = {path: name for path, name in importable(source).items() if name != "__pycache__"}
    for path, name in importable(folder).items():
        if name in ours.values() or name == "__pycache__":
            remove(path)
    for path in ours:
        if path.is_dir():
            shutil.copytree(path, folder / path.name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(path, folder)
    return set(ours.values())


def remove_shadows(folder: Path, course: set[str]) -> list[str]:
    """Remove what would be imported in place of an installed module; return what it was called."""
    removed = [path for path, name in importable(folder).items() if name not in course and hides(name, folder)]
    for path in removed:
        remove(path)
    return [path.name for path in removed]


def hides(name: str, folder: Path) -> bool:
    """Tell whether Python knows a module of this name elsewhere than in a folder."""
    if name in sys.stdlib_module_names:
        return True
    try:
        found = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        return False
    return found is not None and found.origin is not None and not Path(found.origin).is_relative_to(folder)


class Judge(Execute):
    """Run what is judged and what that needs; what ends the kernel loses its own points alone."""

    def preprocess(self, nb, resources, km=None):
        coursedir, assignment = self.parent.parent.coursedir, resources["nbgrader"]["assignment"]
        source = Path(coursedir.format_path(coursedir.source_directory, ".", assignment))
        self.notes, self.folder = notes_of(nb), Path(resources["metadata"]["path"]).resolve()
        self.course = put_back_modules(self.folder, source)
        shadows = remove_shadows(self.folder, self.course)
        self.notes += [f"{name} hides an installed module: removed" for name in shadows]
        self.cells, self.running = nb.cells, places_to_run(nb.cells)
        self.blanks = blanks_of(nb)
        self.blamed: dict[int, str] = {}  # cells that ended the kernel, and how
        while True:
            self.place, self.fingerprint, self.replaced = None, None, []
            notes = list(self.notes)
            try:
                return super().preprocess(nb, resources, km)
            except Exception as error:
                if self.place is None:
                    self.refuse(f"{type(error).__name__}: {error}")
                if not isinstance(error, (DeadKernelError, CellTimeoutError)):
                    raise
                self.notes[:] = notes
                self.blame(error)

    def blame(self, error):
        """Note which cell ended the kernel: the answer, where its check did."""
        how = "would not stop" if isinstance(error, CellTimeoutError) else "ended the Python process"
        names = [identifier(cell) for cell in self.cells]
        name = answered_by(names[self.place], self.blanks)
        guilty = names.index(name) if name in names and self.place not in self.blamed else self.place
        self.blamed[self.place if guilty in self.blamed else guilty] = how
        self.notes.append(f"{name or 'an own cell'} {how}")

    def preprocess_cell(self, cell, resources, index):
        if cell.cell_type != "code":
            return cell, resources
        if self.fingerprint is None:
            self.quietly("import sys; sys.path.insert(0, '')")  # the course's copies before any other
            self.fingerprint = self.ask_for_fingerprint()
        name = identifier(cell)
        answers = {identifier(self.cells[place]): how for place, how in self.blamed.items()}
        how = self.blamed.get(index) or (answers.get(answered_by(name, self.blanks)) if is_grade(cell) else None)
        if how:
            cell.outputs = [
                fail(
                    "CheckFailed",
                    f"{answered_by(name, self.blanks)}: it {how}; it was not run again",
                )
            ]
        elif index not in self.running:
            cell.outputs = [new_output("stream", name="stdout", text="Not run while grading: no answer needs it.\n")]
        else:
            self.place = index
            judging = name and not is_solution(cell)
            if judging:
                self.quietly(IMPORT_THE_JUDGE)
            cell, resources = super().preprocess_cell(cell, resources, index)
            if any(output.get("ename") == "CellTimeoutError" for output in cell.outputs):
                self.notes.append(f"{answered_by(name, self.blanks)} did not end within {self.timeout} s")
            if is_grade(cell):
                self.compare_fingerprint(cell)
        return cell, resources

    def quietly(self, code: str, **expressions: str) -> dict:
        """Execute code unseen, then evaluate expressions; return the kernel's reply."""
        message = self.kc.execute(code, silent=True, store_history=False, user_expressions=expressions)
        reply = self.wait_for_reply(message)
        if reply is None:
            raise CellTimeoutError("the kernel does not answer")
        return reply["content"]

    def compare_fingerprint(self, cell):
        """Take the verdict back where what judges is not what it was before the first cell."""
        now = self.ask_for_fingerprint()
        replaced = [name for name, value in self.fingerprint.items() if now.get(name) != value]
        if replaced:
            said = f"{', '.join(replaced[:3])} was replaced: no check counts from here on"
            cell.outputs = [fail("CheckFailed", said)]
            if not self.replaced:
                self.notes.append(f"replaced what judges: {', '.join(replaced[:3])}")
            self.replaced = replaced

    def ask_for_fingerprint(self) -> dict:
        """Return what FINGERPRINT gives; refuse to grade where other modules are imported."""
        code = FINGERPRINT.replace("JUDGING", repr(JUDGING)).replace("COURSE", repr(sorted(self.course)))
        answer = self.quietly("", fingerprint=code)["user_expressions"]["fingerprint"]
        if answer["status"] != "ok":
            if self.fingerprint is not None:
                return {}
            self.refuse(f"{answer['ename']}: {answer['evalue']}")
        fingerprint = json.loads(literal_eval(answer["data"]["text/plain"]))
        if self.fingerprint is None and Path(fingerprint["file"]).resolve().parent != self.folder:
            self.refuse(f"it imports {fingerprint['file']} and not the course's copy in source")
        return fingerprint

    def refuse(self, why: str):
        """End grading, and leave nothing graded wrongly: the fault is the machine's."""
        shutil.rmtree(self.folder)
        python = get_kernel_spec("python3").argv[0]
        raise SystemExit(
            f"Grading stopped: {python if os.path.isabs(python) else sys.executable} cannot check "
            f"exercises ({why}). Run nbgrader with the Python in which the project's requirements "
            "are installed: .venv/bin/python -m nbgrader, say."
        )


def fail(name: str, said: str) -> NotebookNode:
    """Return the output of a cell that failed with one line."""
    return new_output("error", ename=name, evalue=said, traceback=[f"{name}: {said}"])
