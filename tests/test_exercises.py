"""The checks judge right: every wrong answer refused with its own message, every right one accepted."""

import functools
import re
import time
import warnings

import pytest
from catalogue import Stage, change, read_catalogue, references
from make_exercises import LESSONS, blank, questions_of, read, seal_question

import vpg_helpers as vpg

WRONG, RIGHT = read_catalogue("wrong_answers.txt"), read_catalogue("right_answers.txt")
QUESTIONS = [question for path in LESSONS for question in questions_of(read(path))]
stage_of = functools.cache(Stage)


def identify(answer):
    return f"{answer.exercise}: {answer.label}"


@pytest.mark.parametrize("answer", WRONG, ids=identify)
def test_wrong_answer_is_refused_with_its_own_message(answer):
    assert answer.said, "a wrong answer needs the message that it is to get"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the mistakes that PyTorch itself frowns at
        failures = [said for said in stage_of(answer.exercise).judge(answer.code) if said]
    assert failures and re.search(answer.said, failures[0]), failures
    assert failures[0].startswith(f"{answer.exercise}: ") and len(failures[0]) < 500


@pytest.mark.parametrize("answer", RIGHT, ids=identify)
def test_right_answer_in_another_style_is_accepted(answer):
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # nbgrader takes anything on stderr for a failure
        assert not any(stage_of(answer.exercise).judge(answer.code))


@pytest.mark.parametrize("exercise", references())
def test_lesson_s_own_answer_is_accepted_within_the_time(exercise):
    stage = stage_of(exercise)
    start = time.perf_counter()
    assert not any(stage.judge(references()[exercise]))
    # No benchmark: a check that takes ten times what it should would stop a lesson.
    assert time.perf_counter() - start < 20 * len(stage.checks)


@pytest.mark.parametrize("exercise", references())
def test_blank_is_not_written_yet(exercise):
    said = stage_of(exercise).judge(blank(references()[exercise]))
    assert said == [f"{exercise}: not written yet"] * len(said)


def test_catalogues_are_large_and_cover_every_exercise():
    assert len(WRONG) >= 60 and len(RIGHT) >= 25
    for exercise in references():
        assert sum(answer.exercise == exercise for answer in WRONG) >= 6, exercise
        assert sum(answer.exercise == exercise for answer in RIGHT) >= 2, exercise
    assert len({identify(answer) for answer in WRONG + RIGHT}) == len(WRONG + RIGHT)


def test_a_change_that_does_not_fit_is_reported():
    with pytest.raises(ValueError, match="occurs 0 times"):
        change("a = 1\nb = 2", "- c = 3\n+ c = 4")
    assert change("a = 1\nb = 2\nc = 3", "- b = 2\n+ b = 4\n- c = 3") == "a = 1\nb = 4"


@pytest.mark.parametrize("question", QUESTIONS, ids=lambda question: question["name"])
def test_question_takes_the_right_choice_and_says_why_others_are_wrong(question, capsys):
    sealed = seal_question(question)
    for choice, sentence in question["choices"].items():
        if choice == question["answer"]:
            vpg.judge("name", choice.upper() + " ", sealed)
            assert capsys.readouterr().out == f"Right. {sentence}\n"
        else:
            with pytest.raises(vpg.CheckFailed, match=re.escape(f'name: not "{choice}". {sentence}')):
                vpg.judge("name", choice, sealed)
    with pytest.raises(vpg.NotWrittenYet, match="not written yet; put one of"):
        vpg.judge("name", ..., sealed)
    with pytest.raises(vpg.CheckFailed, match="got 'something else'; write one of"):
        vpg.judge("name", "something else", sealed)


# --- the verdict itself -------------------------------------------------------------------------------------


def test_interrupt_is_no_verdict_and_an_endless_loop_runs_once():
    def endless():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), vpg.checking(endless):
        endless()
    with pytest.raises(vpg.CheckFailed, match="endless: it was interrupted before"), vpg.checking(endless, "ends"):
        endless()


def test_verdict_is_one_line_in_a_notebook():
    with pytest.raises(vpg.CheckFailed) as caught, vpg.checking(len):
        raise AssertionError("expected 1, got 2")
    assert caught.value._render_traceback_() == ["CheckFailed: len: expected 1, got 2"]


def test_error_outside_the_learner_s_cell_is_told_apart():
    with pytest.raises(vpg.CheckFailed, match="len: what it returns cannot be used: AttributeError.*gives None"):
        with vpg.checking(len):
            None.shape  # noqa: B018
