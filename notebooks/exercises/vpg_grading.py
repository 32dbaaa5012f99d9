"""What nbgrader lacks for grading a class; nbgrader_config.py, beside this file, plugs it in.

A submission is not repaired: `Rebuild` takes the notebook as it was released and puts the student's
answers and own cells into it. `Judge` runs what is judged and what that needs, and outlives the
kernel. What a person must look at is noted in the graded notebook; `ClassReport` lists it.
`Feedback` prepares what a student reads. As a program, this grades a class, students side by side:

    python vpg_grading.py vpg
"""

import argparse
import csv
import importlib.util
import json
import multiprocessing
import os
import re
import shutil
import symtable
import sys
from ast import literal_eval
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

import nbformat
from IPython.core.inputtransformer2 import TransformerManager
from jupyter_client.kernelspec import get_kernel_spec
from nbclient.exceptions import CellTimeoutError, DeadKernelError
from nbconvert.exporters import NotebookExporter
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from nbformat.validator import normalize
from nbgrader.api import MissingEntry
from nbgrader.apps import NbGraderAPI
from nbgrader.apps.baseapp import NbGrader
from nbgrader.plugins import CsvExportPlugin
from nbgrader.preprocessors import Execute, GetGrades, NbGraderPreprocessor
from nbgrader.utils import has_failed, is_grade, is_solution

PROJECT = ("vpg_helpers", "vpg_lab")
LOOK_AT = "look_at"  # in a graded notebook's metadata: what a person must look at, sentences
OWN = "own"  # the tag of a cell that is the student's: added, copied, or a lesson's that they changed
# Evaluated in the kernel: what stands behind every name that judges, or that a check leans on. What
# torch puts in the place of its own functions, when its compiler is imported, is torch's still.
FINGERPRINT = """__import__("json").dumps({
    f"{where}.{name}":
        "torch" if getattr(code, "co_filename", "").startswith(__import__("torch").__path__[0])
        else [id(value), id(code)]
    for where, names in [
        *((module, vars(__import__("importlib").import_module(module)))
          for module in ("vpg_lab.checks.verdicts", "vpg_lab.learner", "vpg_helpers", "torch", "numpy", "math",
                         "builtins")),
        ("torch.Tensor", vars(__import__("torch").Tensor)),
        *__import__("vpg_lab.checks").checks.CLAIMS.items(),
    ]
    for name, value in list(names.items()) if callable(value)
    for code in [getattr(value, "__code__", None)]
} | {"file": __import__("vpg_helpers").__file__})"""
IMPORT_THE_JUDGE = "from vpg_lab.checks import check, judge; from vpg_lab.learner import go_on"


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
            notebook = new_notebook(metadata={LOOK_AT: [f"is no notebook ({type(error).__name__})"]})
        return self.from_notebook_node(notebook, resources=resources, **kw)


class Rebuild(NbGraderPreprocessor):
    """Take the notebook as it was released, with the answers and own cells of the submitted one."""

    def preprocess(self, nb, resources):
        coursedir, names = self.parent.parent.coursedir, resources["nbgrader"]
        folder = Path(coursedir.format_path(coursedir.release_directory, ".", names["assignment"]))
        released = nbformat.read(folder / f"{names['notebook']}.ipynb", as_version=4)
        # A submission must not bring notes of its own.
        unreadable = nb.metadata.get(LOOK_AT, []) if not nb.cells else []
        released.metadata[LOOK_AT] = unreadable or merge(nb, released)
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


def remove_shadows(folder: Path) -> list[str]:
    """Remove what would be imported in place of an installed module; return the names of it."""
    removed = []
    for path in sorted(folder.iterdir()):
        name = path.name.partition(".")[0]
        importable = path.is_dir() or path.suffix in (".py", ".pyc", ".so")
        if importable and name.isidentifier() and name not in PROJECT and hides(name, folder):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
            removed.append(path.name)
    return removed


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
        folder = Path(resources["metadata"]["path"]).resolve()
        self.notes, self.folder = nb.metadata.setdefault(LOOK_AT, []), folder
        self.notes += [f"{name} hides an installed module: removed" for name in remove_shadows(folder)]
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
        answer = self.quietly("", fingerprint=FINGERPRINT)["user_expressions"]["fingerprint"]
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


