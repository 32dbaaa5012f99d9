"""Links: to the project's address, if it has one; from a notebook to a file; from a lesson to its neighbors.

Badges need the project's address: `Repository` under [project.urls] in pyproject.toml.
"""

import posixpath
import re
import sys
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote, urlsplit

from build.lessons import LESSONS, ROOT, name_of, opening_of, read, write_if_changed, write_notebook

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

BRANCH = "standalone"  # where .github/workflows/publish.yml puts the notebooks that work alone
BADGE_LINE = re.compile(r"\n*\[!\[(?:Open in Colab|launch Binder)\].*")
LINK_TO_FILE = re.compile(r"\[([^\]]+)\]\((?!\w+:)([^)#\s]+\.(?:ipynb|md|py))([^)\s]*)\)")
LINK_TO_LESSON = re.compile(r"\[\d+\. [^\]]+\]\(([^)\s]+\.ipynb)\)")
NO_NEXT = "this was the last lesson. [The map]({map}) lists what of Spinning Up runs where, and what is left for you."

# ---- The project's address -------------------------------------------------------------------------------------------


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


def binder_address(name: str) -> str | None:
    """Return where Binder opens a notebook, named from notebooks/ on; None without an address."""
    if not address():
        return None
    host, path = urlsplit(address())[1:3]
    source = f"gh{path}" if host == "github.com" else f"git/{quote(address(), safe='')}"
    return f"https://mybinder.org/v2/{source}/main?labpath={quote(f'notebooks/{name}', safe='')}"


def file_address(target: str) -> str | None:
    """Return where a file, named from notebooks/ on, can be read; None without an address."""
    return address() and f"{address()}/blob/main/{posixpath.normpath(f'notebooks/{target}')}"


def badges(name: str) -> str:
    """Return the badges that open a notebook, named from notebooks/ on; none without an address."""
    if not (binder := binder_address(name)):
        return ""
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


# ---- From a notebook to a file ---------------------------------------------------------------------------------------


def mend_links(text: str, name: str, find: Callable[[str, str], str | None]) -> str:
    """Return a notebook's text with links to files of the project that hold elsewhere.

    find gives the address of a file and its section, "#Section" or nothing, or None: then the file is named and not
    linked. name and the file that find gets are paths from notebooks/ on.
    """

    def mend(match):
        label, file = match[1], posixpath.join(posixpath.dirname(name), match[2])
        target = posixpath.normpath(file)
        found = find(target, match[3])
        return f"[{label}]({found})" if found else f"{label} (`{target.removeprefix('../')}`)"

    return LINK_TO_FILE.sub(mend, text)


def online_address(target: str, _section: str) -> str | None:
    """Return where a file opens for a reader who has nothing but a notebook, if anywhere."""
    if target.endswith(".ipynb") and colab_address(target):
        return colab_address(target)
    return file_address(target)


# ---- From a lesson to its neighbors ----------------------------------------------------------------------------------


def from_folder(target: str, name: str) -> str:
    """Return a link to a file from the folder of another; both are named from notebooks/ on."""
    return posixpath.relpath(target, posixpath.dirname(name) or ".")


def with_neighbors(text: str, path: Path) -> str:
    """Return a lesson's last words with links to the lessons around it, in a paragraph that begins with **Next:**.

    The sentence in which such a link stands remains, as long as the same lesson is meant.
    """
    place, name = LESSONS.index(path), name_of(path)
    text, _, said = text.partition("**Next:** ")
    onward, _, back = said.partition(" **Back:** ")

    def lead(said, neighbor, ask):
        title, question, _ = opening_of(read(neighbor))
        link = f"[{title}]({from_folder(name_of(neighbor), name)})"
        if [posixpath.basename(target) for target in LINK_TO_LESSON.findall(said)] != [neighbor.name]:
            return f"{link}: {question}" if ask else f"{link}."
        return LINK_TO_LESSON.sub(lambda _: link, said)

    if place + 1 < len(LESSONS):
        onward = lead(onward, LESSONS[place + 1], ask=True)
    else:
        onward = NO_NEXT.format(map=from_folder("companion/README.md", name))
    back = f" **Back:** {lead(back, LESSONS[place - 1], ask=False)}" if place else ""
    return f"{text.rstrip()}\n\n**Next:** {onward}{back}"


def write_links() -> None:
    """Write badges, as the project's address allows, on README and lessons, and the links between lessons."""
    readme = ROOT / "README.md"
    write_if_changed(readme, with_badges(readme.read_text(encoding="utf-8"), name_of(LESSONS[0])).encode())
    for path in LESSONS:
        lesson = read(path)
        lesson.cells[0].source = with_badges(lesson.cells[0].source, name_of(path))
        lesson.cells[-1].source = with_neighbors(lesson.cells[-1].source, path)
        write_notebook(path, lesson)
