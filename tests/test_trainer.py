"""The site's trainer: its JavaScript against Gymnasium, PyTorch and the helper; its buttons in a real browser."""

import math
import re

import gymnasium as gym
import numpy as np
import pytest
import torch
from build.lessons import ROOT
from nbformat.v4 import new_markdown_cell, new_notebook

import vpg_helpers as vpg
from vpg_lab import widgets
from vpg_lab.intervals import share_interval

SCRIPTS = [ROOT / "vpg_lab/cartpole.js", ROOT / "notebooks/build/page/train.js"]


def minus_mean(episodes):
    """Lesson 7's recipe, in 64 bits."""
    return np.repeat(episodes.returns - episodes.returns.mean(dtype=float), episodes.lengths)


RECIPES = {"whole_return": vpg.whole_return, "rewards_to_go": vpg.rewards_to_go, "minus_mean": minus_mean}


@pytest.fixture(scope="module")
def ask(browser):
    """Evaluate JavaScript where cartpole.js and train.js are loaded: ask(function, argument)."""
    page = browser.new_page()
    for path in SCRIPTS:
        page.add_script_tag(path=path)
    yield page.evaluate
    page.close()


# --- the same physics -------------------------------------------------------------------------------------


PLAY = """([state, actions]) => actions.map((action, step) => {
    state = cartpole.step(state, action);
    return [...state, Number(cartpole.is_done(state, step + 1))];
})"""
POLICIES = {
    "at random": lambda random, state: random.integers(2),
    "against the swing": lambda random, state: int(state[2] + 0.5 * state[3] > 0),  # until the time is up
    "to the right end": lambda random, state: int(state[2] + 0.5 * state[3] > 0.1),
}


@pytest.mark.parametrize(("name", "end"), [*zip(POLICIES, ("fell", "time", "left"), strict=True)])
def test_whole_episodes_are_gymnasium_s(ask, name, end):
    """Played alone from the recorded start by the recorded actions, so that differences would add up."""
    env, random, ends = gym.make("CartPole-v1", max_episode_steps=200), np.random.default_rng(0), set()
    for episode in range(10):
        env.reset(seed=episode)
        start = [float(number) for number in env.unwrapped.state]
        actions, recorded, done = [], [], False
        while not done:
            actions.append(int(POLICIES[name](random, env.unwrapped.state)))
            _, _, terminated, truncated, _ = env.step(actions[-1])
            done = terminated or truncated
            recorded.append([*env.unwrapped.state, done])
        ends.add("time" if truncated else "fell" if abs(recorded[-1][2]) > math.radians(12) else "left")
        np.testing.assert_allclose(ask(PLAY, [start, actions]), recorded, rtol=0, atol=1e-6)
    assert ends == {end}, "the episodes show what they are to show"


def test_the_cart_to_drive_and_the_trainer_share_one_physics():
    assert SCRIPTS[0].read_text(encoding="utf-8") in widgets.drive_cart().html
    pages = [*(ROOT / "vpg_lab").glob("*.*"), *(ROOT / "notebooks/build/page").glob("*.*")]
    with_gravity = [path for path in pages if "9.8 *" in path.read_text(encoding="utf-8")]
    assert with_gravity == [SCRIPTS[0]]


# --- the same gradient and the same gradient step ---------------------------------------------------------


GRADIENT = """([parameters, episodes, recipe]) => {
    const model = parameters.map(parameter => Float64Array.from(parameter));
    const lived = episodes.map(([observations, actions]) => ({steps: actions.map((action, step) => {
        const policy = get_policy(model, observations[step]);
        return {policy, action, log_probability: Math.log(policy.probabilities[action])};
    })}));
    const steps = lived.flatMap(episode => episode.steps), weigh = eval(recipe);
    const {loss, slopes} = calculate_loss(steps.map(step => step.log_probability), weigh(lived));
    return [loss, backward(model, steps, slopes).map(slope => [...slope])];
}"""