# ---- What a student reads ------------------------------------------------------------------------


class Feedback(GetGrades):
    """Prepare a feedback page: every check by its claim, with verdict and points, by answer."""

    def preprocess(self, nb, resources):
        nb, resources = super().preprocess(nb, resources)
        answers = {identifier(cell): {"cell": cell, "checks": []} for cell in nb.cells if is_solution(cell)}
        for cell in nb.cells:
            if is_grade(cell):
                name = answered_by(identifier(cell), set(answers))
                check = {
                    "claim": cell.metadata.get("vpg", {}).get("claim", identifier(cell)),
                    "said": verdict(cell),
                }
                answers[name]["checks"].append(
                    check | {key: cell.metadata.nbgrader[key] for key in ("score", "points")}
                )
        resources["answers"] = answers
        resources["title"] = nb.cells[0].source.partition("\n")[0].lstrip("# ") if nb.cells else ""
        return nb, resources


def verdict(cell: NotebookNode) -> str:
    """Return what a check said: its failure, or what it printed."""
    failures = [output for output in cell.outputs if output.output_type == "error"]
    if failures:
        said = failures[-1].evalue or re.sub(r"\x1b\[[\d;]*m", "", failures[-1].traceback[-1])
        return said if failures[-1].ename in ("CheckFailed", "NotWrittenYet") else f"{failures[-1].ename}: {said}"
    return "".join(output.get("text", "") for output in cell.outputs).strip() or ("" if has_failed(cell) else "held")


# ---- What a teacher reads ------------------------------------------------------------------------


class ClassReport(CsvExportPlugin):
    """Export grades.csv as nbgrader does; print the points and whom to look at, and write them."""

    def export(self, gradebook):
        super().export(gradebook)
        coursedir, ungraded = self.parent.coursedir, []
        for assignment in gradebook.assignments:
            lessons = [notebook.name for notebook in assignment.notebooks]
            rows = []
            for student in sorted({each.id for each in gradebook.students} | set(submitting(coursedir))):
                notes = look_at(coursedir, assignment.name, student, lessons)
                scores = [score_of(gradebook, lesson, assignment.name, student) for lesson in lessons]
                rows.append([student, *scores, sum(scores), assignment.max_score, "; ".join(notes)])
                ungraded += [student] * any("NOT GRADED" in note for note in notes)
            header = ["student", *lessons, "total", "of", "look at"]
            with open(f"class_report_{assignment.name}.csv", "w", newline="") as file:
                csv.writer(file).writerows([header, *rows])
            print_table(
                [
                    ["student", *(name[:2] for name in lessons), "total", "of"],
                    *(row[:-1] for row in rows),
                ]
            )
            print("\nLook at:", *(f"  {row[0]}: {row[-1]}" for row in rows if row[-1]), sep="\n")
        if ungraded:
            raise SystemExit(f"Without a full grade: {', '.join(ungraded)}")


def submitting(coursedir) -> Iterator[str]:
    """Yield the names of all folders in which somebody handed something in."""
    folder = Path(coursedir.format_path(coursedir.submitted_directory, "x", "x")).parents[1]
    return (path.name for path in folder.glob("*") if path.is_dir())


def score_of(gradebook, lesson: str, assignment: str, student: str) -> float:
    """Return a student's points for a lesson, less any penalty for lateness; 0 without a grade."""
    try:
        found = gradebook.find_submission_notebook(lesson, assignment, student)
    except MissingEntry:
        return 0.0
    return max(0.0, found.score - (found.late_submission_penalty or 0))


