"""Sliders where no kernel runs: what is drawn, what a page shows of it, and what stands still where no script runs."""

import base64
import io
import itertools
import json
import math
import re

import nbformat
import pytest
from build import executing, freezing
from build.executing import execute
from build.lessons import LESSONS, code_cells, read
from PIL import Image

from vpg_lab import pictures, widgets

PACKED = re.compile(r"const \{controls, played, packed\} = (.*);\n")
FROZEN = [
    (f"{path.stem}-{number}", cell)
    for path in LESSONS
    for number, cell in enumerate(code_cells(read(path)))
    if "widgets.slide(" in cell.source
]


@pytest.fixture
def freeze(monkeypatch):
    """Freeze a slide; return (page, picture, what stands for it)."""

    def freeze(*given, **controls):
        published = []
        monkeypatch.setattr(freezing, "publish_display_data", published.append)
        picture, metadata = freezing.freeze(widgets.slide(*given, **controls))
        assert metadata == {"stands_still": True}
        return published[0]["text/html"], Image.open(io.BytesIO(picture["image/png"])), picture["text/plain"]

    return freeze


def say(**values):
    """A drawing that says its values and draws them, each a bar of as many pixels."""
    bars = "".join(f'<rect y="{10 * n}" width="{v}" height="10"/>' for n, v in enumerate(values.values()))
    return f'<svg xmlns="http://www.w3.org/2000/svg" width="90" height="30" aria-label="{values}">{bars}</svg>'


# --- what is drawn ----------------------------------------------------------------------------------------


def controls_of(**controls):
    return freezing.list_controls(widgets.slide(lambda **_: "", **controls))


def test_whole_numbers_and_choices_are_all_drawn_and_the_start_is_found():
    step, kind = controls_of(step_size=(0, 3, 2), kind=([0.003, 0.01], 0.01))
    assert step == ("step size", [0, 1, 2, 3], ["0", "1", "2", "3"], 2)
    assert kind == ("kind", [0.003, 0.01], ["0.003", "0.01"], 1)


def test_numbers_are_drawn_from_end_to_end_with_the_middle_and_the_start():
    (alone,) = controls_of(a=(-5.0, 5.0, 1.0))
    assert len(alone.values) == 101 and alone.values[alone.start] == 1.0 and alone.labels[alone.start] == "1.00"
    for control in controls_of(**dict.fromkeys("abc", (-0.2, 0.2, 0.07))):
        assert (control.values[0], control.values[-1]) == pytest.approx((-0.2, 0.2))
        assert min(map(abs, control.values)) < 1e-9 and control.values[control.start] == 0.07
        assert control.labels[control.start] == "0.070" and len(control.values) == 12
        assert control.values == sorted(control.values)


def test_too_many_settings_are_refused():
    with pytest.raises(ValueError, match="these sliders have 3000 settings; give them 2800 at most"):
        controls_of(a=(1, 3_000, 1))


def test_a_picture_of_three_settings_shows_them_below_their_names(freeze):
    _, picture, said = freeze(say, width=(10, 50, 20), other=(0, 2, 1))
    assert said == "Three settings: width 10, other 1; width 20, other 1; width 50, other 1."
    assert picture.size == (90, 3 * (26 + 30))
    gray = picture.convert("L")
    bars = [sum(gray.getpixel((x, 56 * row + 31)) < 128 for x in range(90)) for row in range(3)]
    assert bars == [10, 20, 50]


def test_figures_are_frozen_too(freeze):
    def plot(a):
        picture = pictures.Picture(f"A line that ends at {a} < 9.", 3, 2)
        picture.add_subplot().plot([0, a])
        return picture

    page, picture, said = freeze(plot, live=False, a=[1, 2])
    assert page == freeze(plot, live=False, a=[1, 2])[0], "nothing in it depends on the hour"
    assert said == "Three settings: a 1; a 2." and picture.width == 288 and picture.height == 2 * (192 + 26)


# --- in the lessons ---------------------------------------------------------------------------------------


def test_the_lessons_have_seven():
    assert len(FROZEN) == 7


@pytest.mark.parametrize(("name", "cell"), FROZEN, ids=[name for name, _ in FROZEN])
def test_a_lesson_s_slider_is_a_page_and_a_picture_of_150_kilobytes_at_most(name, cell):
    page, picture = cell.outputs
    assert len(page["data"]["text/html"]) + len(picture["data"]["image/png"]) <= 150_000
    assert "image/png" not in page["data"] and "text/html" not in picture["data"], "a sanitizer takes one or the other"
    assert picture["metadata"] == {"stands_still": True}
    Image.open(io.BytesIO(base64.b64decode(picture["data"]["image/png"]))).verify()


@pytest.mark.parametrize(("name", "cell"), FROZEN, ids=[name for name, _ in FROZEN])
def test_a_lesson_s_page_is_the_one_that_is_made_today(name, cell):
    html = cell.outputs[0]["data"]["text/html"]
    key, names = re.search(r'data-key="(\w+)".*aria-label="Sliders: ([^"]+)"', html).groups()
    template = freezing.PAGE.read_text(encoding="utf-8")
    made = template.replace("NAMES", names).replace("KEY", key).replace("FROZEN", PACKED.search(html)[1])
    assert html == made, "page/sliders.html has changed: run notebooks/make.py --all"


def test_an_executed_notebook_has_both(tmp_path):
    path = tmp_path / "lesson.ipynb"
    code = "from vpg_lab import pictures, widgets\n"
    code += "widgets.slide(lambda a: pictures.draw_bars([a, 1 - a]), a=(0.0, 1.0, 0.5))"
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)]), path)
    execute(path)
    page, picture = read(path).cells[0].outputs
    assert "vpg-slide" in page["data"]["text/html"] and picture["metadata"] == {"stands_still": True}


