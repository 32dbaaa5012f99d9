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
    import atexit, base64, bz2, importlib.util, json, pathlib, re, shutil, sys, tempfile
    from importlib import metadata

    def is_there(name, line):
        package, _, floor = line.partition(">=")
        numbers = (re.findall("[0-9]+", text) + [0, 0] for text in (version(package), floor))
        have, want = ([int(each) for each in found[:3]] for found in numbers)
        return importlib.util.find_spec(name) and have >= want

    def version(package):
        try:
            return metadata.version(package)
        except metadata.PackageNotFoundError:
            return "999"  # it may be there without saying its version

    def is_installed(path, text):
        spec = importlib.util.find_spec(path.split("/")[0].removesuffix(".py"))
        file = pathlib.Path(spec.origin).parents["/" in path] / path if spec and spec.origin else None
        return file and file.exists() and file.read_text(encoding="utf-8") == text

    packages, texts = json.loads(bz2.decompress(base64.b85decode(packed)))
    lacking = {name: line for name, line in packages.items() if not is_there(name, line)}
    if lacking:
        pip = "%pip install" if importlib.util.find_spec("pip") else f'!uv pip install --python "{sys.executable}"'
        line = " ".join([pip, *(f'"{each}"' for each in lacking.values())])
        restart = "restart the kernel, " * any(name in sys.modules for name in lacking)
        raise ModuleNotFoundError(f"run this in a cell of its own, {restart}and this cell again: {line}")
    if all(is_installed(path, text) for path, text in texts.items()):
        return
    folder = pathlib.Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    for path, text in texts.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text, encoding="utf-8")
    sys.path.insert(0, str(folder))
    # What another notebook, or an older file beside this one, has brought is not this notebook's.
    for name in [name for name in sys.modules if name.split(".")[0] in ("vpg_helpers", "vpg_lab")]:
        del sys.modules[name]


unpack("PACKED")
del unpack'''

KEEP = '''\
# @title In Colab, what you write is lost with this machine: choose otherwise, and run this cell
what_you_write = "is lost"  # @param ["is lost", "is kept in Drive", "is uploaded", "is downloaded"]


def keep_what_you_write(choice):
    """Do with the files of your functions what the form says; say in one line what does not work."""
    import glob, itertools, os, re

    try:
        from google.colab import drive, files

        if choice == "is kept in Drive":
            drive.mount("/content/drive")
            os.chdir("/content/drive/MyDrive")
        elif choice == "is downloaded":
            found = glob.glob("my_*.py")
            for name in found:
                files.download(name)
            if not found:
                print("There is nothing to download yet: no function has passed its checks.")
        else:
            before = os.listdir()
            files.upload()
            arrived = sorted({*os.listdir()} - {*before})
            for name in arrived:
                plain = re.sub(r"( ?[(][0-9]+[)])+[.]py$", ".py", name)
                if plain != name and os.path.exists(plain):
                    free = (plain.replace(".py", f".before-{n}.py") for n in itertools.count(1))
                    aside = next(each for each in free if not os.path.exists(each))
                    os.replace(plain, aside)
                    print(f"The {plain} that was here is now {aside}.")
                os.replace(name, plain)
                print(f"{name} is used as {plain}.")
            if not arrived:
                print("Nothing new was uploaded.")
    except ImportError:
        print("This is not Colab: what you write is kept beside this notebook.")
    except Exception as error:
        print(f'"{choice}" does not work here ({type(error).__name__}: {error}); choose otherwise.')


if what_you_write != "is lost":
    keep_what_you_write(what_you_write)
del keep_what_you_write'''

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
    needed = f"import vpg_lab.checks.lesson_{posixpath.basename(name)[:2]}"
    needed += "\nimport vpg_lab.progress" * ("go_on(" in code)  # which no cell imports, and the welcome offers
    texts = project_files(f"{code}\n{needed}")
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
