"""Pages to read, in a real browser where there is one: links, downloads, search, formulas, themes, print, and axe."""

import functools
import http.server
import re
import threading
from urllib.parse import unquote

import pytest
from bs4 import BeautifulSoup
from build import links
from build.lessons import LESSONS, code_cells, name_of, read

from vpg_lab import widgets


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The pages, and a server for them on loopback: (folder, address)."""
    for needed in ("math_core", "pagefind"):
        pytest.importorskip(needed, reason="the extra [site] is not installed")
    from build.pages import write_site

    folder = tmp_path_factory.mktemp("site")
    write_site(folder)
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(folder))
    handler.func.log_message = lambda *_: None
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield folder, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


@pytest.fixture(scope="module")
def pages(site):
    """Every page as it is parsed, by its name."""
    found = {path.relative_to(site[0]).as_posix(): path for path in sorted(site[0].rglob("*.html"))}
    return {name: BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser") for name, path in found.items()}


def size_of(folder):
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def test_pages_are_small_and_link_to_each_other(site, pages):
    folder, _ = site
    around = {"index.html", "start.html", "glossary.html", "search.html", "companion/index.html"}
    teachers = {"exercises/index.html", "exercises/project.html"}
    assert set(pages) == {*around, *teachers, *(name_of(path.with_suffix(".html")) for path in LESSONS)}
    assert size_of(folder) <= 10_000_000 and size_of(folder) - size_of(folder / "download") <= 6_000_000
    for name, page in pages.items():
        for place in [each[key] for key in ("href", "src", "action") for each in page.select(f"[{key}]")]:
            if not place.startswith(("https://", "data:", "#")):
                assert "/../" not in place
                assert (folder / name).parent.joinpath(place.partition("#")[0]).exists(), f"{name} links to {place}"
        assert not page.select("link[href^=http], [src^=http], [srcset]")
        assert not re.search(r"url\(|@import", str(page)), name
        assert page.select("nav [aria-current=page]") and "badge" not in str(page)


def test_the_menu_links_to_pages_and_to_sections_and_to_nothing_else(pages):
    for name, page in pages.items():
        assert not page.select("a a")
        assert all(not link["href"].startswith("http") and link.get_text(strip=True) for link in page.select("nav a"))
        if len(page.select("h2")) > 1:
            titles = [heading.get_text(strip=True) for heading in page.select("h2")]
            assert [link.get_text(strip=True) for link in page.select("nav ul a")] == titles, name


def test_no_link_is_named_by_a_path_that_leaves_a_folder(pages):
    assert not any(re.search(r"notebooks/\.\.|\(\.\./", page.main.get_text()) for page in pages.values())


def test_every_lesson_s_page_has_a_way_into_its_notebook(site, pages):
    for path in LESSONS:
        name = name_of(path)
        ways = pages[name.replace(".ipynb", ".html")].select(".doors a")
        assert [way.get_text() for way in ways] == [
            "Download this notebook",
            "Download it with blanks",
            "How to run it",
        ]
        for way, blanks in zip(ways[:2], (False, True), strict=True):
            assert way.has_attr("download")
            notebook = read((site[0] / name).parent / way["href"])
            assert notebook.cells[1].id == "unpack", "it works alone"
            assert any("raise NotImplementedError" in cell.source for cell in code_cells(notebook)) == blanks
    downloads = [link["href"] for link in pages["start.html"].select("td a")]
    assert len(downloads) == len(set(downloads)) == 2 * len(LESSONS)
    notebooks = [link for page in pages.values() for link in page.select("a[href$=ipynb]:not([href^=http])")]
    assert all(link.has_attr("download") for link in notebooks)
    assert "jupyter lab" in pages["start.html"].main.get_text()


def test_with_an_address_the_way_leads_to_colab_and_binder_too(monkeypatch):
    pytest.importorskip("math_core", reason="the extra [site] is not installed")
    from build.pages import doors

    monkeypatch.setattr(links, "read_project", lambda: {"urls": {"Repository": "https://github.com/example.org/vpg"}})
    ways = {way["text"]: way["href"] for way in doors("companion/07_baselines.ipynb")}
    assert ways["Open in Colab"].endswith("/example.org/vpg/blob/standalone/companion/07_baselines.ipynb")
    assert "labpath=notebooks%2Fcompanion%2F07_baselines.ipynb" in ways["Open in Binder"]
    assert ways["Download this notebook"] == "../download/companion/07_baselines.ipynb"
    assert ways["Download it with blanks"] == "../download/exercises/07_baselines.ipynb"
    assert links.file_address("../README.md") == "https://github.com/example.org/vpg/blob/main/README.md"


def test_pages_describe_themselves_to_those_who_look_for_them(pages):
    said = {name: page.select_one("meta[name=description]")["content"] for name, page in pages.items()}
    assert len(set(said.values())) == len(pages)
    assert all(25 <= len(text) <= 200 and not re.search(r"[<>*`$]", text) for text in said.values())
    assert said["02_policy.html"].startswith("2. Policy: how do two numbers become a choice? Lesson 1 ended with")
    for name, page in pages.items():
        assert page.select_one("meta[property='og:title']")["content"] == page.title.get_text()
        assert page.select_one("meta[property='og:description']")["content"] == said[name]


def test_the_glossary_has_every_word_of_every_lesson_in_order(pages):
    rows = [[cell.get_text() for cell in row.select("td")] for row in pages["glossary.html"].select("tbody tr")]
    words = [re.sub(r"\W", "", row[0].partition(":")[0].lower()) for row in rows]
    assert words == sorted(words)
    for number, path in enumerate(LESSONS, 1):
        page = pages[name_of(path.with_suffix(".html"))]
        table = page.find(id="Words-for-this-lesson").find_next("table")
        assert [row[-1] for row in rows].count(str(number)) == len(table.select("tbody tr"))
    assert ["entropy", "H", "policy.entropy()", "(...), nats", "2"] in rows
    (kl,) = [row for row in rows if row[0].startswith("kl: how far the step changed the policy")]
    assert kl[-1] == "10"


def test_a_page_s_links_lead_to_sections_that_are_there(site, pages):
    seen, paths = 0, {site[0] / name: page for name, page in pages.items()}
    for path, page in paths.items():
        for link in page.select("main a[href*='#']"):
            file, _, section = link["href"].partition("#")
            if file and not file.startswith("https://"):
                target = paths[(path.parent / file).resolve()]
                # As a browser looks: for the section as it is written, then decoded.
                assert target.find(id=section) or target.find(id=unquote(section)), f"{path.name}: {link['href']}"
                seen += 1
    assert seen > 100


def test_pages_draw_formulas_fold_checks_and_describe_pictures(pages):
    for path in LESSONS:
        page, lesson = pages[name_of(path.with_suffix(".html"))], read(path)
        assert len(page.select("details.check")) == len(code_cells(lesson, "check"))
        described = [image["alt"] for image in page.select("img.output")]
        outputs = [output for cell in code_cells(lesson) for output in cell.outputs]
        assert described == [each["data"]["text/plain"] for each in outputs if "image/png" in each.get("data", {})]
        texts = [
            re.sub("```.*?```", "", cell.source, flags=re.S) for cell in lesson.cells if cell.cell_type == "markdown"
        ]
        formulas = sum(len(re.findall(r"\$\$.+?\$\$|\$[^$]+\$", text, flags=re.S)) for text in texts)
        assert len(page.select("math")) == formulas
        left = BeautifulSoup(str(page.main), "html.parser")
        for shown in left.select("pre, code, script, math"):
            shown.decompose()
        assert "$" not in left.get_text()


def test_the_recipe_is_trained_on_the_home_page_and_in_lesson_5(site):
    pages = {path: path.read_text(encoding="utf-8") for path in site[0].rglob("*.html")}
    places = {path for path, text in pages.items() if 'class="trainer"' in text}
    assert places == {site[0] / "index.html", site[0] / "05_training.html"}
    home = BeautifulSoup(pages[site[0] / "index.html"], "html.parser").main
    assert [each.name for each in home.select("p:not(.doors), h1, .trainer")][:2] == ["h1", "section"], (
        "before any other word"
    )


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


def test_without_scripts_a_page_shows_the_picture_and_with_them_the_slider(browser, site):
    for scripts in (True, False):
        context = browser.new_context(java_script_enabled=scripts)
        page = context.new_page()
        page.goto(f"{site[1]}/02_policy.html")
        assert page.locator("img[alt^='Three settings']").count() == (0 if scripts else 2)
        if scripts:
            page.locator(".vpg-slide svg").nth(1).wait_for()
        else:
            assert page.get_by_text("where a page may run scripts").count() == 2
        context.close()


def test_search_finds_the_section_by_keyboard_and_asks_no_other_host(browser, site):
    page, asked = browser.new_page(), []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(f"{site[1]}/companion/07_baselines.html")
    page.get_by_role("searchbox", name="Search").first.focus()
    page.keyboard.type("bootstrap interval")
    page.keyboard.press("Enter")
    page.wait_for_url("**/search.html?q=*")
    result = page.locator(".pagefind-ui__result-link", has_text="Learning curves").first
    result.wait_for()
    assert "¶" not in page.locator("#search").inner_text()
    result.click()
    page.wait_for_url("**/06_learning_curves.html*")
    assert all(each.startswith((site[1], "data:")) for each in asked)
    page.close()


def test_what_is_printed_is_whole(browser, site):
    page = browser.new_page(viewport={"width": 700, "height": 900})
    page.goto(f"{site[1]}/04_pseudo_loss.html")
    answer = page.locator("details", has=page.get_by_text("The one that was sampled, whichever it was.")).first
    assert answer.get_attribute("open") is None
    page.emulate_media(media="print", color_scheme="dark")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.get_by_text("The one that was sampled, whichever it was.").is_visible()
    assert page.locator("details:not([open])").count() == 0 and not page.locator("nav").is_visible()
    assert page.evaluate("[...document.querySelectorAll('pre')].every(box => box.scrollWidth <= box.clientWidth)")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert answer.get_attribute("open") is None, "folded again afterwards"
    page.close()


def test_nothing_glides_where_the_reader_wants_less_motion(browser, site):
    found = []
    for wish in ("reduce", "no-preference"):
        page = browser.new_page(reduced_motion=wish)
        page.goto(site[1])
        found.append(page.evaluate("getComputedStyle(document.documentElement).scrollBehavior"))
        page.close()
    assert found == ["auto", "smooth"]


@pytest.fixture
def find_serious(browser, site, pages):
    """Let axe look at a page, in a theme and a width, its folds open; return what is serious, and empty headers."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe is not installed").Axe()
    page = browser.new_page()

    def find(name, theme, width, **rules):
        page.set_viewport_size({"width": width, "height": 900})
        page.emulate_media(color_scheme=theme)
        page.goto(f"{site[1]}/{name}")
        page.evaluate("for (const each of document.querySelectorAll('details')) each.open = true")
        if "vpg-slide" in str(pages[name]):
            page.locator(".vpg-slide svg").last.wait_for()
        page.wait_for_timeout(100)
        found = axe.run(page, options={"resultTypes": ["violations"], **rules}).response["violations"]
        serious = [each for each in found if each["impact"] in ("serious", "critical")]
        serious += [each for each in found if each["id"] == "empty-table-header"]
        return [(each["id"], each["nodes"][0]["html"]) for each in serious]

    yield find
    page.close()


def test_axe_has_nothing_serious_to_say(find_serious):
    """Of pages of some kinds, on a phone, where most scrolls; of colors, which take most of the time, of two."""
    for name in ("index", "02_policy", "05_training", "search"):
        assert find_serious(f"{name}.html", "light", 390, rules={"color-contrast": {"enabled": False}}) == [], name
    for name, theme in (("companion/09_continuous_actions", "light"), ("index", "dark")):
        assert find_serious(f"{name}.html", theme, 1280, runOnly=["color-contrast"]) == [], name


@pytest.mark.slow
@pytest.mark.parametrize(("theme", "width"), [("light", 1280), ("light", 390), ("dark", 1280), ("dark", 390)])
def test_axe_has_nothing_serious_to_say_of_any_page_in_any_theme(find_serious, pages, theme, width):
    assert {name: found for name in pages if (found := find_serious(name, theme, width))} == {}
