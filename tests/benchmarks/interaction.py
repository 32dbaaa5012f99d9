"""Measure what a reader feels: slider to redraw, frames a second, what a live curve costs. Print, write nothing.

    python tests/benchmarks/interaction.py    # about a minute; needs Chromium and Playwright

The page is a real JupyterLab in headless Chromium; medians, with the number of samples.
"""

import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import nbformat
from playwright.sync_api import sync_playwright

SLIDER = """
import torch, vpg_helpers as vpg, vpg_lab.pictures as pictures, vpg_lab.widgets as widgets
def draw(left, right):
    bars = torch.softmax(torch.tensor([left, right]), dim=-1).tolist()
    return pictures.draw_bars(bars, said=f"{left:.1f} {right:.1f}")
widgets.slide(draw, left=(-5.0, 5.0, 0.0), right=(-5.0, 5.0, 1.0))
"""
OVERHEAD = """
import statistics, time
def seconds(**settings):
    start = time.perf_counter()
    vpg.train_seeds([0], epochs=80, **settings)
    return time.perf_counter() - start
pairs = [(seconds(), seconds(after_epoch=pictures.LiveCurve(80))) for _ in range(5)]
print("OVERHEAD", statistics.median(live / bare for bare, live in pairs))
"""
# Milliseconds from the key press until the picture in the page has changed.
MOVE = """() => new Promise(done => {
    const handle = document.querySelector('.noUi-handle'), view = document.querySelector('.widget-html');
    const observer = new MutationObserver(() => { observer.disconnect(); done(performance.now() - start); });
    observer.observe(view, {subtree: true, childList: true, attributes: true, characterData: true});
    handle.focus();
    const start = performance.now();
    handle.dispatchEvent(new KeyboardEvent('keydown', {key: 'ArrowRight', bubbles: true}));
})"""


def main():
    """Measure and print."""
    folder = Path(tempfile.mkdtemp())
    cells = [nbformat.v4.new_code_cell(source.strip()) for source in (SLIDER, "widgets.drive_cart()", OVERHEAD)]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3"}}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=kernel), folder / "bench.ipynb")
    options = ["--no-browser", "--allow-root", "--IdentityProvider.token=secret", f"--ServerApp.root_dir={folder}"]
    log = (folder / "log").open("w", encoding="utf-8")
    # "Write nothing" holds for JupyterLab's own settings and workspaces too.
    own = {f"JUPYTER{name}_DIR": str(folder / name) for name in ("_CONFIG", "LAB_SETTINGS", "LAB_WORKSPACES")}
    command = [sys.executable, "-m", "jupyter", "lab", *options]
    server = subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, **own})
    try:
        while not (found := re.search(r"http://127\.0\.0\.1:(\d+)/lab", (folder / "log").read_text(encoding="utf-8"))):
            time.sleep(0.3)
        with sync_playwright() as playwright:
            arguments = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
            browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=arguments)
            page = browser.new_page(viewport={"width": 1280, "height": 1600})
            page.goto(f"http://127.0.0.1:{found[1]}/lab/tree/bench.ipynb?reset&token=secret")
            page.wait_for_selector(".jp-Notebook .jp-Cell")
            page.wait_for_timeout(4_000)
            page.click('.lm-MenuBar-itemLabel:text("Run")')
            page.click('.lm-Menu-itemLabel:text("Run All Cells")')
            page.wait_for_selector(".jp-OutputArea :text('OVERHEAD')", timeout=120_000)
            page.wait_for_timeout(1_000)
            moves = [page.evaluate(MOVE) for _ in range(40)][5:]
            median, worst = statistics.median(moves), max(moves)
            print(f"slider to redraw: median {median:.0f} ms of {len(moves)} moves, worst {worst:.0f} ms")
            page.focus(".vpg-drive")
            page.select_option(".vpg-drive select", "0.25")
            page.keyboard.press("ArrowRight")
            frames = "document.querySelector('.vpg-drive').cartpole.frames()"
            before, start = page.evaluate(frames), time.perf_counter()
            page.wait_for_timeout(1_500)
            seconds = time.perf_counter() - start
            print(f"driving: {(page.evaluate(frames) - before) / seconds:.0f} frames a second over {seconds:.1f} s")
            ratio = re.search(r"OVERHEAD ([\d.]+)", " ".join(page.locator(".jp-OutputArea").all_inner_texts()))
            print(f"live curve: {float(ratio[1]) - 1:+.1%} of the time of the 80-epoch run of lesson 5, median of 5")
            browser.close()
    finally:
        server.terminate()
        server.wait()
        log.close()
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
