"""What pictures show, read back from the figure; and that each one says what it shows."""

import base64
import io
import math
from xml.etree import ElementTree

import matplotlib.style
import numpy as np
import pytest
import torch
from PIL import Image

import vpg_helpers as vpg
from vpg_lab import pictures


@pytest.fixture
def model():
    torch.manual_seed(0)
    return vpg.create_model(4, 2)


def test_pictures_show_and_describe_themselves(model):
    figures = [
        pictures.plot_cart([-0.6, 0.5, 0.15, 0.4]),
        pictures.plot_policy_map(model),
        pictures.plot_probabilities([0.2, 0.8]),
    ]
    for figure in figures:
        png = Image.open(io.BytesIO(figure._repr_png_())).convert("RGB")
        assert min(png.size) > 100
        assert png.getpixel((0, 0)) == (255, 255, 255), "opaque white, legible in a dark theme"
        assert len(repr(figure)) > 20 and "0x" not in repr(figure)


DARK = {"savefig.facecolor": "black", "font.size": 20, "lines.linewidth": 5, "savefig.dpi": 40, "savefig.bbox": "tight"}
DARK |= {"path.sketch": (1, 100, 2), "contour.linewidth": 4, "hist.bins": 3}  # drawn as if by hand


def test_a_style_of_the_notebook_s_changes_no_picture_and_stays(model):
    def draw():
        picture = pictures.Picture("Two panels.")
        left, right = picture.subplots(1, 2)
        curves = np.arange(6.0).reshape(2, 3)
        pictures.plot_curves(np.arange(3), curves, *curves, "two seeds", pictures.BLUE, left)
        right.hist([1, 2, 2], label="a count")
        right.set_title("counts")
        right.legend()
        picture.supxlabel("below")
        live = pictures.LiveCurve(3)
        live.mean_returns = [1, 2, 3]
        cart = pictures.plot_cart([-0.6, 0.5, 0.15, 0.4])
        return [each._repr_png_() for each in (picture, cart, pictures.plot_policy_map(model), live.draw())]

    usual = draw()
    with matplotlib.style.context(["dark_background", DARK]):
        before = dict(matplotlib.rcParams)
        assert draw() == usual
        assert dict(matplotlib.rcParams) == before


def test_drawing_functions_draw_into_the_axes_they_are_given(model):
    picture = pictures.Picture("Three panels.")
    axes = picture.subplots(1, 3)
    assert pictures.plot_cart([0, 0, 0, 0], axes[0]) is picture
    assert pictures.plot_policy_map(model, axes[1]) is picture
    assert pictures.plot_probabilities([0.5, 0.5], axes[2]) is picture


def test_policy_map_holds_the_policy(model):
    figure = pictures.plot_policy_map(model)
    values = figure.axes[0].collections[0].get_array().reshape(61, 61)
    # Row 50 is an angular velocity of -2 + 50 * 4/60 rad/s, column 10 an angle of -12 + 10 * 24/60 degrees.
    observation = torch.tensor([0.0, 0.0, math.radians(-8.0), -2 + 50 / 15])
    assert values[50, 10] == pytest.approx(vpg.get_policy(model, observation).probs[1].item(), abs=1e-6)


def test_bars_have_the_height_of_the_probabilities():
    bars = pictures.plot_probabilities(np.array([0.3, 0.7])).axes[0].patches
    assert [bar.get_height() for bar in bars] == [0.3, 0.7]


def test_curves_show_every_seed_the_mean_and_the_band():
    curves = np.array([[1.0, 2.0, 3.0], [3.0, 4.0, 5.0]])
    ax = pictures.Picture("Curves.").add_subplot()
    pictures.plot_curves(np.arange(3), curves, curves.min(axis=0), curves.max(axis=0), "two seeds", pictures.BLUE, ax)
    drawn = [line.get_ydata().tolist() for line in ax.lines]
    assert drawn == [[1, 2, 3], [3, 4, 5], [2, 3, 4]]
    band = ax.collections[0].get_paths()[0].vertices
    assert band[:, 1].min() == 1 and band[:, 1].max() == 5


def test_animation_is_one_frame_a_step_in_real_time_and_small():
    observations = np.zeros((200, 4))
    observations[:, 0] = np.sin(np.arange(200) / 20)
    observations[:, 2] = 0.2 * np.sin(np.arange(200) / 7)
    animation = pictures.animate_episode(observations, "Swinging")
    image = Image.open(io.BytesIO(animation.png))
    durations = []
    for frame in range(image.n_frames):
        image.seek(frame)
        durations.append(image.info["duration"])
    # Pillow writes two equal frames as one that lasts twice as long.
    assert image.n_frames > 190 and min(durations) == 20
    assert sum(durations[:-1]) == 199 * 20 and durations[-1] > 1_000
    assert len(animation._repr_png_()) <= 40_000
    assert "Swinging" in repr(animation)


