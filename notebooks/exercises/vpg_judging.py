"""What happens to one submission: it is rebuilt, and judged. vpg_grading.py, beside this file, offers both to nbgrader.

A submission is not repaired: `Rebuild` takes the notebook as it was released and puts the student's answers and own
cells into it. `Judge` runs what is judged and what that needs, with the course's own modules, and outlives the kernel.
What a person must look at is noted in the graded notebook.
"""

import asyncio
import compileall
import hashlib
import os
import re
import shutil
import symtable
import sys
import time
from ast import literal_eval
from pathlib import Path
from tempfile import TemporaryDirectory

import nbformat
import psutil
from IPython.core.inputtransformer2 import TransformerManager
from jupyter_client.kernelspec import get_kernel_spec
from nbclient.exceptions import CellTimeoutError, DeadKernelError
from nbconvert.exporters import NotebookExporter
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from nbformat.validator import normalize
from nbgrader.preprocessors import Execute, NbGraderPreprocessor
from nbgrader.utils import is_grade, is_solution
from traitlets import Integer
from vpg_guard import LIBRARIES

OWN = "own"  # the tag of a cell that is the student's: added, copied, or a lesson's that they changed


def notes_of(notebook: NotebookNode) -> list[str]:
    """Return what a person must look at in a graded notebook, sentences; the list that its metadata hold."""
    return notebook.metadata.setdefault("vpg", {}).setdefault("look_at", [])


