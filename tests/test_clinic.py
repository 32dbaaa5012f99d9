"""Lesson 10's clinic: the reference doctor on runs that no threshold was set with, and what the runs rest on."""

import numpy as np
import pytest
import torch
from catalogue import Stage


@pytest.fixture(scope="module")
def lesson():
    return Stage("diagnose").open()


@pytest.fixture(scope="module")
def fresh(lesson):
    """A run of every bug, and three of the healthy and of the slow recipe."""
    sizes = {"healthy": 3, "slow": 3}
    return {
        name: lesson["make_runs"](recipe, range(2_000, 2_000 + sizes.get(name, 1)))
        for name, recipe in lesson["RECIPES"].items()
    }


def test_the_reference_names_the_bugs_and_accuses_nobody(lesson, fresh):
    said = {name: [lesson["diagnose"](run) for run in some] for name, some in fresh.items()}
    assert {*said.pop("healthy"), *said.pop("slow")} == {"healthy"}
    assert sum(answers == [bug] for bug, answers in said.items()) >= 12, said


def test_every_recipe_but_the_healthy_one_differs_from_it_in_one_piece(lesson):
    for name, recipe in lesson["RECIPES"].items():
        changed = [field for field in recipe._fields if getattr(recipe, field) is not getattr(lesson["sound"], field)]
        assert len(changed) == (name != "healthy"), name


def test_a_run_is_decided_by_its_seed(lesson, fresh):
    again = lesson["make_runs"](lesson["sound"], [2_000, 7])
    assert np.array_equal(again[0].mean_return[:3], fresh["healthy"][0].mean_return[:3])
    assert not np.array_equal(again[1].mean_return, again[0].mean_return)


def test_a_probe_s_sound_value_is_exact_where_the_lesson_says_so(fresh):
    for run in [*fresh["healthy"], *fresh["slow"]]:
        assert not run.gap.any() and (run.start <= 0.05).all() and (run.gain > 0).all()
        assert np.allclose(run.cosine, 1, atol=1e-4) and np.allclose(run.surest, 1)
        assert (np.abs(run.surplus) < 0.03).all() and (run.moved > 0).all()


def test_an_unsqueezed_critic_cannot_fall_below_the_variance_of_its_targets(lesson):
    values, targets = torch.randn(30, 1, dtype=torch.float64), torch.randn(30, dtype=torch.float64)
    least = targets.var(correction=0)
    expected = (values - targets.mean()).square().mean() + least
    assert torch.isclose(lesson["n_by_n_value_loss"](values, targets), expected)
    best = torch.full((30, 1), targets.mean().item(), dtype=torch.float64)
    assert torch.isclose(lesson["n_by_n_value_loss"](best, targets), least)
