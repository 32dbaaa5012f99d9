"""Every known mistake hears its own sentence: the checks' tables of mistakes are wrong answers, and each is tried."""

import inspect

import pytest
from catalogue import Stage

from vpg_lab.checks.expect import MISTAKES, make_mistake
from vpg_lab.checks.verdicts import CheckFailed


def verdicts(stage, answer):
    """Return what the checks of an exercise say of a function."""
    namespace, said = stage.open(), []
    answer.__name__ = stage.exercise
    answer.__signature__ = inspect.signature(namespace[stage.exercise])  # its first line, and not `*inputs`
    namespace[stage.exercise] = answer
    for check in stage.checks:
        try:
            exec(check, namespace)
        except CheckFailed as failure:
            said.append(str(failure))
    return said


@pytest.mark.parametrize("exercise", MISTAKES)
def test_every_known_mistake_hears_its_own_sentence(exercise):
    stage = Stage(exercise)
    for table in MISTAKES[exercise]:
        sentences = []

        def look(*inputs, table=table, sentences=sentences):
            sentences[:] = sentences or table(*inputs)
            raise ValueError("only looking")

        verdicts(stage, look)
        assert len(sentences) >= 2
        for sentence in sentences:
            said = verdicts(stage, make_mistake(table, sentence))
            assert any(each.endswith(f": {sentence}") for each in said), (sentence, said)