@pytest.mark.parametrize("steps", [10, 60, 200])
def test_animation_moves_for_five_seconds_at_most_and_has_a_still(steps):
    observations = np.random.default_rng(0).normal(0, 0.1, (steps, 4))
    animation = pictures.animate_episode(observations, "Swinging")
    image = Image.open(io.BytesIO(animation.png))
    assert image.info["loop"] >= 1 and image.info["loop"] * (steps - 1) * 20 <= 5_000
    still = Image.open(io.BytesIO(animation.still))
    image.seek(image.n_frames - 1)
    assert getattr(still, "n_frames", 1) == 1
    np.testing.assert_array_equal(np.array(image.convert("RGB")), np.array(still.convert("RGB")))


def test_reader_who_asks_for_reduced_motion_gets_the_still():
    animation = pictures.animate_episode(np.zeros((3, 4)), "Swinging")
    source, image = ElementTree.fromstring(animation._repr_html_())
    assert source.get("media") == "(prefers-reduced-motion: reduce)"
    assert base64.b64decode(source.get("srcset").split(",")[1]) == animation.still
    assert base64.b64decode(image.get("src").split(",")[1]) == animation.png
    assert image.get("alt") == animation.description


def test_a_description_is_text_and_no_markup():
    """It goes into an attribute: quotes and brackets must not end it."""
    said = 'Two "bars" <left & right>.'
    images = [pictures.Picture(said, 1, 1).to_html(), pictures.Animation(b"", b"", said)._repr_html_()]
    assert [ElementTree.fromstring(f"<p>{image}</p>").find(".//img").get("alt") for image in images] == [said, said]
    for svg in (pictures.draw_bars([0.5], ['<"a">'], said=said), pictures.draw_cart([0, 0, 0, 0], said=said)):
        assert said in ElementTree.fromstring(svg).get("aria-label")
        assert said in "".join(ElementTree.fromstring(svg).itertext())


def test_animation_follows_the_cart():
    frames = np.zeros((2, 4))
    frames[1, 0] = 1.0
    image = Image.open(io.BytesIO(pictures.animate_episode(frames, "", scale=60).png))
    centers = []
    for frame in range(2):
        image.seek(frame)
        pixels = np.array(image.convert("RGB"))
        centers.append(np.nonzero(np.all(pixels == (0, 114, 178), axis=2))[1].mean())
    assert centers[1] - centers[0] == pytest.approx(60, abs=1)


class Recorder:
    """Stands in for IPython's display: keeps what is shown and updated."""

    def __init__(self):
        self.shown = []

    def __call__(self, shown, display_id):
        return self.update(shown)

    def update(self, shown):
        self.shown.append(shown._repr_html_() if isinstance(shown, pictures.LiveCurve) else shown)
        return self


def test_live_curve_follows_training_and_keeps_what_it_saw(monkeypatch):
    recorder = Recorder()
    monkeypatch.setattr(pictures, "display", recorder)
    monkeypatch.setattr(pictures, "REDRAW_SECONDS", 0)
    curve = pictures.LiveCurve(3)
    history = vpg.train_seeds([0, 1], epochs=3, max_timesteps=100, after_epoch=curve)
    assert curve.models == history.models
    np.testing.assert_array_equal(curve.mean_returns, history.mean_returns)
    *live, final = recorder.shown
    for epoch, html in enumerate(live, 1):
        svg = ElementTree.fromstring(html)
        assert svg.get("role") == "img" and svg.get("aria-label")
        assert f"epoch {epoch} of 3" in "".join(svg.itertext())
        lines = svg.findall("{http://www.w3.org/2000/svg}polyline")
        assert [len(line.get("points").split()) for line in lines] == [epoch] * 3, "two seeds and their mean"
    # The picture that stays holds the numbers that were returned.
    drawn = [line.get_ydata() for line in final.axes[0].lines]
    np.testing.assert_array_equal(drawn[:2], history.mean_returns)
    np.testing.assert_array_equal(drawn[2], history.mean_returns.mean(axis=0))


def test_live_curve_follows_the_plain_loop_too(monkeypatch):
    monkeypatch.setattr(pictures, "display", Recorder())
    curve = pictures.LiveCurve(2)
    model, returns = vpg.train(epochs=2, max_timesteps=20, after_epoch=curve)
    assert curve.mean_returns == returns and curve.models == [model]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: pictures.animate_episode(np.zeros(4), "one"), r"shape \(4,\)"),
        (lambda: pictures.animate_episode(np.zeros((0, 4)), "none"), r"shape \(0, 4\)"),
        (lambda: pictures.LiveCurve(0), "epochs is 0; give the number"),
        (lambda: pictures.plot_cart([0, 0, 0]), r"shape \(3,\)"),
        (lambda: pictures.draw_bars([0.2, 0.3, 0.5]), "3 values and 2 names"),
        (lambda: pictures.draw_bars([0.25] * 4, names="abcd"), "3 at most"),
    ],
)
def test_bad_input_is_refused_at_once(call, message):
    with pytest.raises(ValueError, match=message):
        call()
