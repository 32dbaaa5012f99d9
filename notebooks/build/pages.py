"""Pages to read without installing anything: the lessons as static HTML that asks no other host."""

import posixpath
import re
import subprocess
import sys
from html import unescape
from pathlib import Path

from math_core import LatexToMathML
from nbconvert import HTMLExporter
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath
from nbformat import NotebookNode
from nbformat.v4 import new_markdown_cell, new_notebook

from build.glossary import make_glossary
from build.lessons import EDITION, LESSONS, NOTEBOOKS, ROOT, name_of, opening_of, read
from build.links import BADGE_LINE, binder_address, colab_address, file_address, mend_links
from build.standalone import write_alone

DRAW = LatexToMathML().convert_with_local_state
TEMPLATES = Path(__file__).parent  # the page's own is in the folder page/
PAGE = TEMPLATES / "page"
HEADING = re.compile(r'<h2 id="([^"]+)">(.*?)<a class="anchor-link"')
ALONE = "download"  # the folder of the notebooks that work alone
# Of what Pagefind writes, the parts that no page here uses.
UNUSED = ("*component-ui*", "*modular-ui*", "pagefind-highlight.js", "wasm.unknown*")


class Renderer(IPythonRenderer):
    """Markdown to HTML, with formulas as MathML, which a browser draws without a script."""

    def inline_math(self, body):
        """Draw a formula in the line."""
        return DRAW(body, displaystyle=False)

    def block_math(self, body):
        """Draw a formula on a line of its own."""
        return DRAW(body, displaystyle=True)

    def block_html(self, html):
        """Draw the formulas in HTML, a folded answer say, which Markdown leaves as it is."""
        return super().block_html(re.sub(r"\$([^$\n]+)\$", lambda match: DRAW(match[1], displaystyle=False), html))


def render_text(text: str) -> str:
    """Return Markdown as HTML."""
    # The style draws the sign of a link to a section, so that no search finds it.
    renderer = Renderer(escape=False, embed_images=True, path=str(ROOT), anchor_link_text="")
    html = MarkdownWithMath(renderer).render(text)
    html = html.replace("<table>", '<div class="wide"><table>').replace("</table>", "</table></div>")
    html = re.sub(r'<a href="([^":]+\.ipynb)"', r'<a download href="\1"', html)
    return html.replace('<a class="anchor-link"', '<a class="anchor-link" aria-label="Link to this section"')


def href(name: str) -> str:
    """Return a page's file name: README is the folder's index."""
    return re.sub(r"(README)?\.(ipynb|md)$", lambda match: f"{'index' * bool(match[1])}.html", name)


def sections_of(notebook: NotebookNode) -> dict[str, str]:
    """Return what a link to a section is on GitHub, and what it is on a page: "#the-lessons" is "#The-lessons" here."""
    texts = [cell.source for cell in notebook.cells if cell.cell_type == "markdown"]
    headings = [heading.strip() for text in texts for heading in re.findall(r"^#+ (.+)$", text, re.M)]
    here = ["#" + heading.replace(" ", "-") for heading in headings]
    return {"#" + re.sub(r"[^\w-]", "", place.lower()): place for place in here}


def mend(text: str, name: str, notebooks: dict[str, NotebookNode]) -> str:
    """Return a page's Markdown without badges, with links that lead to the other pages and to notebooks to download."""
    folder = posixpath.dirname(name) or "."

    def find(target, section):
        target = "README.md" if target == "../README.md" else target
        if target in notebooks:
            return posixpath.relpath(href(target), folder) + sections_of(notebooks[target]).get(section, section)
        if posixpath.basename(target) in [path.name for path in LESSONS]:
            return posixpath.relpath(f"{ALONE}/{target.removeprefix(f'{ALONE}/')}", folder)
        return file_address(target)

    return mend_links(BADGE_LINE.sub("", text), name, find)


def doors(name: str) -> list[dict[str, str]]:
    """Return the ways on from the first page, and from a lesson's into its notebook: those that are there."""
    up, exercises = "../" * name.count("/"), f"{EDITION.name}/{posixpath.basename(name)}"
    ways = []
    if name == "README.md":
        ways = [
            ("Begin", href(name_of(LESSONS[0]))),
            ("Run it yourself", "start.html"),
            ("Look up a word", "glossary.html"),
        ]
        ways += [("Do the exercises, or teach with them", f"{EDITION.name}/index.html")]
    elif NOTEBOOKS / name in LESSONS:
        ways = [("Open in Colab", colab_address(name)), ("Open in Binder", binder_address(name))]
        ways += [("Download this notebook", f"{up}{ALONE}/{name}")]
        ways += [("Download it with blanks", f"{up}{ALONE}/{exercises}"), ("How to run it", f"{up}start.html")]
    return [{"text": text, "href": place} for text, place in ways if place]


