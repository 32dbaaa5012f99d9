"""Notebooks that work alone, uploaded to Colab say: the project's modules travel inside, packed.

Badges need the project's address: `Repository` under [project.urls] in pyproject.toml.
"""

import base64
import bz2
import copy
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


def project_files(lesson: str = "") -> list[Path]:
    """Return the project's files that a notebook imports; of the checks those of one lesson, where it is named."""
    files = [
        ROOT / "vpg_helpers.py",
        *(ROOT / "vpg_lab").glob("*.*"),
        *(ROOT / "vpg_lab/checks").glob("*.py"),
    ]
    return sorted(path for path in files if lesson in path.name or not path.name.startswith("lesson_"))


def pack(name: str) -> str:
    """Return the packages and the files that a notebook, 04_pseudo_loss.ipynb say, needs as a text in base85."""
    packages = {}
    for line in read_project()["dependencies"]:
        package = re.match(r"[\w-]+", line)[0]
        packages[IMPORTED_AS.get(package, package)] = line
    files = project_files(f"lesson_{posixpath.basename(name)[:2]}")
    texts = {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in files}
    content = json.dumps([packages, texts], ensure_ascii=False).encode()
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
    added = [("unpack", UNPACK.replace("PACKED", pack(name)))]
    if "go_on(" in code:
        alone.cells[0].source += KEEP_SAID
        added.append(("keep-what-you-write", KEEP))
    alone.cells[1:1] = [
        new_code_cell(source, id=identifier, metadata=copy.deepcopy(HIDDEN)) for identifier, source in added
    ]
    return alone
