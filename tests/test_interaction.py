"""What moves under the reader's hand: the sliders in Python, and the cart in a real browser, where there is one."""

import base64
import math
import os
import re
import subprocess
import sys
import time
import urllib.request
from xml.etree import ElementTree

import gymnasium as gym
import nbformat
import numpy as np
import pytest
from build.lessons import LESSONS, code_cells, read

import vpg_helpers as vpg
from vpg_lab import pictures, widgets

NAMES = [path.name for path in LESSONS]


# --- sliders and bars -------------------------------------------------------------------------------------


def test_bars_are_as_high_as_their_values_and_say_them():
    svg = ElementTree.fromstring(
        pictures.draw_bars([0.25, 0.75], marks=[0.5, 0.5], intervals=[(0, 0.4), (0.6, 1)], said="Yes")
    )
    bars = svg.findall("{*}rect")
    assert [float(bar.get("height")) for bar in bars] == pytest.approx([0.25 * 110, 0.75 * 110], abs=0.1)
    assert svg.get("role") == "img" and "left 0.250; right 0.750" in svg.get("aria-label")
    assert "Yes" in "".join(svg.itertext())
    # half way up: 130 - 55; whiskers from value to height
    assert [path.get("d").split()[1].split("h")[0] for path in svg.findall("{*}path")[1::2]] == ["75.0", "75.0"]


def test_slider_redraws_with_the_values_of_all_controls():
    box = widgets.slide(lambda a, b, c: f"<p>{a} {b} {c}</p>", a=(0, 10, 3), b=(0.0, 1.0, 0.5), c=["x", "y"])
    *controls, view = box.children
    assert [control.description for control in controls] == ["a", "b", "c"]
    assert view.value == "<p>3 0.5 x</p>"
    controls[0].value = 7
    controls[2].value = "y"
    assert view.value == "<p>7 0.5 y</p>"


def test_list_of_choices_may_start_anywhere():
    box = widgets.slide(lambda a, b: f"{a} {b}", a=([1, 2, 3], 2), b=["x", "y"])
    assert box.children[-1].value == "2 x"


@pytest.mark.parametrize("stop_at", [None, 1])
def test_followed_loop_moves_a_bar_that_goes_at_the_end(monkeypatch, stop_at):
    """And goes where the loop raises, too."""
    shown, closed, seen = [], [], []
    monkeypatch.setattr(widgets, "display", shown.append)
    monkeypatch.setattr(widgets.widgets.IntProgress, "close", lambda bar: closed.append(bar))

    def run():
        for item in widgets.follow(["a", "b", "c"]):
            seen.append((item, shown[0].value, len(closed)))
            if len(seen) - 1 == stop_at:
                raise KeyboardInterrupt

    if stop_at is None:
        run()
    else:
        with pytest.raises(KeyboardInterrupt):
            run()
    assert shown[0].max == 3 and seen == [("a", 0, 0), ("b", 1, 0), ("c", 2, 0)][: len(seen)]
    assert closed[0] is shown[0] and len(seen) == (3 if stop_at is None else stop_at + 1)


def test_player_moves_its_slider():
    box = widgets.slide(lambda step: f"{step}", play="step", step=(0, 9, 0))
    player, slider = box.children[0].children
    assert (player.min, player.max) == (slider.min, slider.max) == (0, 9)


@pytest.mark.parametrize(("play", "names"), [("stop", "step, rate, kind"), ("rate", "step, rate, kind"), ("kind", "")])
def test_only_a_slider_of_whole_numbers_is_played(play, names):
    with pytest.raises(ValueError, match=f"play is '{play}'; name a control of whole numbers, one of {names}"):
        widgets.slide(lambda **_: "", play=play, step=(0, 9, 0), rate=(0.0, 1.0, 0.5), kind=["a", "b"])


def test_drawn_cart_stands_where_it_is_and_leans_as_it_leans():
    svg = ElementTree.fromstring(pictures.draw_cart([1.0, 0.0, math.pi / 6, 0.0], said="Here."))
    (cart,) = svg.findall("{*}rect")
    assert float(cart.get("x")) + 22 == pytest.approx(260 + 90)
    pole = svg.findall("{*}path")[1].get("d")
    right, up = (float(number) for number in pole.split("l")[1].split())
    assert (right, up) == pytest.approx((90 * 0.5, -90 * math.sqrt(3) / 2), abs=0.1)
    assert "Cart at 1.00 m, pole at 30.0 degrees. Here." == svg.get("aria-label")


