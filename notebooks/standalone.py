"""Notebooks that work alone, uploaded to Colab say: the project's modules travel inside, packed.

Badges need the project's address: `Repository` under [project.urls] in pyproject.toml.
"""

import ast
import base64
import bz2
import copy
import functools
import json
import posixpath
import re
import sys
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote, urlsplit

from nbformat import NotebookNode
from nbformat.v4 import new_code_cell

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[1]
BRANCH = "standalone"  # where .github/workflows/publish.yml puts the notebooks that work alone
HIDDEN = {"cellView": "form", "jupyter": {"source_hidden": True}}  # for Colab, for JupyterLab
IMPORTED_AS = {"ipython": "IPython", "pillow": "PIL"}  # packages with two names
BADGE_LINE = re.compile(r"\n*\[!\[(?:Open in Colab|launch Binder)\].*")
LINK_TO_FILE = re.compile(r"\[([^\]]+)\]\((?!\w+:)([^)#\s]+\.(?:ipynb|md|py))([^)\s]*)\)")

UNPACK = '''\
# @title Run this first: it unpacks the modules of these lessons, where they are not installed
def unpack(packed):
    """Make the modules importable; raise ModuleNotFoundError for packages, with the line to run."""
    import atexit, base64, bz2, importlib.util, json, pathlib, shutil, sys, tempfile

    packages, modules = json.loads(bz2.decompress(base64.b85decode(packed)))
    lacking = [line for name, line in packages.items() if not importlib.util.find_spec(name)]
    if lacking:
        line = "%pip install " + " ".join(f'"{each}"' for each in lacking)
        raise ModuleNotFoundError(f"run this in a cell of its own, and this cell again: {line}")
    if all(importlib.util.find_spec(name) for name in modules):
        return
    folder = pathlib.Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    for name, source in modules.items():
        (folder / f"{name}.py").write_text(source, encoding="utf-8")
    sys.path.insert(0, str(folder))


unpack("PACKED")
del unpack'''

KEEP = """\
# @title In Colab, my_agent.py is lost with this machine: choose otherwise, and run this cell
what_you_write = "is lost"  # @param ["is lost", "is kept in Drive", "is uploaded", "is downloaded"]
if what_you_write == "is kept in Drive":
    import os

    from google.colab import drive

    drive.mount("/content/drive")
    os.chdir("/content/drive/MyDrive")
elif what_you_write != "is lost":
    from google.colab import files

    files.upload() if what_you_write == "is uploaded" else files.download("my_agent.py")"""

KEEP_SAID = (
    "\n\n**In Colab** every notebook has a machine of its own, and `my_agent.py` is lost with it. "
    "The second folded cell keeps the file in your Google Drive, if you choose so before you "
    "begin; or it downloads the file when you end, and takes it from you in the next notebook."
)

# ---- The project's address -----------------------------------------------------------------------


def read_project() -> dict:
    """Return the project table of pyproject.toml."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def address() -> str | None:
    """Return the project's address, without a slash at its end, or None where it has none yet."""
    return read_project().get("urls", {}).get("Repository", "").rstrip("/") or None


def colab_address(name: str) -> str | None:
    """Return where Colab opens a notebook, named from notebooks/ on; None off GitHub."""
    host, path = urlsplit(address() or "")[1:3]
    if host != "github.com":
        return None  # Colab opens what lies on GitHub, and nowhere else
    return f"https://colab.research.google.com/github{path}/blob/{BRANCH}/{name}"


def badges(name: str) -> str:
    """Return the badges that open a notebook, named from notebooks/ on; none without an address."""
    if not address():
        return ""
    host, path = urlsplit(address())[1:3]
    source = f"gh{path}" if host == "github.com" else f"git/{quote(address(), safe='')}"
    binder = f"https://mybinder.org/v2/{source}/main?labpath={quote(f'notebooks/{name}', safe='')}"
    line = f"[![launch Binder](https://mybinder.org/badge_logo.svg)]({binder})"
    if colab := colab_address(name):
        picture = "https://colab.research.google.com/assets/colab-badge.svg"
        line = f"[![Open in Colab]({picture})]({colab}) {line}"
    return line


def with_badges(text: str, name: str) -> str:
    """Return a text that begins with a title, with these badges below it and without others."""
    title, _, rest = BADGE_LINE.sub("", text).partition("\n")
    line = badges(name)
    return f"{title}\n\n{line}\n{rest}" if line else f"{title}\n{rest}"


