"""The batched form against the plain functions: same play, same gradient, and every seed on its own."""

import math

import gymnasium as gym
import numpy as np
import pytest
import torch

import vpg_helpers as vpg
from vpg_lab.intervals import share_interval


def seeded_model(seed=0):
    torch.manual_seed(seed)
    return vpg.create_model(4, 2)


def collect(models, seeds, environments_each=32, max_timesteps=5_000):
    generators = [np.random.default_rng(seed) for seed in seeds]
    return vpg.collect_episodes(vpg.make_cartpoles(environments_each * len(models)), models, generators, max_timesteps)


def plain_lengths(model, number_of_episodes, seed=0):
    env, lengths = gym.make("CartPole-v1", max_episode_steps=200), []
    env.reset(seed=seed)
    torch.manual_seed(seed)
    for _ in range(number_of_episodes):
        observation, _ = env.reset()
        length, done = 0, False
        while not done:
            with torch.no_grad():
                action, _ = vpg.get_action(vpg.get_policy(model, observation))
            observation, _, terminated, truncated, _ = env.step(action)
            length, done = length + 1, terminated or truncated
        lengths.append(length)
    return np.array(lengths)


def reward_to_go(rewards):
    return np.cumsum(rewards[::-1])[::-1]


@pytest.fixture(scope="module")
def trained():
    """A model that has learned enough for episodes of very different lengths, some of them truncated."""
    return vpg.train_seeds([0], epochs=30).models[0]


def test_recorded_episodes_replay_in_the_plain_environment(trained):
    """Same physics, whole episodes, no reset step counted: CartPole replays every recorded action alike."""
    (episodes,) = collect([trained], [1], max_timesteps=3_000)
    env = gym.make("CartPole-v1", max_episode_steps=200)
    for observations, actions, episode_terminated, last_observation in zip(
        episodes.split(episodes.observations),
        episodes.split(episodes.actions),
        episodes.terminated,
        episodes.last_observations,
        strict=True,
    ):
        env.reset()
        env.unwrapped.state = observations[0].astype(np.float64)
        for step, action in enumerate(actions):
            np.testing.assert_allclose(env.unwrapped.state, observations[step], atol=1e-4)
            _, _, terminated, truncated, _ = env.step(action)
            assert (terminated or truncated) == (step == len(actions) - 1)
        # How it ended, and what the last action led to: not the start of the next episode.
        assert terminated == episode_terminated
        np.testing.assert_allclose(env.unwrapped.state, last_observation, atol=1e-4)
    assert 200 in episodes.lengths and episodes.lengths.min() < 200
    assert episodes.terminated.any() and not episodes.terminated.all()


def test_the_poles_say_how_they_hand_over_the_last_observation():
    """Where an episode ends, step returns its last observation, and the next step the new start."""
    poles = vpg.make_cartpoles(2)
    assert poles.metadata["autoreset_mode"] == gym.vector.AutoresetMode.NEXT_STEP
    assert type(poles.unwrapped) is type(gym.make_vec("CartPole-v1", 2, "vector_entry_point").unwrapped)


@pytest.mark.parametrize(
    "action",
    [
        *map(np.array, ([0, 1], [1, 1], [0, 2], [-1, 0], [0, 1, 1], [[0, 1]], [0.0, 1.0], [False, True])),
        np.array([1, 0], np.int8),
        [0, 1],
        1,
    ],
)
def test_poles_take_the_actions_that_gymnasium_s_take(action):
    given = gym.make_vec("CartPole-v1", 2, "vector_entry_point").action_space.contains(action)
    assert vpg.make_cartpoles(2).action_space.contains(action) == given


def test_records_grow_with_the_time_that_is_played(trained):
    """One pole for more than 512 time steps: nothing of the first ones is lost."""
    (episodes,) = collect([trained], [8], environments_each=1, max_timesteps=1_000)
    starts = np.stack([observations[0] for observations in episodes.split(episodes.observations)])
    assert len(episodes.actions) >= 1_000 and np.all(np.abs(starts) <= 0.05)
    after = np.concatenate([episodes.split(episodes.observations)[0][1:], episodes.last_observations[:1]])
    moved = episodes.split(episodes.observations)[0]
    np.testing.assert_allclose(after[:, [0, 2]], moved[:, [0, 2]] + 0.02 * moved[:, [1, 3]], atol=1e-5)