def test_slider_shows_pictures_too():
    box = widgets.slide(lambda a: pictures.Picture(f"Picture number {a}.", 2, 2), live=False, a=(1, 3, 2))
    assert not box.children[0].continuous_update
    assert re.match(r'<img alt="Picture number 2\." src="data:image/png;base64,', box.children[-1].value)


def test_cart_page_reads_as_a_sentence_without_its_script():
    page = widgets.drive_cart()
    left = re.sub(r"<script>.*</script>", "", page._repr_html_(), flags=re.S)
    assert ElementTree.fromstring(left.strip()).get("role") == "application"
    assert "Run this cell" in left and len(repr(page)) > 40


def test_interrupted_training_keeps_the_model_and_the_curve(monkeypatch):
    monkeypatch.setattr(pictures, "display", lambda shown, display_id: type("Handle", (), {"update": print})())
    curve = pictures.LiveCurve(10)

    def interrupt_after_three(models, mean_returns):
        curve(models, mean_returns)
        if mean_returns.shape[1] == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        vpg.train_seeds([0], epochs=10, max_timesteps=100, after_epoch=interrupt_after_three)
    whole = vpg.train_seeds([0], epochs=3, max_timesteps=100)
    np.testing.assert_array_equal(curve.mean_returns, whole.mean_returns)
    for kept, expected in zip(curve.models[0].parameters(), whole.models[0].parameters(), strict=True):
        np.testing.assert_array_equal(kept.detach(), expected.detach())


# --- in a browser -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def cart_page(browser):
    page = browser.new_page()
    page.errors = []
    page.on("pageerror", lambda error: page.errors.append(str(error)))
    page.set_content(widgets.drive_cart()._repr_html_())
    page.evaluate("window.root = document.querySelector('.vpg-drive')")
    yield page
    assert page.errors == []
    page.close()


def test_cart_physics_is_gymnasium_s(cart_page):
    """Ten episodes of random pushes, step by step; float64 against float64."""
    env, random = gym.make("CartPole-v1", max_episode_steps=200), np.random.default_rng(0)
    for episode in range(10):
        env.reset(seed=episode)
        state, done, steps = env.unwrapped.state, False, 0
        while not done:
            action = int(random.integers(2))
            expected_end = cart_page.evaluate(
                "([s, a, n]) => { const t = root.cartpole.step(s, a); return [t, root.cartpole.ended(t, n)]; }",
                [[float(value) for value in state], action, steps + 1],
            )
            _, _, terminated, truncated, _ = env.step(action)
            state, done, steps = env.unwrapped.state, terminated or truncated, steps + 1
            np.testing.assert_allclose(expected_end[0], state, rtol=1e-12, atol=1e-12)
            assert bool(expected_end[1]) == done


@pytest.mark.parametrize(
    ("state", "steps", "why"),
    [([0, 0, 0.22, 0], 9, "pole fell"), ([2.5, 0, 0, 0], 9, "left the track"), ([0, 0, 0, 0], 200, "Time: 200")],
)
def test_cart_says_why_it_ended(cart_page, state, steps, why):
    assert why in cart_page.evaluate("([s, n]) => root.cartpole.ended(s, n)", [state, steps])


def test_keys_and_buttons_push_and_an_episode_ends(cart_page):
    cart_page.focus(".vpg-drive")
    cart_page.keyboard.press("Enter")
    assert cart_page.evaluate("root.cartpole.state().steps") == 0
    cart_page.keyboard.down("ArrowRight")
    cart_page.wait_for_function("root.cartpole.state().steps > 3")
    assert cart_page.evaluate("root.cartpole.state().push") == 1
    cart_page.wait_for_function("!root.cartpole.state().playing", timeout=5_000)
    cart_page.keyboard.up("ArrowRight")
    said = cart_page.inner_text("[data-said]")
    assert "The pole fell" in said and f"Return {cart_page.evaluate('root.cartpole.state().steps')}" in said
    cart_page.click("text=new episode")
    button = cart_page.locator("text=push left")
    button.hover()
    cart_page.mouse.down()
    cart_page.wait_for_function("root.cartpole.state().push === 0 && root.cartpole.state().steps > 2")
    cart_page.mouse.up()
    assert cart_page.evaluate("root.cartpole.state().push") is None
    assert "best" in cart_page.inner_text("[data-numbers]")
    # The button left the keys with the cart.
    cart_page.wait_for_function("!root.cartpole.state().playing", timeout=5_000)
    cart_page.keyboard.press("Enter")
    assert cart_page.evaluate("root.cartpole.state().steps") == 0
    assert cart_page.inner_text("[data-said]") == "Press an arrow key to begin."