def look_at(coursedir, assignment: str, student: str, lessons: list[str]) -> list[str]:
    """Return what a person must look at in a student's submission and its grades."""
    submitted = Path(coursedir.format_path(coursedir.submitted_directory, student, assignment))
    graded = Path(coursedir.format_path(coursedir.autograded_directory, student, assignment))
    home, notes = submitted.parent, []
    handed_in = sorted(path for path in home.rglob("*.ipynb") if ".ipynb_checkpoints" not in path.parts)
    if not handed_in:
        return ["NOT GRADED: handed in no notebook"]
    missing = [lesson for lesson in lessons if submitted / f"{lesson}.ipynb" not in handed_in]
    others = [str(path.relative_to(home)) for path in handed_in if path.parent != submitted or path.stem not in lessons]
    if missing:
        notes.append(f"NOT GRADED: no {', '.join(missing)}")
    if others:
        notes.append(f"other notebooks: {', '.join(others)}" + "; rename, and grade again" * bool(missing))
    if coursedir.get_existing_timestamp(str(submitted)) != coursedir.get_existing_timestamp(str(graded)):
        notes.append("NOT GRADED: handed in again since; grade again")
    for lesson in lessons:
        path = graded / f"{lesson}.ipynb"
        if path.exists():
            notes += [f"{lesson} {note}" for note in nbformat.read(path, as_version=4).metadata.get(LOOK_AT, [])]
        elif lesson not in missing:
            notes.append(f"NOT GRADED: {lesson}; nbgrader stopped at it")
    return notes


def print_table(rows: list[list]):
    """Print rows in columns."""
    texts = [[f"{value:g}" if isinstance(value, float) else str(value) for value in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
    for first, *others in texts:
        print(
            first.ljust(widths[0]),
            *(text.rjust(width) for text, width in zip(others, widths[1:], strict=True)),
        )


# ---- A class side by side ------------------------------------------------------------------------


def load() -> NbGrader:
    """Return an nbgrader with the settings of the folder we are in."""
    app = NbGrader()
    app.initialize([])
    return app


def grade(assignment: str, student: str, force: bool) -> tuple[str, str]:
    """Autograde one student; return what went wrong, or an empty string, and what nbgrader said."""
    app = load()
    # Writers wait for each other; SQLite would give up after five seconds.
    app.coursedir.db_url += "?timeout=300"
    result = NbGraderAPI(app.coursedir, parent=app).autograde(assignment, student, force=force)
    return result.get("error", ""), result.get("log", "")


def main():
    """Grade what is new, students side by side; then export the grades and report."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("assignment", help="vpg, say")
    parser.add_argument("--students", nargs="*", help="only these")
    parser.add_argument("--force", action="store_true", help="grade again what was graded")
    parser.add_argument("--side-by-side", type=int, default=os.cpu_count(), help="how many; one a core")
    settings = parser.parse_args()
    coursedir = load().coursedir
    students = settings.students or sorted(
        name
        for name in submitting(coursedir)
        if os.path.isdir(coursedir.format_path(coursedir.submitted_directory, name, settings.assignment))
    )
    # One thread a kernel: side by side, more would only get in each other's way.
    os.environ |= {"OMP_NUM_THREADS": "1"}
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(settings.side_by_side, context) as pool:
        running = {pool.submit(grade, settings.assignment, name, settings.force): name for name in students}
        for number, future in enumerate(as_completed(running), 1):
            error, said = future.result()
            print(
                f"{number} of {len(students)}: {running[future]}{' failed' * bool(error)}",
                flush=True,
            )
            if "SystemExit" in error:
                pool.shutdown(cancel_futures=True)
                raise SystemExit(error.rpartition("SystemExit: ")[2])
            if error:
                print(said, file=sys.stderr)
    os.execv(sys.executable, [sys.executable, "-m", "nbgrader", "export"])


if __name__ == "__main__":
    main()
