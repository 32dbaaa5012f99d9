"""What moves under the reader's hand: ipywidgets' own sliders (7.7 or newer), and a cart to drive, plain HTML.

No cell waits for anybody's hand.
"""

import json
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import NamedTuple

import ipywidgets as widgets
from IPython.display import display

from vpg_lab.pictures import BLUE, VERMILLION, Picture

FOLDER = Path(__file__).parent


class Page(NamedTuple):
    """HTML with a script, and the sentence that stands for it where no script may run."""

    html: str
    description: str

    def __repr__(self):
        return self.description

    def _repr_html_(self):
        return self.html


class Sliders(widgets.VBox):
    """Controls above the drawing that they drive; draw, inputs (one by keyword) and play are what slide was given."""

    def __init__(self, rows, draw, inputs, play):
        super().__init__(rows)
        self.draw, self.inputs, self.play = draw, inputs, play


def slide(draw: Callable[..., str | Picture], live: bool = True, play: str = "", **controls) -> Sliders:
    """Show draw(**values), an SVG string or a Picture, under one control per keyword; redraw when one moves.

    A control is (low, high, start), a slider of numbers, whole ones where all three are; or a list of choices,
    of which the first is the start; or a pair of such a list and another start.
    With live=False it redraws when a control is let go: for drawings that take longer than a blink. play names a
    control of whole numbers that gets buttons to play and pause, ten values a second.
    Where no kernel runs, a lesson's page has drawings of many settings instead (notebooks/build/freezing.py): what
    draw gives must depend on its values and on nothing that it was asked before.
    Raises ValueError where play names no such control.
    """
    inputs = {name: _build_control(name.replace("_", " "), control, live) for name, control in controls.items()}
    if play and not isinstance(inputs.get(play), widgets.IntSlider):
        raise ValueError(f"play is {play!r}; name a control of whole numbers, one of {', '.join(inputs)}")
    view, status = widgets.HTML(), widgets.Label()

    def redraw(change=None):
        status.value = "" if live else "drawing ..."
        drawn = draw(**{name: control.value for name, control in inputs.items()})
        view.value = drawn if isinstance(drawn, str) else drawn.to_html()
        status.value = ""

    for control in inputs.values():
        control.observe(redraw, "value")
    redraw()
    rows = [_add_player(control) if name == play else control for name, control in inputs.items()]
    return Sliders([*rows, view] if live else [*rows, status, view], draw, inputs, play)


def _build_control(label, control, live):
    """Return the widget for a control as slide describes it."""
    settings = {"description": label, "style": {"description_width": "130px"}, "layout": {"width": "520px"}}
    settings["continuous_update"] = live
    if isinstance(control, list):
        control = control, control[0]
    if isinstance(control[0], list):
        return widgets.SelectionSlider(options=control[0], value=control[1], **settings)
    low, high, start = control
    if all(isinstance(number, int) for number in control):
        return widgets.IntSlider(min=low, max=high, value=start, **settings)
    step = (high - low) / 100
    readout = {"readout_format": ".3f"} if step < 0.01 else {}
    return widgets.FloatSlider(min=low, max=high, value=start, step=step, **readout, **settings)


def _add_player(slider):
    player = widgets.Play(min=slider.min, max=slider.max, value=slider.value, interval=100)
    widgets.jslink((player, "value"), (slider, "value"))
    return widgets.HBox([player, slider])


def follow(items: Collection) -> Iterator:
    """Yield the items, under a bar that says how far a loop is; when the loop ends, however it ends, the bar goes."""
    bar = widgets.IntProgress(max=len(items))
    display(bar)
    try:
        for item in items:
            yield item
            bar.value += 1
    finally:
        bar.close()


def drive_cart() -> Page:
    """Return a CartPole to drive by hand: arrow keys, touch or buttons; it runs in the page, without the kernel.

    The physics is Gymnasium's, step by step (Euler's method, 0.02 s, 10 N, episodes of 200 steps). Between keys
    the pushes alternate, since CartPole has no action that does nothing.
    """
    html, physics = ((FOLDER / name).read_text(encoding="utf-8") for name in ("drive_cart.html", "cartpole.js"))
    html = html.replace("COLORS", json.dumps({"blue": BLUE, "vermillion": VERMILLION})).replace("CARTPOLE", physics)
    return Page(html, "Drive the cart by hand, with the arrow keys or two buttons: this needs a live notebook.")
