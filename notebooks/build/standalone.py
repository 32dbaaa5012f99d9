"""Notebooks that work alone, uploaded to Colab say: what they import of the project travels inside, packed."""

import ast
import base64
import bz2
import copy
import json
import posixpath
import re
from pathlib import Path

from nbformat import NotebookNode
from nbformat.v4 import new_code_cell

from build.edition import HIDDEN, make_edition
from build.lessons import EDITION, LESSONS, ROOT, code_cells, name_of, read, write_notebook
from build.links import mend_links, online_address, read_project

IMPORTED_AS = {"ipython": "IPython", "pillow": "PIL"}  # packages with two names

UNPACK = '''\
# @title Run this first: it unpacks the modules of these lessons, where they are not installed
def unpack(packed):
    """Make the modules importable; raise ModuleNotFoundError for packages, with the line to run."""
    import atexit, base64, bz2, importlib.util, json, pathlib, shutil, sys, tempfile

    packages, texts = json.loads(bz2.decompress(base64.b85decode(packed)))
    lacking = [line for name, line in packages.items() if not importlib.util.find_spec(name)]
    if lacking:
        line = "%pip install " + " ".join(f'"{each}"' for each in lacking)
        raise ModuleNotFoundError(f"run this in a cell of its own, and this cell again: {line}")
    if all(importlib.util.find_spec(path.split("/")[0].removesuffix(".py")) for path in texts):
        return
    folder = pathlib.Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    for path, text in texts.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text, encoding="utf-8")
    sys.path.insert(0, str(folder))


unpack("PACKED")
del unpack'''

KEEP = """\
# @title In Colab, what you write is lost with this machine: choose otherwise, and run this cell
what_you_write = "is lost"  # @param ["is lost", "is kept in Drive", "is uploaded", "is downloaded"]
if what_you_write == "is kept in Drive":
    import os

    from google.colab import drive

    drive.mount("/content/drive")
    os.chdir("/content/drive/MyDrive")
elif what_you_write != "is lost":
    import glob

    from google.colab import files

    if what_you_write == "is uploaded":
        files.upload()
    for name in glob.glob("my_*.py") if what_you_write == "is downloaded" else []:
        files.download(name)"""

KEEP_SAID = (
    "\n\n**In Colab** every notebook has a machine of its own, and the file with what you wrote "
    "is lost with it. The second folded cell keeps it in your Google Drive, if you choose so before you "
    "begin; or it downloads the file when you end, and takes it from you in the next notebook."
)


def imports_of(source: str) -> set[str]:
    """Return what code imports, by whole names: vpg_lab and vpg_lab.pictures of `from vpg_lab import pictures`."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def project_files(code: str) -> dict[str, str]:
    """Return the project's files that code imports, some because of others, and what these read: path -> text."""
    texts, waiting = {}, [code]
    while waiting:
        for name in imports_of(waiting.pop()):
            parts = name.split(".")
            stems = ["/".join(parts[:length]) for length in range(1, len(parts) + 1)]
            for path in [f"{stem}{end}" for stem in stems for end in (".py", "/__init__.py")]:
                if path not in texts and (ROOT / path).exists():
                    texts[path] = (ROOT / path).read_text(encoding="utf-8")
                    waiting.append(texts[path])
    modules = "\n".join(texts.values())
    for path in (ROOT / "vpg_lab").glob("*.*"):
        if path.suffix in (".html", ".js") and path.name in modules:
            texts[path.relative_to(ROOT).as_posix()] = path.read_text(encoding="utf-8")
    return dict(sorted(texts.items()))


def pack(code: str, name: str) -> str:
    """Return the packages and the files that a notebook, 04_pseudo_loss.ipynb say, needs as a text in base85."""
    packages = {}
    for line in read_project()["dependencies"]:
        package = re.match(r"[\w-]+", line)[0]
        packages[IMPORTED_AS.get(package, package)] = line
    # vpg_lab.checks takes in what files of lessons it finds; here this lesson's is enough.
    texts = project_files(f"{code}\nimport vpg_lab.checks.lesson_{posixpath.basename(name)[:2]}")
    content = json.dumps([packages, texts], ensure_ascii=False).encode()
    return base64.b85encode(bz2.compress(content)).decode()


def make_standalone(notebook: NotebookNode, name: str) -> NotebookNode:
    """Return a notebook, named from notebooks/ on, as one that works alone."""
    alone = copy.deepcopy(notebook)
    code = "\n".join(cell.source for cell in code_cells(alone))
    for cell in alone.cells:
        if cell.cell_type == "markdown":
            cell.source = mend_links(cell.source, name, online_address)
    added = [("unpack", UNPACK.replace("PACKED", pack(code, name)))]
    if "go_on(" in code:
        alone.cells[0].source += KEEP_SAID
        added.append(("keep-what-you-write", KEEP))
    alone.cells[1:1] = [
        new_code_cell(source, id=identifier, metadata=copy.deepcopy(HIDDEN)) for identifier, source in added
    ]
    return alone


def write_alone(folder: Path) -> None:
    """Write all lessons and all exercises as notebooks that work alone."""
    notebooks = {name_of(path): read(path) for path in LESSONS}
    notebooks |= {f"{EDITION.name}/{path.name}": make_edition(path) for path in LESSONS}
    for name, notebook in notebooks.items():
        write_notebook(folder / name, make_standalone(notebook, name))