def test_without_the_package_that_draws_the_pictures_nothing_is_executed(tmp_path, monkeypatch):
    """Or the sliders would be lost from the file without a word."""
    monkeypatch.setattr(executing.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match=r'pip install -e "\.\[test\]"'):
        execute(tmp_path / "lesson.ipynb")


# --- in a browser -----------------------------------------------------------------------------------------


@pytest.fixture
def open_page(browser):
    """Open HTML in a page of its own; errors of its scripts fail the test."""
    opened = []

    def open_page(html, **settings):
        page = browser.new_page(**settings)
        page.errors = []
        page.on("pageerror", lambda error: page.errors.append(str(error)))
        opened.append(page)
        page.set_content(html)
        return page

    yield open_page
    for page in opened:
        assert page.errors == []
        page.close()


def move(page, *places):
    """Put the sliders somewhere, as a hand does; return their labels and what the drawing says."""
    return page.evaluate(
        """places => {
            const inputs = [...document.querySelectorAll('.vpg-slide input')];
            inputs.forEach((input, n) => { input.value = places[n]; input.dispatchEvent(new Event('input')); });
            const labels = inputs.map(input => input.nextElementSibling.textContent);
            return [labels, document.querySelector('.vpg-slide svg').getAttribute('aria-label')];
        }""",
        places,
    )


def test_every_position_shows_the_drawing_of_its_values(freeze, open_page):
    html, *_ = freeze(say, count=(0, 2, 1), kind=["1", "2"], share=(0.0, 1.0, 0.5))
    page = open_page(html)
    page.wait_for_selector(".vpg-slide svg")
    shares = [step / 100 for step in range(101)]
    places = itertools.product(range(3), range(2), range(0, 101, 25))
    for count, kind, share in places:
        labels, said = move(page, count, kind, share)
        values = {"count": count, "kind": "12"[kind], "share": shares[share]}
        assert labels == [str(count), "12"[kind], f"{shares[share]:.2f}"] and said == str(values)


def test_keys_move_a_slider_and_what_it_shows_is_said(freeze, open_page):
    page = open_page(freeze(say, live_step=(0, 9, 4))[0])
    slider = page.get_by_role("slider", name="live step")
    slider.focus()
    assert slider.get_attribute("aria-valuetext") == "4"
    page.keyboard.press("ArrowRight")
    assert slider.get_attribute("aria-valuetext") == "5"
    assert page.get_by_role("status").text_content() == str({"live_step": 5})


def test_what_plays_is_paused_and_ends_at_the_end(freeze, open_page):
    page = open_page(freeze(say, play="step", step=(0, 500, 0))[0])
    button, slider = page.get_by_role("button", name="play"), page.get_by_role("slider")
    assert slider.input_value() == "0", "nothing moves by itself"
    button.click()
    page.wait_for_function("document.querySelector('.vpg-slide input').value > 1")
    page.get_by_role("button", name="pause").click()
    paused = slider.input_value()
    page.wait_for_timeout(300)
    assert slider.input_value() == paused != "500"
    move(page, 498)
    button.click()
    page.wait_for_function("document.querySelector('.vpg-slide input').value == 500")
    button.wait_for()
    button.click()
    page.wait_for_function("document.querySelector('.vpg-slide input').value < 500")


def test_two_sliders_on_a_page_have_a_drawing_each(freeze, open_page):
    page = open_page(freeze(say, a=(0, 1, 0))[0] + freeze(say, b=(0, 1, 1))[0])
    page.wait_for_function("document.querySelectorAll('.vpg-slide svg').length == 2")
    said = [each.get_attribute("aria-label") for each in page.locator(".vpg-slide svg").all()]
    assert said == ["{'a': 0}", "{'b': 1}"]


def test_in_a_frame_without_rights_a_slider_moves(freeze, open_page):
    """Colab shows an output in a frame of another origin, which may run scripts and not much else."""
    page = open_page('<iframe sandbox="allow-scripts" width="700" height="400"></iframe>')
    page.evaluate("html => document.querySelector('iframe').srcdoc = html", freeze(say, a=(0, 9, 3))[0])
    page.frame_locator("iframe").locator("svg[aria-label=\"{'a': 3}\"]").wait_for()


@pytest.mark.parametrize(("name", "cell"), FROZEN, ids=[name for name, _ in FROZEN])
def test_a_lesson_s_slider_moves_without_a_kernel(open_page, name, cell):
    html = cell.outputs[0]["data"]["text/html"]
    page = open_page(html)
    page.wait_for_selector(".vpg-slide svg")
    controls = json.loads(PACKED.search(html)[1])["controls"]
    start = [control["start"] for control in controls]
    assert page.evaluate("[...document.querySelectorAll('.vpg-slide input')].map(i => Number(i.value))") == start
    for number, control in enumerate(controls):
        ends = [[*start[:number], place, *start[number + 1 :]] for place in (0, len(control["labels"]) - 1)]
        said = [move(page, *places)[1] for places in ends]
        assert said[0] != said[1] or control["name"] == "again", control["name"]


def test_lesson_2_s_bars_are_the_softmax_of_the_logits_shown(open_page):
    page = open_page(FROZEN[0][1].outputs[0]["data"]["text/html"])
    page.wait_for_selector(".vpg-slide svg")
    for places in itertools.product((0, 7, 20), repeat=2):
        (left, right), said = move(page, *places)
        expected = 1 / (1 + math.exp(float(right) - float(left)))
        assert f"left {expected:.3f}; right {1 - expected:.3f}" in said