def digest(path: Path) -> str:
    """Return what tells a file from another version of it."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


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
                _ = cell.cell_type, cell.source.strip(), identifier(cell)
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
        folder = coursedir.format_path(coursedir.submitted_directory, names["student"], names["assignment"])
        released.metadata["vpg"]["digest"] = digest(Path(folder, f"{names['notebook']}.ipynb"))
        return released, resources


def merge(submitted: NotebookNode, released: NotebookNode) -> list[str]:
    """Put the answers and own cells of a submitted notebook into a released one.

    A cell is known by nbgrader's name, by its id, or by its text. The first of several with one name is the answer; the
    others are own cells: they run where they stand, so that what counts is what the student saw. A blank that is
    missing, or as it was handed out, takes the own cell that defines its name. Returns what a person must look at.
    """
    known = {}
    for place, cell in enumerate(released.cells):
        cell.metadata.pop("execution", None)
        known |= {("text", cell.source.strip()): place, ("id", cell.id): place}
        if identifier(cell):
            known["name", identifier(cell)] = place
    answers, found, own, said = {}, set(), [], {"changed and put back": [], "there more than once": []}
    last = -1
    for cell in submitted.cells:
        keys = ("name", identifier(cell)), ("id", cell.get("id")), ("text", cell.source.strip())
        place = next((known[key] for key in keys if key in known), None)
        ours = released.cells[place] if place is not None else None
        if place is None or place in found:
            if ours is None or is_solution(ours):
                own.append((last, cell))
                said["there more than once"] += [identifier(ours)] if ours is not None else []
            continue
        last = place
        found.add(place)
        if is_solution(ours):
            answers[place] = cell.source
        elif cell.source.strip() != ours.source.strip() and cell.cell_type == ours.cell_type == "code":
            if identifier(ours):
                said["changed and put back"].append(identifier(ours))
            else:
                ours.source, ours.outputs = cell.source, []
                ours.metadata.tags = [OWN]
    said["taken from another cell"] = fill_blanks(released, answers, own)
    missing = [cell for place, cell in enumerate(released.cells) if place not in found | {*answers}]
    said["deleted and put back"] = [*filter(None, map(identifier, missing))]
    for place, cell in sorted(own, key=lambda each: each[0])[::-1]:
        new = new_code_cell(cell.source, metadata={"tags": [OWN]}) if cell.cell_type == "code" else None
        released.cells.insert(place + 1, new or new_markdown_cell(cell.source))
    if not found and not answers:
        return ["holds nothing of the notebook that was handed out"]
    return [f"{what}: {', '.join(dict.fromkeys(names))}" for what, names in said.items() if names]


def fill_blanks(released: NotebookNode, answers: dict[int, str], own: list[tuple[int, NotebookNode]]) -> list[str]:
    """Write answers, by place, into a notebook's blanks; return the names of those that were written elsewhere.

    Where a blank has no answer, the first of the student's own cells that defines its name is moved there; where it is
    defined in the cell of another answer, the blank is emptied, so as not to hide it.
    """
    elsewhere = []
    for place, blank in enumerate(released.cells):
        name = identifier(blank)
        if not is_solution(blank) or answers.get(place, blank.source).strip() != blank.source.strip():
            continue
        made = [each for each in own if each[1].cell_type == "code" and name in names_of(each[1].source)[1]]
        if made:
            answers[place] = made[0][1].source
            own.remove(made[0])
        elif any(name in names_of(source)[1] for other, source in answers.items() if other != place):
            answers[place] = f"# {name} is written in another cell."
        else:
            continue
        elsewhere.append(name)
    for place, source in answers.items():
        released.cells[place].source = source
    return elsewhere


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


class Judge(Execute):
    """Run what is judged and what that needs; what ends the kernel loses its own points alone."""

    cpu_seconds = Integer(30, help="how long a cell may compute; `timeout` is how long it may take by the clock")
    cpu_seconds.tag(config=True)

    def __init__(self, *given, **named):
        super().__init__(*given, timeout_func=lambda cell: 1, **named)

    def preprocess(self, nb, resources, km=None):
        coursedir, assignment = self.parent.parent.coursedir, resources["nbgrader"]["assignment"]
        self.source = Path(coursedir.format_path(coursedir.source_directory, ".", assignment))
        self.notes, self.folder = notes_of(nb), Path(resources["metadata"]["path"]).resolve()
        self.cells, self.running = nb.cells, places_to_run(nb.cells)
        self.blanks = blanks_of(nb)
        self.blamed: dict[int, str] = {}  # cells that ended the kernel, and how
        while True:
            self.place, self.errors = None, {}
            notes = list(self.notes)
            with TemporaryDirectory() as self.modules:
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
        self.note(f"{name or 'an own cell'} {how}")

    def preprocess_cell(self, cell, resources, index):
        if cell.cell_type != "code":
            return cell, resources
        if self.place is None:
            self.bring_the_course()
        name = identifier(cell)
        answer = answered_by(name, self.blanks)
        answers = {identifier(self.cells[place]): how for place, how in self.blamed.items()}
        how = self.blamed.get(index) or (answers.get(answer) if is_grade(cell) else None)
        if how:
            cell.outputs = [fail(f"{answer}: it {how}; it was not run again")]
        elif index not in self.running:
            cell.outputs = [new_output("stream", name="stdout", text="Not run while grading: no answer needs it.\n")]
        else:
            self.place = index
            if name and not is_solution(cell):
                self.put_back("put back before it was judged")
            self.began = time.monotonic(), self.computed()
            cell, resources = super().preprocess_cell(cell, resources, index)
            if any(output.get("ename") == "CellTimeoutError" for output in cell.outputs):
                self.note(f"{answer or 'an own cell'} did not end within {self.cpu_seconds} s")
            if is_grade(cell):
                self.say_what_the_answer_said(cell, answer)
                if replaced := self.put_back(f"replaced by {answer} while it was judged"):
                    cell.outputs = [fail(f"{answer}: while it was judged, it replaced {replaced}")]
            elif not name or is_solution(cell):
                self.note_error(cell, name)
        return cell, resources

    # ---- The course's modules, and what judges ----

    def bring_the_course(self):
        """Let the kernel import the course's modules before all others, and a submission's files after all others."""
        compileall.compile_dir(self.source, quiet=2)
        skip = shutil.ignore_patterns("*.ipynb")
        shutil.copytree(self.source, self.modules, ignore=skip, dirs_exist_ok=True)
        shutil.copy(Path(__file__).with_name("vpg_guard.py"), self.modules)
        course = {path.name.partition(".")[0] for path in Path(self.modules).iterdir()}
        answer = self.quietly(
            f"import sys; sys.path[:] = [{self.modules!r}, *filter(None, sys.path), '']; import vpg_guard",
            f"vpg_guard.remember({course!r})",
        )
        if answer["status"] != "ok":
            self.refuse(f"{answer['ename']}: {answer['evalue']}")
        helpers = literal_eval(answer["data"]["text/plain"])
        if Path(helpers).resolve().parent != Path(self.modules).resolve():
            self.refuse(f"it imports {helpers} and not the course's copy in source")

    def put_back(self, what: str) -> str:
        """Put back what judges, where something else stands in its place, and note it; return names of the course's."""
        names = "from vpg_lab.checks import check, judge; from vpg_lab.learner import go_on"
        answer = self.quietly(f"import vpg_guard; vpg_guard.put_back(); {names}", "vpg_guard.replaced")
        if answer["status"] != "ok":
            self.note(f"nobody could see whether something that judges was replaced ({answer['ename']})")
            return ""
        names = literal_eval(answer["data"]["text/plain"])
        if names:
            self.note(f"{what}: {', '.join(names[:3])}{' and more' * (len(names) > 3)}")
        return ", ".join(name for name in names if not name.startswith(LIBRARIES))

    def quietly(self, code: str, expression: str) -> dict:
        """Execute code unseen, then evaluate an expression; return what the kernel says of it."""
        message = self.kc.execute(code, silent=True, store_history=False, user_expressions={"it": expression})
        reply = self.wait_for_reply(message)
        if reply is None:
            raise CellTimeoutError("the kernel does not answer")
        return reply["content"].get("user_expressions", {}).get("it", reply["content"])

    # ---- How long an answer may take ----

    def computed(self) -> float:
        """Return how many seconds the kernel has computed, with the processes that it started and that have ended."""
        try:
            return sum(psutil.Process(self.km.provisioner.pid).cpu_times()[:4])
        except psutil.Error:
            return 0.0

    async def _async_handle_timeout(self, timeout, cell=None):
        """Interrupt a cell that has computed too long, or takes too long by the clock; nbclient asks every second."""
        if cell is not None:
            await asyncio.sleep(0.1)
            clock, computed = self.began
            if self.computed() - computed < self.cpu_seconds and time.monotonic() - clock < self.timeout:
                return None
        return await super()._async_handle_timeout(timeout, cell)

    # ---- What is said ----

    def note_error(self, cell, name):
        """Remember what error a cell of the student's ended with; note a module that is missing here."""
        for output in cell.outputs:
            if output.output_type == "error":
                self.errors[name] = f"{output.ename}: {re.sub(r'[(][^ ]*[.]py, ', '(', output.evalue)}"
                if output.ename == "ModuleNotFoundError":
                    self.note(f"{name or 'an own cell'}: {output.evalue} here")

    def say_what_the_answer_said(self, cell, answer):
        """Where a check had nothing to judge because the answer's own cell failed, let it say how that failed."""
        said = "".join(f"{each.ename}: {each.evalue}" for each in cell.outputs if each.output_type == "error")
        if answer in self.errors and ("NameError" in said or "its last cell failed" in said):
            cell.outputs = [fail(f"{answer}: its cell fails: {self.errors[answer]}")]

    def note(self, what: str):
        """Note what a person must look at, once."""
        self.notes += [what] * (what not in self.notes)

    def refuse(self, why: str):
        """End grading, and leave nothing graded wrongly: the fault is the machine's."""
        shutil.rmtree(self.folder)
        python = get_kernel_spec("python3").argv[0]
        raise SystemExit(
            f"Grading stopped: {python if os.path.isabs(python) else sys.executable} cannot check "
            f"exercises ({why}). Run nbgrader with the Python in which the project's requirements "
            "are installed: .venv/bin/python -m nbgrader, say."
        )


def fail(said: str) -> NotebookNode:
    """Return the output of a check that failed with one line."""
    return new_output("error", ename="CheckFailed", evalue=said, traceback=[f"CheckFailed: {said}"])
