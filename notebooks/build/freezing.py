"""Sliders for readers without a kernel: drawings of many settings, made by the lesson's own function.

A kernel that executes a lesson imports this. A slide then shows itself as a page that holds the drawings, and as a
picture of three of them for viewers that run no script.
"""

import base64
import hashlib
import io
import itertools
import json
import math
import re
import zlib
from html import escape
from pathlib import Path
from typing import NamedTuple

import ipywidgets
import matplotlib
import resvg_py
from IPython import get_ipython
from IPython.display import publish_display_data
from PIL import Image, ImageDraw, ImageFont

from vpg_lab.widgets import Sliders

PAGE = Path(__file__).parent / "page" / "sliders.html"
MOST_DRAWINGS = 2_800
INTERVALS = (100, 20, 10, 6, 4)  # a slider of numbers has as many as that allows; even: its middle is drawn
REPEATABLE = {"svg.hashsalt": "sliders", "svg.fonttype": "none"}


class Control(NamedTuple):
    """A control as a page has it: its name, its positions with their labels, and the one it starts at."""

    name: str
    values: list
    labels: list[str]
    start: int


def show_frozen() -> None:
    """Let the kernel that runs this show every slide frozen."""
    get_ipython().display_formatter.mimebundle_formatter.for_type(Sliders, freeze)


def freeze(sliders: Sliders, **_) -> tuple[dict, dict]:
    """Publish the page; return the picture as a mimebundle, marked as what stands still in its place."""
    controls = list_controls(sliders)
    names = [control.name for control in controls]
    drawings = {
        places: draw(sliders, controls, places)
        for places in itertools.product(*(range(len(control.values)) for control in controls))
    }
    played = list(sliders.inputs).index(sliders.play) if sliders.play else None
    page = make_page(controls, played, list(drawings.values()))
    publish_display_data({"text/html": page, "text/plain": f"Sliders: {', '.join(names)}."})
    first, *others = controls
    chosen = [(place, *(control.start for control in others)) for place in three_of(first)]
    captions = [
        ", ".join(f"{each.name} {each.labels[place]}" for each, place in zip(controls, places, strict=True))
        for places in chosen
    ]
    picture = stack([drawings[places] for places in chosen], captions)
    return {"image/png": picture, "text/plain": f"Three settings: {'; '.join(captions)}."}, {"stands_still": True}


def list_controls(sliders: Sliders) -> list[Control]:
    """Return the controls, with as many positions of sliders of numbers as MOST_DRAWINGS allows, the start among them.

    Raises ValueError where even the coarsest has more.
    """
    for intervals in INTERVALS:
        controls = [
            Control(name.replace("_", " "), values, [label_of(control, value) for value in values], start)
            for name, control in sliders.inputs.items()
            for values in [values_of(control, intervals)]
            for start in [values.index(control.value)]
        ]
        if (count := math.prod(len(control.values) for control in controls)) <= MOST_DRAWINGS:
            return controls
    raise ValueError(f"these sliders have {count} settings; give them {MOST_DRAWINGS} at most, or the page grows large")


def values_of(control: ipywidgets.Widget, intervals: int) -> list:
    """Return the values at which a control is drawn."""
    if isinstance(control, ipywidgets.SelectionSlider):
        return list(control.options)
    if isinstance(control, ipywidgets.IntSlider):
        return list(range(control.min, control.max + 1))
    values = [control.min + (control.max - control.min) * step / intervals for step in range(intervals + 1)]
    others = [value for value in values if not math.isclose(value, control.value, abs_tol=1e-9)]
    return sorted([*others, control.value])


def label_of(control: ipywidgets.Widget, value) -> str:
    """Return a value as the live control writes it."""
    return f"{value:{control.readout_format}}" if isinstance(control, ipywidgets.FloatSlider) else str(value)


def draw(sliders: Sliders, controls: list[Control], places: tuple[int, ...]) -> str:
    """Return the drawing of one setting as SVG, one or more."""
    values = [control.values[place] for control, place in zip(controls, places, strict=True)]
    drawn = sliders.draw(**dict(zip(sliders.inputs, values, strict=True)))
    if isinstance(drawn, str):
        return drawn
    svg = io.StringIO()
    with matplotlib.rc_context(REPEATABLE):
        drawn.savefig(svg, format="svg", metadata={"Date": None, "Creator": None})
    return f'<svg role="img" aria-label="{escape(drawn.description)}" {svg.getvalue().partition("<svg ")[2]}'


def make_page(controls: list[Control], played: int | None, drawings: list[str]) -> str:
    """Return the page: sliders, their drawings packed, and the sentence that stands where no script runs."""
    packed = base64.b64encode(zlib.compress("\0".join(drawings).encode(), 9)).decode()
    shown = [{"name": each.name, "labels": each.labels, "start": each.start} for each in controls]
    frozen = json.dumps({"controls": shown, "played": played, "packed": packed}, ensure_ascii=False)
    key = hashlib.sha256(frozen.encode()).hexdigest()[:12]
    names = escape(", ".join(control.name for control in controls))
    return PAGE.read_text(encoding="utf-8").replace("NAMES", names).replace("KEY", key).replace("FROZEN", frozen)


def three_of(control: Control) -> list[int]:
    """Return the places of a control's lowest and highest position, and of its start or, at an end, the middle."""
    last = len(control.values) - 1
    middle = control.start if 0 < control.start < last else last // 2
    return sorted({0, middle, last})


def stack(drawings: list[str], captions: list[str]) -> bytes:
    """Return drawings under each other, each below its caption, as a PNG of few colors."""
    pictures = []
    for drawing, caption in zip(drawings, captions, strict=True):
        svgs = re.findall(r"<svg.*?</svg>", drawing, re.S)
        parts = [Image.open(io.BytesIO(resvg_py.svg_to_bytes(svg, background="white", dpi=96))) for svg in svgs]
        title = Image.new("RGB", (max(part.width for part in parts), 26), "white")
        ImageDraw.Draw(title).text((8, 6), caption, fill="black", font=ImageFont.load_default(14))
        pictures += [title, *parts]
    whole = Image.new("RGB", (max(each.width for each in pictures), sum(each.height for each in pictures)), "white")
    top = 0
    for each in pictures:
        whole.paste(each.convert("RGB"), (0, top))
        top += each.height
    png = io.BytesIO()
    whole.quantize(32).save(png, format="PNG", optimize=True)
    return png.getvalue()