def batch_of(epochs):
    """Return a model after some epochs, its episodes, and both as JavaScript takes them."""
    (model,) = vpg.train_seeds([0], epochs=epochs, max_timesteps=1_000).models
    generators = [np.random.default_rng(epochs)]
    (episodes,) = vpg.collect_episodes(vpg.make_cartpoles(8), [model], generators, max_timesteps=1_000)
    parameters = [parameter.detach().flatten().tolist() for parameter in model.parameters()]
    pairs = zip(episodes.split(episodes.observations), episodes.split(episodes.actions), strict=True)
    return model, episodes, parameters, [[observations.tolist(), actions.tolist()] for observations, actions in pairs]


@pytest.mark.parametrize("epochs", [1, 15])
@pytest.mark.parametrize("recipe", RECIPES)
def test_gradient_is_the_helper_s(ask, recipe, epochs):
    model, episodes, parameters, recorded = batch_of(epochs)
    loss, gradient = ask(GRADIENT, [parameters, recorded, recipe])
    vpg.take_gradient_step(model, torch.optim.SGD(model.parameters(), lr=0.0), episodes, RECIPES[recipe])
    for ours, parameter in zip(gradient, model.parameters(), strict=True):
        np.testing.assert_allclose(ours, parameter.grad.flatten(), rtol=1e-5, atol=1e-5)
    # and, since PyTorch counts in 32 bits there, the same in 64
    model.double().zero_grad()
    log_probabilities = vpg.get_policy(model, episodes.observations.astype(float)).log_prob(
        torch.as_tensor(episodes.actions)
    )
    expected = vpg.calculate_loss(log_probabilities, torch.as_tensor(RECIPES[recipe](episodes), dtype=torch.float64))
    expected.backward()
    assert loss == pytest.approx(expected.item(), rel=1e-9)
    for ours, parameter in zip(gradient, model.parameters(), strict=True):
        np.testing.assert_allclose(ours, parameter.grad.flatten(), rtol=1e-9, atol=1e-9)


def test_adam_s_steps_are_pytorch_s(ask):
    random = np.random.default_rng(0)
    start, gradients = random.normal(size=5), random.normal(size=(4, 5)) * [[1], [10], [0.1], [0]]
    parameter = torch.nn.Parameter(torch.tensor(start))
    optimizer, expected = torch.optim.Adam([parameter], lr=0.03), []
    for gradient in gradients:
        parameter.grad = torch.tensor(gradient)
        optimizer.step()
        expected.append(parameter.tolist())
    stepped = ask(
        """([start, gradients]) => {
            const model = [Float64Array.from(start)], optimizer = create_adam(model, 0.03);
            return gradients.map(gradient => { optimizer.step([gradient]); return [...model[0]]; });
        }""",
        [start.tolist(), gradients.tolist()],
    )
    np.testing.assert_allclose(stepped, expected, rtol=1e-12)


def test_recipes_weigh_three_episodes_as_by_hand(ask):
    weigh = "name => eval(name)([1, 3, 2].map(steps => ({steps: Array(steps).fill({})})))"
    assert ask(weigh, "whole_return") == [1, 3, 3, 3, 2, 2]
    assert ask(weigh, "rewards_to_go") == [1, 3, 2, 1, 2, 1]
    assert ask(weigh, "minus_mean") == [-1, 1, 1, 1, 0, 0]


# --- the same network, die, batches and runs --------------------------------------------------------------


def test_a_model_begins_as_pytorch_s_does(ask):
    models = ask("() => [...Array(200).keys()].map(seed => create_model(create_random(seed)).map(each => [...each]))")
    for layer, parameter in enumerate(vpg.create_model(4, 2).parameters()):
        numbers = np.array([model[layer] for model in models])
        assert numbers.shape == (200, parameter.numel())
        bound = [4, 4, 32, 32][layer] ** -0.5
        # all of them uniform from -bound to bound: the share below some places, within four standard errors
        for share in (0.1, 0.5, 0.9):
            assert (numbers < bound * (2 * share - 1)).mean() == pytest.approx(share, abs=2 / numbers.size**0.5)
        assert 0.95 * bound < np.abs(numbers).max() <= bound


def test_the_die_follows_the_policy(ask):
    rolls = ask(
        """() => {
            const random = create_random(0);
            return Array.from({length: 20000}, () => get_action({probabilities: [0.2, 0.5, 0.3]}, random));
        }"""
    )
    actions, log_probabilities = np.array(rolls).T
    for action, probability in enumerate([0.2, 0.5, 0.3]):
        assert (actions == action).mean() == pytest.approx(probability, abs=0.015)  # four standard errors
        np.testing.assert_allclose(log_probabilities[actions == action], math.log(probability))