def test_batch_is_whole_episodes_over_the_budget(trained):
    for budget in (1, 500, 5_000):
        (episodes,) = collect([trained], [2], environments_each=8, max_timesteps=budget)
        assert episodes.lengths.sum() == len(episodes.observations) == len(episodes.actions) == len(episodes.rewards)
        # Every environment plays at least one episode, and at most one more after the budget is met.
        assert budget <= len(episodes.actions) < budget + 8 * 200
        assert len(episodes.lengths) >= 8
        assert 1 <= episodes.lengths.min() and episodes.lengths.max() <= 200
        assert np.all(episodes.rewards == 1)
    assert episodes.actions.dtype == np.int64 and episodes.observations.dtype == np.float32


def test_one_environment_stops_like_the_plain_loop():
    """With one environment the rule is train_one_epoch's: no episode starts once the budget is met."""
    (episodes,) = collect([seeded_model()], [0], environments_each=1, max_timesteps=300)
    assert len(episodes.actions) - episodes.lengths[-1] < 300 <= len(episodes.actions)


def test_lengths_have_the_distribution_of_the_plain_loop():
    """Two-sample Kolmogorov-Smirnov at 0.1 %, on fixed seeds."""
    model = seeded_model()
    plain = np.sort(plain_lengths(model, 600))
    (episodes,) = collect([model], [0], max_timesteps=20_000)
    batched = np.sort(episodes.lengths)
    grid = np.arange(1, 201)
    distance = np.abs(
        np.searchsorted(plain, grid, "right") / len(plain) - np.searchsorted(batched, grid, "right") / len(batched)
    ).max()
    assert distance < 1.95 * np.sqrt(1 / len(plain) + 1 / len(batched))


def test_short_episodes_are_not_favored(trained):
    """Mean length is the same whether an environment plays one episode or many; keeping what finishes first is not."""
    (many,) = collect([trained], [3], environments_each=4, max_timesteps=100_000)
    first = np.concatenate([collect([trained], [(4, i)], max_timesteps=1)[0].lengths for i in range(40)])
    error = np.hypot(many.lengths.std() / np.sqrt(len(many.lengths)), first.std() / np.sqrt(len(first)))
    assert abs(many.lengths.mean() - first.mean()) < 4 * error


def test_actions_follow_the_policy(trained):
    (episodes,) = collect([trained], [5], max_timesteps=50_000)
    with torch.no_grad():
        right = vpg.get_policy(trained, episodes.observations).probs[:, 1].numpy()
    for low, high in [(0, 0.1), (0.1, 0.5), (0.5, 0.9), (0.9, 1)]:
        chosen = (low <= right) & (right <= high)
        surplus = (episodes.actions[chosen] - right[chosen]).sum()
        assert chosen.sum() > 100
        assert abs(surplus) < 4 * np.sqrt((right[chosen] * (1 - right[chosen])).sum()) + 1


def test_starts_are_gymnasiums():
    (episodes,) = collect([seeded_model()], [6], max_timesteps=20_000)
    starts = np.stack([observations[0] for observations in episodes.split(episodes.observations)])
    cart = vpg.make_cartpoles(1).unwrapped
    cart.reset()
    assert (cart.low, cart.high) == (-0.05, 0.05)
    assert np.all(np.abs(starts) <= 0.05)
    error = 0.05 / np.sqrt(3 * len(starts))
    assert np.all(np.abs(starts.mean(axis=0)) < 4 * error)
    assert np.all(np.abs(starts.std(axis=0) - 0.05 / np.sqrt(3)) < 4 * error)


@pytest.mark.parametrize(
    ("weigh", "weigh_rewards"),
    [
        (vpg.whole_return, lambda rewards: [sum(rewards)] * len(rewards)),
        (vpg.per_episode(reward_to_go), reward_to_go),
        (vpg.rewards_to_go, reward_to_go),
    ],
)
def test_gradient_step_is_the_plain_functions_step(trained, weigh, weigh_rewards):
    """On the same recorded data: one observation at a time, log-probabilities stacked, calculate_loss."""
    (episodes,) = collect([trained], [7], environments_each=8, max_timesteps=300)
    log_probabilities = torch.stack(
        [
            vpg.get_policy(trained, observation).log_prob(torch.as_tensor(action))
            for observation, action in zip(episodes.observations, episodes.actions, strict=True)
        ]
    )
    weights = [weight for rewards in episodes.split(episodes.rewards) for weight in weigh_rewards(rewards)]
    loss = vpg.calculate_loss(log_probabilities, torch.tensor(weights))
    expected = torch.autograd.grad(loss, list(trained.parameters()))
    vpg.take_gradient_step(trained, torch.optim.SGD(trained.parameters(), lr=0.0), episodes, weigh)
    for parameter, gradient in zip(trained.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-4, atol=1e-4)