def describe(html: str) -> str:
    """Return a page's heading and first words, for search engines and previews, 200 letters at most."""
    parts = re.findall(r"<h1.*?>(.*?)(?:<a class|</h1>)|<p>(.*?)</p>", html, re.S)
    heading = next(title for title, _ in parts if title)
    words = unescape(re.sub(r"<[^>]+>", "", f"{heading}. {next(text for _, text in parts if text)}")).split()
    while len(" ".join(words)) > 200:
        words.pop()
    return " ".join(words).replace("?.", "?")


def make_site(notebooks: dict[str, NotebookNode], folder: Path) -> None:
    """Write every notebook as a page, in this order; the names are paths from notebooks/ on."""
    exporter = HTMLExporter(template_name="page", extra_template_basedirs=[str(TEMPLATES)])
    exporter.register_filter("render_text", render_text)
    pages = []
    for name, notebook in notebooks.items():
        for cell in notebook.cells:
            if cell.cell_type == "markdown":
                cell.source = mend(cell.source, name, notebooks)
        text = "\n\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
        title = re.search(r"^# ([^:\n]+)", text, re.M)[1]
        html = render_text(text)
        sections = [{"id": place, "html": re.sub(r"</?a\b[^>]*>", "", said)} for place, said in HEADING.findall(html)]
        page = {"href": href(name), "title": title, "sections": sections, "about": describe(html)}
        pages.append(page | {"doors": doors(name)})
    around = zip([None, *pages], pages, [*pages[1:], None], strict=False)
    for notebook, (before, page, after) in zip(notebooks.values(), around, strict=True):
        resources = page | {
            "pages": pages,
            "before": before,
            "after": after,
            "up": "../" * page["href"].count("/"),
        }
        html, _ = exporter.from_notebook_node(notebook, resources)
        path = folder / page["href"]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(html, encoding="utf-8")
    beside = [path for path in (TEMPLATES / "page").iterdir() if path.suffix in (".css", ".js")]
    for path in [*beside, ROOT / "vpg_lab" / "cartpole.js"]:
        (folder / path.name).write_bytes(path.read_bytes())


def list_downloads() -> str:
    """Return a table of all notebooks that work alone, in Markdown, with links that start from notebooks/."""
    rows = ["| walk-through | exercises |", "|---|---|"]
    for path in LESSONS:
        title, name = opening_of(read(path)).title, name_of(path)
        rows.append(f"| [{title}]({ALONE}/{name}) | [{title}, blank]({ALONE}/{EDITION.name}/{path.name}) |")
    return "\n".join(rows)


def write_search(folder: Path) -> None:
    """Write a search over all pages of a folder: an index, and the script that reads it."""
    command = [sys.executable, "-m", "pagefind", "--site", folder, "--output-subdir", "pagefind"]
    said = subprocess.run(command, capture_output=True, text=True, encoding="utf-8")
    if said.returncode:
        raise RuntimeError(f"Pagefind made no search, and says: {said.stdout}{said.stderr}")
    for pattern in UNUSED:
        for path in (folder / "pagefind").glob(pattern):
            path.unlink()


def write_site(folder: Path) -> None:
    """Write all lessons as pages, and around them what one needs to begin, to find and to teach; notebooks, too."""
    home, _, rest = (ROOT / "README.md").read_text(encoding="utf-8").partition("## Start\n")
    start = (PAGE / "start.md").read_text(encoding="utf-8").replace("DOWNLOADS", list_downloads())
    texts = {"README.md": home, "start.md": start + rest.partition("\n## ")[0]}
    texts = {name: text.replace("](notebooks/", "](") for name, text in texts.items()}
    companion, teachers = NOTEBOOKS / "companion" / "README.md", [EDITION / "README.md", EDITION / "project.md"]
    texts |= {name_of(path): path.read_text(encoding="utf-8") for path in [companion, *teachers]}
    texts |= {"glossary.md": make_glossary(), "search.md": (PAGE / "search.md").read_text(encoding="utf-8")}
    maps = {name: new_notebook(cells=[new_markdown_cell(text)]) for name, text in texts.items()}
    title, _, text = texts["README.md"].partition("\n")
    trainer = new_markdown_cell(title, metadata={"tags": ["trainer"]})
    maps["README.md"] = new_notebook(cells=[trainer, new_markdown_cell(text)])
    lessons = {name_of(path): read(path) for path in LESSONS}
    first = ["README.md", "start.md", *[name for name in lessons if "/" not in name], name_of(companion), *lessons]
    make_site({name: (maps | lessons)[name] for name in [*first, *maps]}, folder)
    write_alone(folder / ALONE)
    write_search(folder)