# ---- What a notebook brings along ----------------------------------------------------------------


@functools.cache
def parse(source: str) -> list[tuple[ast.stmt, set[str], set[str]]]:
    """Return a module's statements, each with what it is known by and the names that it loads."""
    nodes = ast.parse(source).body
    return [(node, known_by(node), names_in(node, ast.Load)) for node in nodes]


def known_by(node: ast.stmt) -> set[str]:
    """Return the names that lead to a definition, `check(NAME` to a claim; none for what runs."""
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        calls = [each for each in node.decorator_list if isinstance(each, ast.Call)]
        exercises = [each.args[0].value for each in calls if ast.unparse(each.func) == "claim"]
        return {f"check({each}" for each in exercises} or {node.name}
    return names_in(node, ast.Store) if isinstance(node, ast.Assign | ast.AnnAssign) else set()


def names_in(node: ast.AST, context: type[ast.expr_context]) -> set[str]:
    """Return the names that a piece of code loads, or stores."""
    names = [each for each in ast.walk(node) if isinstance(each, ast.Name)]
    return {each.id for each in names if isinstance(each.ctx, context)}


def without_unreached(source: str, notebook: str) -> str:
    """Return a module's source without the claims that a notebook's code does not check.

    Without all definitions, too, that neither the code names nor what is left uses.
    """
    reached = set(re.findall(r"\w+", notebook)) | set(re.findall(r"^check\(\w+", notebook, re.M))
    unreached, before = parse(source), None
    while unreached != before:
        before, unreached = unreached, []
        for node, names, loaded in before:
            if names and not names & reached:
                unreached.append((node, names, loaded))
            else:
                reached |= loaded
    unused = set()
    for node, *_ in unreached:
        first = min(each.lineno for each in [node, *getattr(node, "decorator_list", [])])
        unused |= set(range(first, node.end_lineno + 1))
    lines = enumerate(source.splitlines(keepends=True), 1)
    left = "".join(line for place, line in lines if place not in unused)
    return re.sub(r"\n{4,}", "\n\n\n", left)


def pack(notebook: str) -> str:
    """Return the packages and the modules that a notebook's code needs as a text in base85."""
    packages = {}
    for line in read_project()["dependencies"]:
        name = re.match(r"[\w-]+", line)[0]
        packages[IMPORTED_AS.get(name, name)] = line
    modules = {
        path.stem: path.read_text(encoding="utf-8") for path in sorted(ROOT.glob("vpg_*.py"))
    }
    for name in ("vpg_checks", "vpg_pictures"):
        modules[name] = without_unreached(modules[name], notebook)
    content = json.dumps([packages, modules], ensure_ascii=False).encode()
    return base64.b85encode(bz2.compress(content)).decode()


def mend_links(text: str, name: str, find: Callable[[str, str], str | None]) -> str:
    """Return a notebook's text with links to files of the project that hold elsewhere.

    find gives the address of a file and its section, "#Section" or nothing, or None: then the file
    is named and not linked. name and the file that find gets are paths from notebooks/ on.
    """

    def mend(match):
        label, file = match[1], posixpath.join(posixpath.dirname(name), match[2])
        target = posixpath.normpath(file)
        found = find(target, match[3])
        return f"[{label}]({found})" if found else f"{label} (`{target}`)"

    return LINK_TO_FILE.sub(mend, text)


def online_address(target: str, _section: str) -> str | None:
    """Return where a file opens for a reader who has nothing but a notebook, if anywhere."""
    if target.endswith(".ipynb") and colab_address(target):
        return colab_address(target)
    return address() and f"{address()}/blob/main/notebooks/{target}"


def make_standalone(notebook: NotebookNode, name: str) -> NotebookNode:
    """Return a notebook, named from notebooks/ on, as one that works alone."""
    alone = copy.deepcopy(notebook)
    code = "\n".join(cell.source for cell in alone.cells if cell.cell_type == "code")
    for cell in alone.cells:
        if cell.cell_type == "markdown":
            cell.source = mend_links(cell.source, name, online_address)
    added = [("unpack", UNPACK.replace("PACKED", pack(code)))]
    if "go_on(" in code:
        alone.cells[0].source += KEEP_SAID
        added.append(("keep-what-you-write", KEEP))
    alone.cells[1:1] = [
        new_code_cell(source, id=identifier, metadata=copy.deepcopy(HIDDEN))
        for identifier, source in added
    ]
    return alone
