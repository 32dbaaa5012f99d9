"""What a reader of the lessons sees: figures, animations, sliders, a curve that follows a training, a cart to drive.

Data in, a figure out. Nothing here needs a display, a game library or pyplot's global state; colors are Okabe and
Ito's, which stay apart under every common color blindness. A picture that one lesson shows stands in that lesson; one
that two share stands here.
"""

import base64
import contextlib
import functools
import inspect
import io
import math
import threading
import time
from collections.abc import Iterator, Sequence
from html import escape
from typing import NamedTuple

import matplotlib
import numpy as np
import torch
from IPython.display import display
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image, ImageDraw
from torch import nn

BLUE, VERMILLION, GREEN, GRAY = "#0072B2", "#D55E00", "#009E73", "#595959"
PLAY_MILLISECONDS = 5_000  # what moves by itself for longer must have a pause button (WCAG 2.2, criterion 2.2.2)
REDRAW_SECONDS = 0.25  # often enough to watch, and a few percent of the training at most
# Where CartPole's episodes end: rad and m as gymnasium/envs/classic_control/cartpole.py has them, and our time limit.
FALL_ANGLE, TRACK_END, MOST_STEPS = 12 * 2 * math.pi / 360, 2.4, 200

# ---- 1. Figures and animations ---------------------------------------------------------------------------------------


# A style that a notebook has chosen, a dark one say, is for its own plots; these pictures have matplotlib's defaults.
NO_STYLE = ("agg", "animation", "backend", "backend_fallback", "date", "docstring", "interactive", "keymap", "macosx")
NO_STYLE += ("pdf", "pgf", "ps", "svg", "timezone", "tk", "toolbar", "webagg")
DEFAULTS = {key: value for key, value in matplotlib.rcParamsDefault.items() if key.split(".")[0] not in NO_STYLE}
_style_of = threading.local()  # whether a thread draws with the defaults already
_one_at_a_time = threading.RLock()  # settings are everybody's, and widgets may draw beside a cell


@contextlib.contextmanager
def own_style() -> Iterator[None]:
    """Draw with matplotlib's defaults for a while."""
    if getattr(_style_of, "is_own", False):
        yield
        return
    with _one_at_a_time, matplotlib.rc_context(DEFAULTS):
        _style_of.is_own = True
        try:
            yield
        finally:
            _style_of.is_own = False


def _in_own_style(kind):
    """Let a class of matplotlib's do all of its work in our style; some settings are read when it comes to drawing."""

    def style(method):
        @functools.wraps(method)
        def call(*given, **named):
            with own_style():
                return method(*given, **named)

        return call

    for name, method in inspect.getmembers(kind, inspect.isfunction):
        if name == "__init__" or not name.startswith(("_", "get_")):
            setattr(kind, name, style(method))
    return kind


@_in_own_style
class _Axes(Axes):
    """Axes in our style."""


@_in_own_style
class Picture(Figure):
    """A matplotlib figure that shows itself in a notebook and describes itself where it can't be seen."""

    def __init__(self, description: str, width: float = 7, height: float = 3):
        super().__init__(figsize=(width, height), dpi=90, layout="constrained", facecolor="white")
        self.description = description

    def add_subplot(self, *place, **settings) -> Axes:
        """Do what a figure does; subplots calls it, too."""
        return super().add_subplot(*place, **{"axes_class": _Axes} | settings)

    def __repr__(self):
        return self.description

    def _repr_png_(self):
        png = io.BytesIO()
        self.savefig(png, format="png")
        return png.getvalue()

    def to_html(self) -> str:
        """Return the figure as an HTML image, with its description as the alternative text."""
        return f'<img alt="{escape(self.description)}" src="{_to_data_url(self._repr_png_())}"/>'


