"""Pages to read without installing anything: the lessons as static HTML that asks no other host."""

import posixpath
import re
from pathlib import Path

from math_core import LatexToMathML
from nbconvert import HTMLExporter
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath
from nbformat import NotebookNode
from nbformat.v4 import new_markdown_cell, new_notebook

from build.lessons import LESSONS, NOTEBOOKS, ROOT, name_of, read
from build.links import BADGE_LINE, address, mend_links

DRAW = LatexToMathML().convert_with_local_state
TEMPLATES = Path(__file__).parent  # the page's own is in the folder page/
HEADING = re.compile(r'<h2 id="([^"]+)">(.*?)<a class="anchor-link"')


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
    return MarkdownWithMath(Renderer(escape=False, embed_images=True, path=str(ROOT))).render(text)


def href(name: str) -> str:
    """Return a page's file name: README is the folder's index."""
    return re.sub(r"(README)?\.(ipynb|md)$", lambda match: f"{'index' * bool(match[1])}.html", name)


def mend(text: str, name: str, names: list[str]) -> str:
    """Return a page's Markdown without badges, with links that lead to the other pages."""

    def find(target, section):
        if target in names:
            return posixpath.relpath(href(target), posixpath.dirname(name) or ".") + section
        return address() and f"{address()}/blob/main/notebooks/{target}"

    return mend_links(BADGE_LINE.sub("", text), name, find)


def make_site(notebooks: dict[str, NotebookNode], folder: Path) -> None:
    """Write every notebook as a page, in this order; the names are paths from notebooks/ on."""
    exporter = HTMLExporter(template_name="page", extra_template_basedirs=[str(TEMPLATES)])
    exporter.register_filter("render_text", render_text)
    pages = []
    for name, notebook in notebooks.items():
        for cell in notebook.cells:
            if cell.cell_type == "markdown":
                cell.source = mend(cell.source, name, list(notebooks))
        text = "\n\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
        title = re.search(r"^# ([^:\n]+)", text, re.M)[1]
        sections = [{"id": place, "html": html} for place, html in HEADING.findall(render_text(text))]
        pages.append({"href": href(name), "title": title, "sections": sections})
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


def write_site(folder: Path) -> None:
    """Write the beginning of the README, all lessons and the companion's map as pages."""
    begin = (ROOT / "README.md").read_text(encoding="utf-8").partition("## Start")[0]
    title, _, text = begin.replace("](notebooks/", "](").partition("\n")
    companion = NOTEBOOKS / "companion" / "README.md"
    maps = {
        "README.md": [new_markdown_cell(title, metadata={"tags": ["trainer"]}), new_markdown_cell(text)],
        name_of(companion): [new_markdown_cell(companion.read_text(encoding="utf-8"))],
    }
    notebooks = {name: new_notebook(cells=cells) for name, cells in maps.items()}
    make_site(notebooks | {name_of(path): read(path) for path in LESSONS}, folder)