def test_slow_motion_is_slow(cart_page):
    seconds = {}
    for speed in ("1", "0.25"):
        cart_page.select_option("select", speed)
        cart_page.focus(".vpg-drive")
        cart_page.keyboard.press("Enter")
        cart_page.keyboard.down("ArrowLeft")
        cart_page.wait_for_function("root.cartpole.state().playing")
        start = time.perf_counter()
        cart_page.wait_for_function("!root.cartpole.state().playing", timeout=10_000)
        seconds[speed] = (time.perf_counter() - start) / cart_page.evaluate("root.cartpole.state().steps")
        cart_page.keyboard.up("ArrowLeft")
    cart_page.select_option("select", "1")
    assert 2 < seconds["0.25"] / seconds["1"] < 8


@pytest.mark.parametrize(("wish", "shown"), [("reduce", "still"), ("no-preference", "png")])
def test_animation_respects_the_wish_for_reduced_motion(browser, wish, shown):
    animation = pictures.animate_episode(np.random.default_rng(0).normal(0, 0.1, (5, 4)), "Shaking")
    page = browser.new_page(reduced_motion=wish)
    page.set_content(animation._repr_html_())
    source = page.evaluate("document.querySelector('img').currentSrc")
    assert base64.b64decode(source.split(",")[1]) == getattr(animation, shown)
    page.close()


@pytest.fixture(scope="module")
def jupyter(tmp_path_factory):
    """A JupyterLab of its own on loopback, with copies of the lessons, gone after the tests."""
    folder = tmp_path_factory.mktemp("lessons")
    for lesson in LESSONS:
        notebook = read(lesson)
        for cell in code_cells(notebook):
            cell.outputs, cell.execution_count = [], None
        nbformat.write(notebook, folder / lesson.name)
    log = (folder / "server.log").open("w", encoding="utf-8")
    options = ["--no-browser", "--allow-root", "--ServerApp.port_retries=50", "--IdentityProvider.token=secret"]
    command = [sys.executable, "-m", "jupyter", "lab", *options, f"--ServerApp.root_dir={folder}"]
    # A theme that a test picks must not become the user's own.
    own = {f"JUPYTER{name}_DIR": str(folder / name) for name in ("_CONFIG", "LAB_SETTINGS", "LAB_WORKSPACES")}
    server = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder, env={**os.environ, **own})
    try:
        for _ in range(120):
            found = re.search(
                r"http://(?:localhost|127\.0\.0\.1):(\d+)/lab", (folder / "server.log").read_text(encoding="utf-8")
            )
            if found:
                break
            time.sleep(0.5)
        address = f"http://127.0.0.1:{found[1]}"
        # A proxy that the environment names has no business on this machine.
        urllib.request.build_opener(urllib.request.ProxyHandler({})).open(f"{address}/api", timeout=30)
        yield address, folder
    finally:
        server.terminate()
        server.wait(30)
        log.close()


def start_all(browser, address, kind, lesson):
    """Open a lesson and start its cells from top to bottom; page.errors gathers what goes wrong from then on."""
    page = browser.new_page(viewport={"width": 1280, "height": 1000})
    page.errors = []
    page.on("pageerror", lambda error: page.errors.append(str(error)))
    page.on("console", lambda message: page.errors.append(message.text) if message.type == "error" else None)
    path = {"lab": f"lab/tree/{lesson}?reset", "notebook": f"notebooks/{lesson}?"}[kind]
    page.goto(f"{address}/{path}&token=secret")
    page.wait_for_selector(".jp-Notebook .jp-Cell", timeout=60_000)
    page.wait_for_selector('.jp-NotebookPanel-toolbar [data-status="idle"], .jp-NotebookKernelStatus', timeout=60_000)
    page.wait_for_timeout(1_500)
    page.errors.clear()  # what Notebook 7 says of itself while it loads is not ours
    begun = "[...document.querySelectorAll('.jp-InputPrompt')].some(prompt => /\\[[*\\d]/.test(prompt.textContent))"
    for _ in range(3):
        page.click('.lm-MenuBar-itemLabel:text("Run")')
        page.click('.lm-Menu-itemLabel:text("Run All Cells")')
        for _ in range(30):
            page.wait_for_timeout(500)
            if page.evaluate(begun):
                return page
        # On a busy machine the page is there before its menu does anything.
    raise AssertionError("three times Run All Cells was chosen, and no cell began")