class Animation(NamedTuple):
    """An animated PNG, its last frame as a PNG that stands still, and the sentence that describes it."""

    png: bytes
    still: bytes
    description: str

    def __repr__(self):
        return self.description

    def _repr_png_(self):
        return self.png

    def _repr_html_(self):
        """Show the still to readers whose system asks for reduced motion; only a live page has this form."""
        return (
            f'<picture><source media="(prefers-reduced-motion: reduce)" srcset="{_to_data_url(self.still)}"/>'
            f'<img alt="{escape(self.description)}" src="{_to_data_url(self.png)}"/></picture>'
        )


def _to_data_url(png):
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"


@own_style()
def plot_cart(observation: Sequence[float], ax: Axes | None = None) -> Figure:
    """Draw the cart and pole of one observation to scale, the four numbers labeled; angles in radians.

    Raises ValueError where the observation has not shape (4,).
    """
    if np.shape(observation) != (4,):
        raise ValueError(f"the observation has shape {np.shape(observation)}; give (4,)")
    position, velocity, angle, angular_velocity = observation
    ax = (
        ax or Picture("The cart on its track, the pole leaning, and the four numbers of the observation.").add_subplot()
    )
    tip = position + math.sin(angle), 0.2 + math.cos(angle)
    ax.plot([-TRACK_END, TRACK_END], [0, 0], color="black", lw=1)
    ax.add_patch(Rectangle((position - 0.25, 0), 0.5, 0.2, color=BLUE))
    ax.plot([position, tip[0]], [0.2, tip[1]], color=VERMILLION, lw=6, solid_capstyle="round")
    ax.plot([position, position], [0.2, 1.2], color=GRAY, lw=1, ls=":")
    arrow = {"arrowstyle": "-|>", "color": "black"}
    ax.annotate("", (position + 0.3 + velocity, 0.1), (position + 0.27, 0.1), arrowprops=arrow)
    ax.text(position + 0.35, -0.05, f"velocity {velocity:.2f} m/s", va="top")
    ax.annotate("", (tip[0] + angular_velocity, tip[1]), tip, arrowprops=arrow)
    ax.text(tip[0] + 0.12, tip[1] + 0.04, f"angular velocity {angular_velocity:.2f} rad/s", va="bottom")
    ax.text(position - 0.1, 0.8, f"angle {angle:.2f} rad", ha="right")
    ax.text(position - 0.3, -0.05, f"position {position:.2f} m", va="top", ha="right")
    for end in (-TRACK_END, TRACK_END):
        ax.plot([end, end], [-0.1, 0.3], color=GRAY, lw=1, ls="--")
        ax.text(end, 0.35, f"{end:+.1f} m", ha="center", color=GRAY)
    ax.set(xlim=(-2.9, 2.9), ylim=(-0.25, 1.45), aspect="equal")
    ax.axis("off")
    return ax.figure


