"""Notebooks that work alone, uploaded to Colab say: the project's modules travel inside, packed.

Badges need the project's address: `Repository` under [project.urls] in pyproject.toml.
"""

import ast
import base64
import copy
import json
import lzma
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
LINK_TO_FILE = re.compile(r"\[([^\]]+)\]\((?!\w+:)([^)#\s]+\.(?:ipynb|md|py))[^)\s]*\)")

UNPACK = '''\
# @title Run this first: it unpacks the modules of these lessons, where they are not installed
def unpack(packed):
    """Make the modules importable; raise ModuleNotFoundError for packages, with the line to run."""
    import atexit, base64, importlib.util, json, lzma, pathlib, shutil, sys, tempfile

    packages, modules = json.loads(lzma.decompress(base64.b85decode(packed)))
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


def without_other_claims(source: str, notebook: str) -> str:
    """Return vpg_checks' source without the claims that a notebook's code does not check.

    What nothing else uses goes with them.
    """
    checked = re.findall(r"^check\((\w+)", notebook, re.M)
    waiting, definitions = [], {}
    for node in ast.parse(source).body:
        claims = [
            each.args[0].value
            for each in getattr(node, "decorator_list", [])
            if isinstance(each, ast.Call) and getattr(each.func, "id", "") == "claim"
        ]
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            definitions[node] = node.name if not claims else None
        if set(claims) & set(checked) or node not in definitions:
            waiting.append(node)
    named, used = set(re.findall(r"\w+", notebook)), set()
    waiting += [node for node, name in definitions.items() if name in named]
    while waiting:
        used.add(node := waiting.pop())
        names = {each.id for each in ast.walk(node) if isinstance(each, ast.Name)}
        reached = {each for each, name in definitions.items() if name in names}
        waiting += reached - used - set(waiting)
    unused = set()
    for node in set(definitions) - used:
        first = min([node.lineno, *(each.lineno for each in node.decorator_list)])
        unused |= set(range(first, node.end_lineno + 1))
    lines = enumerate(source.splitlines(keepends=True), 1)
    return re.sub(
        r"\n{4,}", "\n\n\n", "".join(line for place, line in lines if place not in unused)
    )


def pack(notebook: str) -> str:
    """Return the packages and the modules that a notebook's code needs as a text in base85."""
    packages = {}
    for line in read_project()["dependencies"]:
        name = re.match(r"[\w-]+", line)[0]
        packages[IMPORTED_AS.get(name, name)] = line
    modules = {
        path.stem: path.read_text(encoding="utf-8") for path in sorted(ROOT.glob("vpg_*.py"))
    }
    modules["vpg_checks"] = without_other_claims(modules["vpg_checks"], notebook)
    content = json.dumps([packages, modules], ensure_ascii=False).encode()
    return base64.b85encode(lzma.compress(content, preset=9 | lzma.PRESET_EXTREME)).decode()


def mend_links(text: str, name: str, find: Callable[[str], str | None]) -> str:
    """Return a notebook's text with links to files of the project that hold elsewhere.

    find gives a file's address, or None: then it is named and not linked. name and what find gets
    are paths from notebooks/ on.
    """

    def mend(match):
        label, file = match[1], posixpath.join(posixpath.dirname(name), match[2])
        target = posixpath.normpath(file)
        found = find(target)
        return f"[{label}]({found})" if found else f"{label} (`{target}`)"

    return LINK_TO_FILE.sub(mend, text)


def online_address(target: str) -> str | None:
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
