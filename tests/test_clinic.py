"""Lesson 10's clinic: the reference doctor on runs that no threshold was set with, and what the runs rest on."""

import numpy as np
import pytest
import torch
from catalogue import Stage
from torch.distributions import Categorical

import vpg_helpers as vpg
from vpg_lab import clinic


@pytest.fixture(scope="module")
def lesson():
    return Stage("diagnose").open()


@pytest.fixture(scope="module")
def fresh(lesson):
    """A run of every bug, and three of the healthy and of the slow recipe."""
    sizes = {"healthy": 3, "slow": 3}
    return {
        name: lesson["make_runs"](recipe, range(2_000, 2_000 + sizes.get(name, 1)))
        for name, recipe in clinic.RECIPES.items()
    }


def test_the_reference_names_the_bugs_and_accuses_nobody(lesson, fresh):
    said = {name: [lesson["diagnose"](run) for run in some] for name, some in fresh.items()}
    assert {*said.pop("healthy"), *said.pop("slow")} == {"healthy"}
    assert sum(answers == [bug] for bug, answers in said.items()) >= 12, said


@pytest.mark.parametrize("name", [*clinic.RECIPES, *clinic.SILENT])
def test_every_recipe_but_the_healthy_one_differs_from_it_in_one_piece(name):
    recipe = (clinic.RECIPES | clinic.SILENT)[name]
    changed = [place for place, right in clinic.sound._asdict().items() if getattr(recipe, place) is not right]
    assert len(changed) == (name != "healthy")


def test_a_run_is_decided_by_its_seed(lesson, fresh):
    again = lesson["make_runs"](clinic.sound, [2_000, 7])
    assert np.array_equal(again[0].mean_return[:3], fresh["healthy"][0].mean_return[:3])
    assert not np.array_equal(again[1].mean_return, again[0].mean_return)


def test_a_probe_s_sound_value_is_exact_where_the_lesson_says_so(fresh):
    for run in [*fresh["healthy"], *fresh["slow"]]:
        assert not run.gap.any() and (run.start <= 0.05).all() and (run.gain > 0).all()
        assert np.allclose(run.cosine, 1, atol=1e-4) and np.allclose(run.surest, 1)
        assert (np.abs(run.surplus) < 0.03).all() and (run.moved > 0).all()


def test_an_unsqueezed_critic_cannot_fall_below_the_variance_of_its_targets():
    values, targets = torch.randn(30, 1, dtype=torch.float64), torch.randn(30, dtype=torch.float64)
    least = targets.var(correction=0)
    expected = (values - targets.mean()).square().mean() + least
    assert torch.isclose(clinic.n_by_n_value_loss(values, targets), expected)
    best = torch.full((30, 1), targets.mean().item(), dtype=torch.float64)
    assert torch.isclose(clinic.n_by_n_value_loss(best, targets), least)


@pytest.fixture(scope="module")
def epoch():
    ((first,),) = clinic.train(clinic.sound, [0], epochs=1)
    return first


def test_records_of_reset_steps_and_of_late_rewards_are_what_they_are_called(epoch):
    played = epoch.played
    longer, noted = clinic.with_reset_steps(epoch.before, played)
    assert len(noted) == len(longer.rewards) == len(played.rewards) + len(played.lengths)
    assert [values[-1] for values in longer.split(longer.rewards)] == [0] * len(played.lengths)
    assert np.array_equal(longer.returns, played.returns)
    late, _ = clinic.late_rewards(epoch.before, played)
    assert {values[0] for values in late.split(late.rewards)} == {0} and late.rewards.dtype == np.float32
    assert np.array_equal(late.returns, played.returns - 1)


def test_the_clipped_loss_has_the_policy_gradient_first_and_none_where_a_ratio_has_gone_far():
    logits, actions = torch.zeros(3, 2, requires_grad=True), torch.tensor([0, 1, 1])
    weights = torch.tensor([2.0, -1.0, 3.0])

    def gradient(loss, noted):
        return torch.autograd.grad(loss(Categorical(logits=logits), actions, weights, noted.log()), logits)[0]

    played = torch.full((3,), 0.5)
    assert torch.allclose(gradient(clinic.policy_loss, played), gradient(clinic.clipped_loss, played))
    # The ratios are 2, 2 and ½: the first has gone far enough; the other two have gone where their weights do not push.
    assert gradient(clinic.clipped_loss, torch.tensor([0.25, 0.25, 1.0])).any(dim=1).tolist() == [False, True, True]


def test_the_group_s_baseline_weighs_episodes_alike_and_survives_equal_returns():
    episodes = vpg.Episodes(None, None, np.ones(9, np.float32), np.array([1, 3, 5]), None, None)
    weights = clinic.group_baseline(None, episodes)
    assert torch.allclose(weights, torch.tensor([-1.0] + 3 * [0.0] + 5 * [1.0]))
    equal = episodes._replace(rewards=np.ones(6, np.float32), lengths=np.array([3, 3]))
    assert not clinic.group_baseline(None, equal).any()


def test_shares_outside_counts_epochs_beyond_the_sound_ones():
    """The first number leaves 0 to 2 in one of four epochs, the second 5 to 6 in two; rounding is no leaving."""
    sound = np.array([[[0.0, 1.0, 2.0, 1.0], [5.0, 5.0, 5.0, 6.0]]])
    run = np.array([[[-0.1, 0.0, 2.0, 2.00001], [7.0, 8.0, 6.0, 4.99999]]])
    assert clinic.shares_outside(run, sound).tolist() == [0.25, 0.5]
    assert clinic.shares_outside(np.concatenate([run, sound]), sound).tolist() == [0.125, 0.25]
