"""Pages to read, in a real browser where there is one: links, formulas, pictures, themes, and the cart to drive."""

import functools
import http.server
import re
import threading
from urllib.parse import unquote

import pytest
from bs4 import BeautifulSoup
from build.lessons import LESSONS, code_cells, name_of, read

from vpg_lab import widgets


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The pages, and a server for them on loopback: (folder, address)."""
    pytest.importorskip("math_core", reason="the extra [site] is not installed")
    folder = tmp_path_factory.mktemp("site")
    from build.pages import write_site

    write_site(folder)
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(folder))
    handler.func.log_message = lambda *_: None
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield folder, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


def test_pages_are_small_and_link_to_each_other(site):
    folder, _ = site
    pages = {path.relative_to(folder).as_posix(): path.read_text(encoding="utf-8") for path in folder.rglob("*.html")}
    assert set(pages) >= {"index.html", *(name_of(path.with_suffix(".html")) for path in LESSONS)}
    assert sum(path.stat().st_size for path in folder.glob("*.*")) <= 6_000_000
    for name, text in pages.items():
        for target in re.findall(r'(?:href|script src)="([^"#]+)', text):
            if not target.startswith(("https://", "data:")):
                assert (folder / name).parent.joinpath(target).exists(), f"{name} links to {target}"
        assert not re.search(r'(src|srcset)="(?!data:|[\w./]+\.js")|url\(|@import|<link[^>]+href="http', text), name
        assert 'aria-current="page"' in text and "badge" not in text


def test_a_page_s_links_lead_to_sections_that_are_there(site):
    pages = {path: BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser") for path in site[0].rglob("*.html")}
    seen = 0
    for path, page in pages.items():
        for link in page.select("main a[href*='#']"):
            file, _, section = link["href"].partition("#")
            if file and not file.startswith("https://"):
                target = pages[(path.parent / file).resolve()]
                # As a browser looks: for the section as it is written, then decoded.
                assert target.find(id=section) or target.find(id=unquote(section)), f"{path.name}: {link['href']}"
                seen += 1
    assert seen > 100


def test_pages_draw_formulas_fold_checks_and_describe_pictures(site):
    for path in LESSONS:
        page = BeautifulSoup((site[0] / name_of(path.with_suffix(".html"))).read_text(encoding="utf-8"), "html.parser")
        lesson = read(path)
        assert len(page.select("details.check")) == len(code_cells(lesson, "check"))
        described = [image["alt"] for image in page.select("img.output")]
        outputs = [output for cell in code_cells(lesson) for output in cell.outputs]
        assert described == [each["data"]["text/plain"] for each in outputs if "image/png" in each.get("data", {})]
        texts = [
            re.sub("```.*?```", "", cell.source, flags=re.S) for cell in lesson.cells if cell.cell_type == "markdown"
        ]
        formulas = sum(len(re.findall(r"\$\$.+?\$\$|\$[^$]+\$", text, flags=re.S)) for text in texts)
        assert len(page.select("math")) == formulas
        for shown in page.select("pre, code, script, math"):
            shown.decompose()
        assert "$" not in page.main.get_text()


def test_the_recipe_is_trained_on_the_home_page_and_in_lesson_5(site):
    pages = {path: path.read_text(encoding="utf-8") for path in site[0].rglob("*.html")}
    places = {path for path, text in pages.items() if 'class="trainer"' in text}
    assert places == {site[0] / "index.html", site[0] / "05_training.html"}
    home = BeautifulSoup(pages[site[0] / "index.html"], "html.parser").main
    assert [each.name for each in home.select("p, h1, .trainer")][:2] == ["h1", "section"], "before any other word"


def test_pages_ask_no_other_host_and_fit_a_phone(browser, site):
    folder, address = site
    page, asked, errors = browser.new_page(viewport={"width": 390, "height": 800}), [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: errors.append(str(error)))
    for path in sorted(folder.rglob("*.html")):
        page.goto(f"{address}/{path.relative_to(folder).as_posix()}")
        assert page.evaluate("document.documentElement.scrollWidth") <= 390, path.name
    assert asked and all(each.startswith((address, "data:")) for each in asked) and errors == []
    page.close()


@pytest.mark.parametrize("theme", ["dark", "light"])
def test_pages_have_the_reader_s_theme_and_a_switch(browser, site, theme):
    page = browser.new_page(color_scheme=theme)
    page.goto(site[1])

    def is_dark():
        red = page.evaluate("getComputedStyle(document.body).backgroundColor").partition("(")[2].partition(",")[0]
        return int(red) < 100

    assert is_dark() == (theme == "dark")
    page.click("nav button")
    page.reload()
    assert is_dark() == (theme == "light"), "the choice is kept"
    page.close()


def drive(frame, page):
    """Push with a key until the pole has fallen."""
    frame.locator(".vpg-drive").focus()
    page.keyboard.down("ArrowRight")
    frame.get_by_text("The pole fell").wait_for(timeout=10_000)
    page.keyboard.up("ArrowRight")


def test_cart_is_driven_on_the_page(browser, site):
    page = browser.new_page()
    page.goto(f"{site[1]}/{LESSONS[0].with_suffix('.html').name}")
    drive(page, page)
    page.close()


def test_cart_is_driven_in_a_frame_without_rights(browser):
    """Colab shows an output in a frame of another origin, which may run scripts and not much else."""
    page = browser.new_page()
    page.set_content('<iframe sandbox="allow-scripts" width="700" height="400"></iframe>')
    page.evaluate("html => document.querySelector('iframe').srcdoc = html", widgets.drive_cart()._repr_html_())
    drive(page.frame_locator("iframe"), page)
    page.close()