@pytest.mark.parametrize(
    ("poles", "budget", "episodes"),
    [(1, 12, 3), (1, 10, 2), (2, 10, 2), (2, 12, 4), (3, 1, 3)],
)
def test_batches_finish_what_they_start(ask, poles, budget, episodes):
    """Every episode lasts five steps here, so the number of episodes is known by hand."""
    lengths = ask(
        """([poles, budget]) => {
            const before = cartpole.is_done, random = create_random(0);
            cartpole.is_done = (state, steps) => steps === 5;
            const batch = collect_episodes(create_model(random), poles, budget, random);
            cartpole.is_done = before;
            return batch.map(episode_return);
        }""",
        [poles, budget],
    )
    assert lengths == [5] * episodes


RUN = """settings => {
    const weigh = eval(settings.weigh ?? "whole_return");
    return [...train({epochs: 5, max_timesteps: 500, ...settings, weigh})].at(-1).mean_returns;
}"""


def test_a_seed_decides_everything_and_every_setting_counts(ask):
    first = ask(RUN, {})
    assert len(first) == 5 and ask(RUN, {}) == first
    for other in ({"seed": 1}, {"learning_rate": 0.1}, {"number_of_environments": 8}, {"weigh": "minus_mean"}):
        assert ask(RUN, other) != first, other


@pytest.mark.slow
def test_it_succeeds_as_often_as_python_does(ask):
    """Of 16 seeds each, those whose best of eighty epochs reaches 180; the two 95 % intervals share a value."""
    best = [max(ask(RUN, {"seed": seed, "epochs": 80, "max_timesteps": 5_000})) for seed in range(16)]
    python = vpg.train_seeds(range(16), epochs=80).mean_returns.max(axis=1)
    low, high = share_interval(sum(value >= 180 for value in best), 16)
    python_low, python_high = share_interval(int((python >= 180).sum()), 16)
    assert low <= python_high and python_low <= high and low > 0.5


# --- the page, opened as a file ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """A page that holds the trainer and little else, as a file: no server is needed."""
    pytest.importorskip("math_core", reason="the extra [site] is not installed")
    from build.pages import make_site

    folder = tmp_path_factory.mktemp("page")
    make_site(
        {"README.md": new_notebook(cells=[new_markdown_cell("# Home\n\nA sentence.", metadata={"tags": ["trainer"]})])},
        folder,
    )
    return (folder / "index.html").as_uri()


@pytest.fixture
def open_page(browser, address):
    """Open the page in a tab with these settings; at the end, nothing may have failed or asked another host."""
    pages, asked, errors = [], [], []

    def open_one(**settings):
        page = browser.new_page(**settings)
        page.on("request", lambda request: asked.append(request.url))
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.add_init_script(COUNT_FRAMES)
        page.goto(address)
        pages.append(page)
        return page

    yield open_one
    assert errors == [] and asked and all(url.startswith(("file:", "data:")) for url in asked)
    for page in pages:
        page.close()


COUNT_FRAMES = """window.frames_asked = 0;
const ask_for_frame = window.requestAnimationFrame;
window.requestAnimationFrame = turn => { window.frames_asked++; return ask_for_frame(turn); };"""
# The red, green, blue and alpha of the map's corners: the pole swings to the right at the top, to the left below.
CORNERS = """() => [0, 40].map(row =>
    [...document.querySelector("canvas").getContext("2d").getImageData(20, row, 1, 1).data])"""


def caption(page, epoch):
    return page.inner_text(f"[data-stage='{epoch}'] figcaption span")


def wait_for(page, selector, words, seconds=60):
    """Wait until an element's text has these words, a regular expression."""
    code = "([place, words]) => RegExp(words).test(document.querySelector(place).textContent)"
    page.wait_for_function(code, arg=[selector, words], timeout=1_000 * seconds)