def test_gradient_step_validates_the_loss_and_leaves_validation_on():
    (episodes,) = collect([seeded_model()], [0], environments_each=1, max_timesteps=1)
    broken = seeded_model()
    with torch.no_grad():
        broken[2].bias[0] = torch.nan
    with pytest.raises(ValueError, match="pseudo-loss is nan: the model gives nan"):
        vpg.take_gradient_step(broken, torch.optim.SGD(broken.parameters(), lr=1.0), episodes)
    with pytest.raises(ValueError, match="constraint"):
        torch.distributions.Categorical(logits=torch.tensor([torch.nan, 0.0]))


def test_recipes_by_hand():
    """Two episodes, of rewards 1, 2, 4 and 8; a function that spoils the rewards it is given spoils nothing else."""
    zeros, rewards = np.zeros((4, 4)), np.array([1.0, 2.0, 4.0, 8.0])
    episodes = vpg.Episodes(zeros, zeros[:, 0], rewards, np.array([3, 1]), np.array([True, False]), zeros[:2])
    assert episodes.returns.tolist() == [7, 8]
    assert vpg.whole_return(episodes).tolist() == [7, 7, 7, 8]
    assert vpg.per_episode(reward_to_go)(episodes).tolist() == [7, 6, 4, 8]
    assert vpg.rewards_to_go(episodes).tolist() == [7, 6, 4, 8]
    assert vpg.per_episode(lambda rewards: np.add(rewards, 1, out=rewards))(episodes).tolist() == [2, 3, 5, 9]
    assert episodes.rewards.tolist() == [1, 2, 4, 8]


def test_every_seed_may_have_a_recipe_of_its_own():
    """A list gives every seed what it gets alone, and a recipe sees its own seed's episodes only."""
    seen = []
    recipes = [vpg.whole_return, vpg.per_episode(reward_to_go), lambda e: seen.append(e) or vpg.whole_return(e)]
    among = vpg.train_seeds([4, 4, 5], epochs=3, max_timesteps=500, weigh=recipes)
    for run, (seed, weigh) in enumerate(zip([4, 4, 5], recipes[:2] + [vpg.whole_return], strict=True)):
        alone = vpg.train_seeds([seed], epochs=3, max_timesteps=500, weigh=weigh)
        np.testing.assert_array_equal(among.mean_returns[run], alone.mean_returns[0])
    np.testing.assert_allclose([episodes.returns.mean() for episodes in seen], among.mean_returns[2], rtol=1e-6)
    assert among.mean_returns[0, -1] != among.mean_returns[1, -1]


def test_first_model_is_the_plain_train_s():
    """The same seed starts from the same parameters in both forms."""
    started = []
    vpg.train(epochs=1, max_timesteps=1, learning_rate=1e-30, seed=3, after_epoch=lambda m, _: started.append(m))
    batched = vpg.train_seeds([3], epochs=1, max_timesteps=1, learning_rate=1e-30).models[0]
    for plain, other in zip(started[0].parameters(), batched.parameters(), strict=True):
        torch.testing.assert_close(plain, other)