def wait_until_run(page):
    """Wait until every cell that the page shows has a number, none a star, and the kernel is idle."""
    page.wait_for_function(
        """() => {
            const prompts = [...document.querySelectorAll('.jp-CodeCell .jp-InputPrompt')].map(p => p.textContent);
            const busy = document.querySelector('[data-status="busy"]');
            return !busy && prompts.length && prompts.every(text => /\\[\\d+\\]:/.test(text));
        }""",
        timeout=180_000,
    )
    assert page.locator('[data-mime-type="application/vnd.jupyter.stderr"], .jp-mod-error').count() == 0


def turn_dark(page):
    """Choose JupyterLab's dark theme."""
    page.click('.lm-MenuBar-itemLabel:text("Settings")')
    page.hover('.lm-Menu-itemLabel:text("Theme")')
    page.click('.lm-Menu-itemLabel:text("JupyterLab Dark")')
    page.wait_for_selector('body[data-jp-theme-light="false"]', state="attached")


def drive_until_the_pole_falls(page):
    """Hold the right arrow key; return how many pictures were drawn a step."""
    cart = page.locator(".vpg-drive")
    cart.scroll_into_view_if_needed()
    cart.focus()
    page.keyboard.press("Enter")
    state = "document.querySelector('.vpg-drive').cartpole.state()"
    frames = "document.querySelector('.vpg-drive').cartpole.frames()"
    before = page.evaluate(frames)
    page.keyboard.down("ArrowRight")
    page.wait_for_function(f"{state}.steps > 2")
    page.wait_for_function(f"!{state}.playing", timeout=10_000)
    page.keyboard.up("ArrowRight")
    return (page.evaluate(frames) - before) / page.evaluate(f"{state}.steps")


@pytest.mark.parametrize("kind", ["lab", pytest.param("notebook", marks=pytest.mark.slow)])
def test_driving_leaves_the_notebook_alone(browser, jupyter, kind):
    page = start_all(browser, jupyter[0], kind, "01_model.ipynb")
    wait_until_run(page)
    count = "document.querySelectorAll('.jp-Notebook .jp-Cell').length"
    cells = page.evaluate(count)
    for dark in [False, True] if kind == "lab" else [False]:
        if dark:
            turn_dark(page)
        assert drive_until_the_pole_falls(page) >= 0.5
        # Command-mode shortcuts of the notebook: add above, add below, cut, delete twice, turn raw, turn into Markdown.
        for control in (".vpg-drive", ".vpg-drive select", ".vpg-drive [data-new]", ".vpg-drive [data-push]"):
            for key in ("a", "b", "x", "d", "d", "r", "m"):
                page.locator(control).first.focus()
                page.keyboard.press(key)
            assert page.evaluate(count) == cells, control
            assert page.locator(".vpg-drive").count() == 1, "the cell is still one of code"
    assert page.errors == []
    page.close()


def move_first_slider(page):
    """Press a key on the page's first slider and wait until its picture says other numbers."""
    handle = page.locator(".widget-slider .noUi-handle").first
    handle.scroll_into_view_if_needed()
    picture = page.locator(".widget-html svg").first
    before = picture.get_attribute("aria-label")
    handle.focus()
    page.keyboard.press("ArrowRight")
    page.wait_for_function(
        "before => document.querySelector('.widget-html svg').getAttribute('aria-label') !== before", arg=before
    )
    assert re.search(r"left [01]\.\d+; right [01]\.\d+", picture.get_attribute("aria-label"))


@pytest.mark.slow  # lesson 1 runs above, and of all of them nbval runs every cell
@pytest.mark.parametrize("lesson", NAMES)
def test_lesson_runs_from_top_to_bottom(browser, jupyter, lesson):
    """The saved file tells what every cell did; where there is a slider, it redraws."""
    address, folder = jupyter
    page = start_all(browser, address, "lab", lesson)
    for _ in range(180):
        page.wait_for_timeout(500)
        page.keyboard.press("Control+s")
        page.wait_for_timeout(500)
        cells = code_cells(read(folder / lesson))
        if all(cell.execution_count for cell in cells):
            break
    counts = [cell.execution_count for cell in cells]
    assert None not in counts and counts == sorted(counts)
    outputs = [output for cell in cells for output in cell.outputs]
    assert not [output for output in outputs if output.output_type == "error" or output.get("name") == "stderr"]
    if lesson in ("02_policy.ipynb", "03_action.ipynb"):
        move_first_slider(page)
    assert page.errors == []
    page.close()