def test_one_press_trains_until_the_pole_stays_up(open_page):
    page = open_page()
    assert page.inner_text("[data-said]").startswith("Untrained")
    assert page.locator("[role=img]:not([aria-label]), [role=img][aria-label='']").count() == 0, "all say what they are"
    assert max(corner[3] for corner in page.evaluate(CORNERS)) < 128, "pale"
    page.click("[data-train]")
    wait_for(page, "[data-stage='80'] figcaption span", "up for all 200 steps")
    assert [caption(page, epoch).split(" after")[0] for epoch in (0, 40)] == ["down", "down"]
    said = page.inner_text("[data-said]")
    assert re.fullmatch(r"Epoch 80 of 80: up for (19\d|200) steps\.", said)
    assert page.get_attribute("[data-curve] svg", "aria-label") == said
    assert len(page.get_attribute("polyline.now", "points").split()) == 80
    right, left = page.evaluate(CORNERS)
    assert right[0] > right[2] and left[2] > left[0] and min(right[3], left[3]) > 200, "two halves"
    assert page.inner_text("[data-train]") == "Train seed 10"
    page.click("[data-train]")
    page.wait_for_selector("polyline.before", state="attached")
    assert page.locator("polyline.before").count() == 1, "the curve of the seed before stays to compare with"


def test_by_keyboard_it_is_trained_stopped_continued_and_begun_anew(open_page):
    page = open_page()
    page.evaluate("""() => {
        const place = document.querySelector("[role=status]");
        window.said = [];
        new MutationObserver(() => said.push(place.textContent)).observe(place, {childList: true});
    }""")
    page.focus(".doors a:last-child")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Train"
    page.keyboard.press("Enter")
    wait_for(page, "[data-said]", "Epoch 20 of 80")
    page.keyboard.press("Space")
    assert page.evaluate("document.activeElement.textContent") == "Go on"
    stopped = page.inner_text("[data-said]")
    assert re.fullmatch(r"Stopped\. Epoch \d+ of 80: up for \d+ steps\.", stopped)
    page.wait_for_timeout(200)
    assert page.inner_text("[data-said]") == stopped
    page.keyboard.press("Enter")
    wait_for(page, "[data-said]", "^Epoch")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    assert page.inner_text("[data-said]").startswith("Untrained") and caption(page, 80) == "epoch 80"
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.ariaLabel") == "Play the episode before training"
    page.keyboard.press("Enter")
    wait_for(page, "[data-stage='0'] figcaption span", "step")
    epochs = [int(words.split()[1]) for words in page.evaluate("said") if words.startswith("Epoch")]
    assert epochs == [20, 40, 60, 80][: len(epochs)], "a screen reader hears every twentieth epoch, and not each"


def test_settings_begin_anew_and_a_bad_seed_hears_what_to_do(open_page):
    page = open_page()
    page.click("summary")
    page.fill("[data-seed]", "1.5")
    page.click("[data-train]")
    assert page.inner_text("[data-said]") == 'The seed is "1.5"; give a whole number from 0 to 2147483647.'
    page.fill("[data-seed]", "3")
    page.select_option("[data-rate]", "0.03")
    page.select_option("[data-weigh]", "minus_mean")
    page.select_option("[data-poles]", "8")
    page.click("[data-train]")
    wait_for(page, "[data-said]", "Epoch 20 of 80")
    page.click("[data-train]")
    settings = {"seed": 3, "learning_rate": 0.03, "weigh": "minus_mean", "number_of_environments": 8}
    expected = page.evaluate(RUN, settings | {"epochs": 20, "max_timesteps": 5_000})[-1]
    point = page.get_attribute("polyline.now", "points").split()[19]
    assert (206 - float(point.split(",")[1])) / 190 * 200 == pytest.approx(expected, abs=0.1)
    page.select_option("[data-poles]", "1")
    assert page.inner_text("[data-said]").startswith("Untrained") and page.inner_text("[data-train]") == "Train"


def test_who_wants_less_motion_sees_ends_and_no_animation(open_page):
    page = open_page(reduced_motion="reduce")
    assert page.evaluate("frames_asked") == 0 and caption(page, 0).startswith("down after")
    page.click("[data-train]")
    wait_for(page, "[data-said]", "Epoch 20 of 80")
    page.click("[data-train]")
    page.click("[aria-label='Play the episode before training']")
    wait_for(page, "[data-stage='0'] figcaption span", "step")
    assert open_page().evaluate("frames_asked") > 0, "else it plays by itself"