def test_a_seed_gets_its_own_curve_whatever_runs_beside_it():
    alone = vpg.train_seeds([3], epochs=6, max_timesteps=1_000)
    among = vpg.train_seeds([8, 3, 11, 0, 5], epochs=6, max_timesteps=1_000)
    np.testing.assert_allclose(among.mean_returns[1], alone.mean_returns[0], rtol=1e-6)
    np.testing.assert_array_equal(among.timesteps[1], alone.timesteps[0])
    for one, other in zip(among.models[1].parameters(), alone.models[0].parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
    assert len({tuple(curve) for curve in among.mean_returns}) == 5


def test_training_repeats_and_leaves_the_global_die_alone():
    torch.manual_seed(9)
    expected = torch.rand(3)
    torch.manual_seed(9)
    first = vpg.train_seeds([1, 2], epochs=3, max_timesteps=500)
    assert torch.equal(torch.rand(3), expected)
    again = vpg.train_seeds([1, 2], epochs=3, max_timesteps=500)
    np.testing.assert_array_equal(first.mean_returns, again.mean_returns)


def test_training_learns():
    """Four seeds; in a sweep of 32 the lowest gain in 20 epochs was from 23 to 44."""
    history = vpg.train_seeds(range(4), epochs=20)
    assert np.all(history.mean_returns[:, -3:].mean(axis=1) > 1.4 * history.mean_returns[:, 0])


def test_history_and_callback_have_the_promised_shapes():
    seen = []
    history = vpg.train_seeds(
        range(3), epochs=2, max_timesteps=100, after_epoch=lambda models, returns: seen.append(returns.copy())
    )
    assert history.mean_returns.shape == history.timesteps.shape == (3, 2) and len(history.models) == 3
    assert np.all(history.timesteps >= 100)
    np.testing.assert_array_equal(seen[0], history.mean_returns[:, :1])
    np.testing.assert_array_equal(seen[1], history.mean_returns)


@pytest.mark.parametrize(("successes", "trials"), [(0, 10), (3, 10), (10, 10), (8, 32)])
def test_share_interval_solves_its_equation(successes, trials):
    """Wilson's bounds are the shares p for which |k/n - p| is 1.96 standard errors of p itself."""
    for bound in share_interval(successes, trials):
        assert abs(successes / trials - bound) == pytest.approx(1.96 * math.sqrt(bound * (1 - bound) / trials))
    low, high = share_interval(successes, trials)
    assert low < high


class OwnBuild(torch.nn.Module):
    """The same network as create_model's, built in another way, with the same parameters."""

    def __init__(self, model):
        super().__init__()
        self.first, _, self.last = model

    def forward(self, observations):
        return self.last(torch.relu(self.first(observations)))


def test_models_of_another_build_play_the_same():
    """Their forward pass is PyTorch's, not NumPy's: what they play may only differ by rounding."""
    (plain,) = collect([seeded_model()], [3], max_timesteps=300)
    (own,) = collect([OwnBuild(seeded_model())], [3], max_timesteps=300)
    np.testing.assert_array_equal(own.actions, plain.actions)
    np.testing.assert_array_equal(own.observations, plain.observations)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: vpg.train_seeds([]), "number_of_seeds is 0"),
        (lambda: vpg.train_seeds([0, -1]), "seed is -1"),
        (lambda: vpg.train_seeds([0], epochs=0), "epochs is 0"),
        (lambda: vpg.train_seeds([0], learning_rate=-1), "learning_rate is -1"),
        (lambda: vpg.train_seeds([0], number_of_environments=0), "number_of_environments is 0"),
        (lambda: vpg.train_seeds([0], weigh=lambda episodes: episodes.returns), r"weights of shape \(\d+,\), .* steps"),
        (lambda: vpg.train_seeds([0], weigh=lambda episodes: None), r"weights of shape \(\), .* steps"),
        (lambda: vpg.train_seeds([0], weigh=lambda episodes: episodes.rewards * np.nan), ", 0 of them finite"),
        (lambda: vpg.train_seeds([0, 1], weigh=[vpg.whole_return]), "1 recipes for 2 seeds"),
        (lambda: share_interval(1, 0), "trials is 0"),
        (lambda: share_interval(5, 4), "5 successes in 4 trials"),
        (lambda: share_interval(0.97, 32), "0.97 successes in 32 trials; give a count"),
        (lambda: collect([], [], max_timesteps=1), "number_of_models is 0"),
        (lambda: collect([seeded_model()], [0], max_timesteps=0), "max_timesteps is 0"),
        (lambda: collect([seeded_model()], [0, 1]), "2 generators for 1 models"),
        (lambda: collect([vpg.create_model(4, 3)], [0]), r"gives \(1, 3\); batches play models with two logits"),
        (
            lambda: collect([vpg.create_model(5, 2)], [0]),
            r"gives .*mat1 and mat2 .*; batches play models with two logits",
        ),
        (lambda: collect([seeded_model(), OwnBuild(seeded_model())], [0, 1]), "of 2 kinds, OwnBuild, Sequential"),
        (
            lambda: vpg.collect_episodes(gym.make("CartPole-v1"), [seeded_model()], [np.random.default_rng(0)]),
            "make_cartpoles",
        ),
        (
            lambda: vpg.collect_episodes(vpg.make_cartpoles(3), [seeded_model()] * 2, [np.random.default_rng(0)] * 2),
            "3 environments",
        ),
    ],
)
def test_bad_input_is_refused_at_once(call, message):
    with pytest.raises(ValueError, match=message):
        call()
