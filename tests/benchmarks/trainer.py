"""Measure the site's trainer in headless Chromium: how long a reader waits, and how often it succeeds. Write nothing.

    python tests/benchmarks/trainer.py            # some minutes; needs Chromium and Playwright
    python tests/benchmarks/trainer.py --seeds 0  # the waiting alone

The waiting is from opening the home page, a file, to the end of an episode of 200 steps that is shown in real time,
four seconds of it: as the machine is, and with the page's CPU slowed six times. The longest task is how long the page
could not answer. Both are on top of what else the machine does, so the load is printed. Then the recipe of lesson 5
with its 80 epochs, in JavaScript and in Python, for as many seeds: those at 180 or more, with 95 % intervals.
"""

import argparse
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from playwright.sync_api import sync_playwright

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "notebooks")]

from build.pages import write_site  # noqa: E402

import vpg_helpers as vpg  # noqa: E402
from vpg_lab.intervals import share_interval  # noqa: E402

STAYS_UP = "() => /up for all 200 steps/.test(document.querySelector('[data-stage=\"80\"] span').textContent)"
WATCH_TASKS = """window.longest = 0;
new PerformanceObserver(list => list.getEntries().forEach(task => { longest = Math.max(longest, task.duration); }))
    .observe({type: "longtask"});"""
CURVE = "seed => [...train({seed})].at(-1).mean_returns"


def measure_waiting(browser, address, slowed):
    """Return the seconds until the pole has stayed up, and the longest task in ms, the CPU slowed so many times."""
    page = browser.new_page()
    page.context.new_cdp_session(page).send("Emulation.setCPUThrottlingRate", {"rate": slowed})
    page.add_init_script(WATCH_TASKS)
    start = time.perf_counter()
    page.goto(address)
    page.click("[data-train]")
    page.wait_for_function(STAYS_UP, timeout=300_000)
    waited, longest = time.perf_counter() - start, page.evaluate("longest")
    page.close()
    return waited, longest


def report(name, curves):
    """Print how many seeds reach 180, by the best epoch and by the last five."""
    for measure, values in (("best epoch", curves.max(axis=1)), ("last five", curves[:, -5:].mean(axis=1))):
        successes = int((values >= 180).sum())
        low, high = share_interval(successes, len(values))
        print(f"{name}, {curves.shape[1]} epochs, {measure}: {successes} of {len(values)} ({low:.0%} to {high:.0%})")


def main():
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=32)
    seeds = range(parser.parse_args().seeds)
    folder = Path(tempfile.mkdtemp())
    write_site(folder)
    with sync_playwright() as playwright:
        arguments = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=arguments)
        for slowed in (1, 6):
            waited, longest = measure_waiting(browser, (folder / "index.html").as_uri(), slowed)
            print(f"CPU slowed {slowed} times: {waited:.1f} s, longest task {longest:.0f} ms", end="; ")
            print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores", flush=True)
        if seeds:
            page = browser.new_page()
            page.goto((folder / "index.html").as_uri())
            start, curves = time.perf_counter(), np.array([page.evaluate(CURVE, seed) for seed in seeds])
            print(f"{(time.perf_counter() - start) / len(seeds):.1f} s a seed in JavaScript")
            python = vpg.train_seeds(seeds, epochs=80).mean_returns
            for epochs in (40, 80):
                report("JavaScript", curves[:, :epochs])
                report("Python    ", python[:, :epochs])
        browser.close()
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