def animate_episode(observations: np.ndarray, title: str, scale: int = 60) -> Animation:
    """Draw an episode, observations of shape (steps, 4), as an animated PNG: real time, scale pixels a meter.

    Raises ValueError for another shape, and for no steps.
    """
    shape = np.shape(observations)
    if len(shape) != 2 or shape[0] == 0 or shape[1] != 4:
        raise ValueError(f"observations has shape {shape}; give (steps, 4), one step or more")
    captions = [f"{title}: {step // 10 * 10} steps" for step in range(1, shape[0])] + [f"{title}: {shape[0]} steps"]
    frames = [_draw_frame(*pair, scale) for pair in zip(observations, captions, strict=True)]
    # CartPole's steps are 20 ms apart; the last frame stays for a second and a half before the next round.
    durations = [20] * (len(frames) - 1) + [1_500]
    rounds = max(1, PLAY_MILLISECONDS // sum(durations))
    animated = {"save_all": True, "append_images": frames[1:], "duration": durations, "loop": rounds}
    description = f"Animation, {title}: the cart moves and the pole swings until the episode ends."
    return Animation(_to_png(frames[0], **animated), _to_png(frames[-1]), description)


def _to_png(frame, **animated):
    png = io.BytesIO()
    frame.save(png, format="PNG", compress_level=9, **animated)
    return png.getvalue()


def _draw_frame(observation, caption, scale):
    width, ground = int(2.2 * TRACK_END * scale), int(1.75 * scale)
    frame = Image.new("P", (width, ground + scale // 4))
    frame.putpalette(bytes.fromhex("ffffff" + "000000" + BLUE[1:] + VERMILLION[1:] + GRAY[1:]))
    black, blue, vermillion, gray = range(1, 5)
    draw, x = ImageDraw.Draw(frame), width / 2 + observation[0] * scale
    pivot = x, ground - 0.2 * scale
    draw.line([0, ground, width, ground], fill=black)
    for end in (-TRACK_END, TRACK_END):
        draw.line([width / 2 + end * scale, ground - 0.2 * scale, width / 2 + end * scale, ground], fill=gray, width=2)
    for limit in (-FALL_ANGLE, FALL_ANGLE):
        east, north = math.sin(limit) * scale, math.cos(limit) * scale
        draw.line([x + 0.85 * east, pivot[1] - 0.85 * north, x + east, pivot[1] - north], fill=gray)
    draw.rectangle([x - 0.25 * scale, pivot[1], x + 0.25 * scale, ground - 1], fill=blue)
    tip = pivot[0] + math.sin(observation[2]) * scale, pivot[1] - math.cos(observation[2]) * scale
    draw.line([*pivot, *tip], fill=vermillion, width=scale // 10)
    draw.text((4, 2), caption, fill=black)
    return frame


def plot_probabilities(probabilities: np.ndarray, ax: Axes | None = None, names=("left", "right")) -> Figure:
    """Draw one policy as bars; probabilities has shape (actions,)."""
    ax = ax or Picture("Bars: the probability of each action.", 3, 2.4).add_subplot()
    bars = ax.bar(names, probabilities, color=[BLUE, VERMILLION], width=0.6)
    ax.bar_label(bars, fmt="%.2f")
    ax.set(ylim=(0, 1.15), ylabel="probability")
    return ax.figure


def plot_policy_map(model: nn.Module, ax: Axes | None = None) -> Figure:
    """Draw the probability of pushing right over pole angle and angular velocity, the cart at rest at x = 0.

    model gives two logits for observations of shape (..., 4).
    """
    ax = (
        ax
        or Picture("Map: the probability of pushing right, by pole angle and angular velocity.", 4.6, 3.4).add_subplot()
    )
    angles, velocities = np.meshgrid(np.linspace(-12, 12, 61), np.linspace(-2, 2, 61))
    observations = np.zeros((61, 61, 4), np.float32)
    observations[..., 2], observations[..., 3] = np.radians(angles), velocities
    with torch.no_grad():
        right = torch.softmax(model(torch.from_numpy(observations)), dim=-1)[..., 1].numpy()
    colors = LinearSegmentedColormap.from_list("left to right", [BLUE, "white", VERMILLION])
    image = ax.pcolormesh(angles, velocities, right, cmap=colors, vmin=0, vmax=1)
    ax.contour(angles, velocities, right, levels=[0.5], colors="black", linewidths=1)
    ax.figure.colorbar(image, ax=ax, label="P(push right)")
    ax.set(xlabel="pole angle (degrees)", ylabel="angular velocity (rad/s)")
    return ax.figure


def plot_curves(x: np.ndarray, curves: np.ndarray, low, high, label: str, color: str, ax: Axes) -> Figure:
    """Draw every curve faint, their mean strong, and a band from low to high; curves has shape (seeds, points)."""
    ax.plot(x, curves.T, color=color, alpha=0.2, lw=0.7)
    ax.fill_between(x, low, high, color=color, alpha=0.3, lw=0)
    ax.plot(x, curves.mean(axis=0), color=color, lw=2, label=label)
    if label:
        ax.legend(loc="lower right")
    return ax.figure


class LiveCurve:
    """A learning curve and progress bar that follow a training; hand it to train or train_seeds as after_epoch.

    It keeps what it was last given, so that models, always a list, and mean_returns survive an interrupted training.
    Raises ValueError where epochs is below 1.
    """

    def __init__(self, epochs: int, goal: float = 180, best: float = MOST_STEPS):
        if epochs < 1:
            raise ValueError(f"epochs is {epochs}; give the number of epochs that the training takes, 1 or more")
        self.epochs, self.goal, self.best = epochs, goal, best
        self.models, self.mean_returns, self.shown, self.next_redraw = [], [], None, -math.inf

    def __call__(self, models: nn.Module | list[nn.Module], mean_returns: Sequence[float] | np.ndarray):
        """Take in an epoch and redraw, four times a second at most; mean_returns (epochs,) or (seeds, epochs)."""
        self.models = [models] if isinstance(models, nn.Module) else list(models)
        self.mean_returns = mean_returns
        done = np.shape(mean_returns)[-1] == self.epochs
        if not done and time.monotonic() < self.next_redraw:
            return
        self.next_redraw = time.monotonic() + REDRAW_SECONDS
        # What stays on the page is a PNG: viewers that run no kernel drop live HTML.
        view = self.draw() if done else self
        if self.shown is None:
            self.shown = display(view, display_id=True)
        else:
            self.shown.update(view)

    def draw(self) -> Picture:
        """Draw what was last given as a figure that stays: every curve, their mean, and the goal dashed."""
        curves = np.atleast_2d(self.mean_returns)
        epochs, mean = np.arange(1, curves.shape[1] + 1), curves.mean(axis=0)
        picture = Picture("Learning curve: the mean return of every epoch, the goal dashed.", 5.5, 2.6)
        ax = picture.add_subplot()
        plot_curves(epochs, curves, mean, mean, "mean over seeds" if len(curves) > 1 else "", BLUE, ax)
        ax.axhline(self.goal, color="black", ls="--", lw=0.8)
        ax.set(xlabel="epoch", ylabel="mean return", ylim=(0, 1.03 * self.best))
        # Margins by hand take half the time of a constrained layout, and a training of a second waits for it.
        picture.set_layout_engine(None)
        picture.subplots_adjust(left=0.12, right=0.98, bottom=0.19, top=0.97)
        return picture

    def __repr__(self):
        return "Live learning curve: the mean return of every epoch."

    def _repr_html_(self):
        curves = np.atleast_2d(self.mean_returns)
        done = curves.shape[1]
        x = 60 + 380 * np.arange(1, done + 1) / self.epochs
        faint = [_draw_line(x, self._height(curve), 'stroke-width="1" opacity="0.5"') for curve in curves]
        strong = _draw_line(x, self._height(curves.mean(axis=0)), 'stroke-width="2"')
        ticks = "".join(
            f'<text x="54" y="{self._height(value) + 4:.0f}" text-anchor="end">{value:g}</text>'
            for value in (0, self.best / 2, self.best)
        )
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" width="460" height="200" role="img" aria-label="{self!r}" '
            f'fill="currentColor" font-size="12" font-family="sans-serif">'
            f'<path d="M60 10V150H440" fill="none" stroke="currentColor"/>{ticks}'
            f'<text transform="translate(16 80) rotate(-90)" text-anchor="middle">mean return</text>'
            f'<path d="M60 {self._height(self.goal):.0f}H440" stroke="currentColor" stroke-dasharray="4"/>'
            f"{''.join(faint) if len(curves) > 1 else ''}{strong}"
            f'<text x="60" y="166">0</text><text x="440" y="166" text-anchor="end">{self.epochs}</text>'
            f'<text x="250" y="166" text-anchor="middle">epoch</text>'
            f'<path d="M60 174H{60 + 380 * done / self.epochs:.0f}" stroke="currentColor" stroke-width="3"/>'
            f'<text x="60" y="194">epoch {done} of {self.epochs}, mean return {curves[:, -1].mean():.0f}; '
            f"dashed: {self.goal:g}</text></svg>"
        )

    def _height(self, value):
        return 150 - 140 * np.asarray(value) / self.best


def _draw_line(x, y, style):
    points = " ".join(f"{a:.0f},{b:.0f}" for a, b in zip(x, y, strict=True))
    return f'<polyline points="{points}" fill="none" stroke="{BLUE}" {style}/>'


def draw_bars(
    values: Sequence[float],
    names: Sequence[str] = ("left", "right"),
    marks: Sequence[float] | None = None,
    intervals: Sequence[tuple[float, float]] | None = None,
    said: str = "",
) -> str:
    """Return bars for values from 0 to 1 as an SVG string, quick enough to follow a slider.

    marks draws a dashed line over each bar, intervals a (low, high) whisker; said is a sentence below.
    Raises ValueError where names and values are not equally many, three at most.
    """
    colors = (BLUE, VERMILLION, GREEN)
    if len(names) != len(values) or len(values) > len(colors):
        raise ValueError(f"{len(values)} values and {len(names)} names; give a name per value, {len(colors)} at most")

    def height(value):
        return 130 - 110 * min(max(float(value), 0.0), 1.0)

    parts = []
    for place, (name, value) in enumerate(zip(names, values, strict=True)):
        x, y = 40 + 110 * place, height(value)
        parts.append(f'<rect x="{x}" y="{y:.1f}" width="70" height="{130 - y:.1f}" fill="{colors[place]}"/>')
        parts.append(f'<text x="{x + 35}" y="146" text-anchor="middle">{escape(name)}: {value:.3f}</text>')
        if marks is not None:
            y = height(marks[place])
            parts.append(
                f'<path d="M{x - 8} {y:.1f}h86" stroke="currentColor" stroke-width="2" stroke-dasharray="5 3"/>'
            )
        if intervals is not None:
            low, high = (height(bound) for bound in intervals[place])
            parts.append(f'<path d="M{x + 35} {low:.1f}V{high:.1f}" stroke="currentColor" stroke-width="3"/>')
    described = "; ".join(f"{escape(name)} {value:.3f}" for name, value in zip(names, values, strict=True))
    said = escape(said)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 520 172" width="520" height="172" role="img" '
        f'aria-label="Bars: {described}. {said}" fill="currentColor" font-size="13" font-family="sans-serif">'
        f'<path d="M30 20V130H{40 + 110 * len(values)}" fill="none" stroke="currentColor"/>'
        f'<text x="26" y="24" text-anchor="end">1</text><text x="26" y="134" text-anchor="end">0</text>'
        f'{"".join(parts)}<text x="30" y="166">{said}</text></svg>'
    )


def draw_cart(observation: Sequence[float], said: str = "") -> str:
    """Return the cart, its pole and its track, of one observation, as an SVG string; said is a sentence below."""
    position, _, angle, _ = (float(number) for number in observation)
    scale, ground, x = 90, 128, 260 + 90 * position
    end, said = TRACK_END * scale, escape(said)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 520 158" width="520" height="158" role="img" '
        f'aria-label="Cart at {position:.2f} m, pole at {math.degrees(angle):.1f} degrees. {said}" '
        f'fill="currentColor" font-size="13" font-family="sans-serif">'
        f'<path d="M{260 - end:.0f} {ground - 10}v10h{2 * end:.0f}v-10" fill="none" stroke="currentColor"/>'
        f'<rect x="{x - 22:.1f}" y="{ground - 18}" width="44" height="18" fill="{BLUE}"/>'
        f'<path d="M{x:.1f} {ground - 18}l{scale * math.sin(angle):.1f} {-scale * math.cos(angle):.1f}" '
        f'stroke="{VERMILLION}" stroke-width="7"/><text x="30" y="152">{said}</text></svg>'
    )
