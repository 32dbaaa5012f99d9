"""Somebody brings a tutorial's six functions along: faults are named, and matters of taste pass."""

import re

import pytest
from catalogue import FOLDER, Stage, run

from vpg_lab.checks import CLAIMS, CheckFailed

PROGRAM = (FOLDER / "article_program.txt").read_text(encoding="utf-8")
FAULTS = {  # exercise -> claim -> what is said of it
    "create_model": {"": r"leave its first line as it is"},
    "get_action": {"": r"takes one action and a batch of them|it is handed a batch"},
    "train_one_epoch": {
        "plays whole episodes to the budget": "one episode too many, the budget was met",
        "ends an episode that is truncated, too": "stop with the first whole episode that meets the budget",  # at times
    },
    "train": {"calls the watcher after every epoch": "it prints 'epoch 1: .*watching is the watcher's work"},
}
MENDED = {
    "def create_model(number_observation_features, number_actions):": (
        "def create_model(number_observation_features, number_actions, hidden_units=32):"
    ),
    "number_observation_features, 32)": "number_observation_features, hidden_units)",
    "nn.Linear(32,": "nn.Linear(hidden_units,",
    "action.item()": "action.numpy()",
    "steps_played > max_timesteps": "steps_played >= max_timesteps",
    '        print(f"epoch {epoch + 1}: {mean_return:.1f}")\n': "",
}
SIX = ["create_model", "get_policy", "get_action", "calculate_loss", "train_one_epoch", "train"]


def verdicts(exercise, program):
    """Return what every claim says of a function of a program, all six of which the notebook holds."""
    stage, said = Stage(exercise), {}
    namespace = stage.open()
    run(program, namespace)
    for claim, check in zip(CLAIMS[exercise], stage.checks, strict=True):
        said[claim] = ""
        try:
            run(check, namespace)
        except CheckFailed as failure:
            said[claim] = str(failure)
    return said


@pytest.mark.parametrize("exercise", SIX)
def test_a_tutorial_s_function_passes_or_hears_its_fault(exercise):
    faults = FAULTS.get(exercise, {})
    said = verdicts(exercise, PROGRAM)
    for claim, verdict in said.items():
        expected = faults.get(claim, faults.get("", ""))
        assert re.search(expected, verdict) if expected and verdict else verdict == "", (claim, verdict)
    assert any(said.values()) == bool(faults)


@pytest.mark.parametrize("exercise", SIX)
def test_with_its_faults_mended_the_program_passes(exercise):
    program = PROGRAM
    for line, right in MENDED.items():
        assert program.count(line) == 1, line
        program = program.replace(line, right)
    assert not any(verdicts(exercise, program).values())
