"""The checks judge right: every wrong answer refused with its own message, every right one accepted."""

import ast
import collections
import functools
import inspect
import random
import re
import sys
import time
import warnings

import numpy as np
import pytest
from build.edition import seal_question
from build.lessons import LESSONS, questions_of, read
from catalogue import FOLDER, Stage, change, read_catalogue, references, run

sys.path.append(str(FOLDER / "benchmarks"))
import mutants

import vpg_helpers
from vpg_lab import learner
from vpg_lab.checks import CLAIMS, CheckFailed, NotWrittenYet, check, judge
from vpg_lab.checks.verdicts import checking, claim
from vpg_lab.progress import blank

pytestmark = pytest.mark.usefixtures("ipython")  # as learners run them
WRONG, RIGHT = read_catalogue("wrong_answers.txt"), read_catalogue("right_answers.txt")
QUESTIONS = [question for path in LESSONS for question in questions_of(read(path))]
stage_of = functools.cache(Stage)
# Playing and drawing take time: of these one answer in so many is judged, all of them with -m slow and in
# benchmarks/verdicts.py.
JUDGED = {"train_one_epoch": 10, "train": 15} | dict.fromkeys(
    ("get_action", "play_episode", "trajectory_probability", "bootstrap_interval"), 4
)


def identify(answer):
    return f"{answer.exercise}: {answer.label}"


def cases(answers):
    numbers = collections.Counter()
    for answer in answers:
        marks = pytest.mark.slow if numbers[answer.exercise] % JUDGED.get(answer.exercise, 1) else ()
        numbers[answer.exercise] += 1
        yield pytest.param(answer, id=identify(answer), marks=marks)


@pytest.mark.parametrize("answer", [*cases(WRONG)])
def test_wrong_answer_is_refused_with_its_own_message(answer):
    assert answer.said, "a wrong answer needs the message that it is to get"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the mistakes that PyTorch itself frowns at
        verdicts = [*stage_of(answer.exercise).judge(answer.code)]
    said = next(filter(None, verdicts), "")
    assert re.search(answer.said, said), said
    for verdict in filter(None, verdicts):  # of every claim, since the edition has a cell for each
        assert verdict.startswith(f"{answer.exercise}: ") and len(verdict) < 500
        raw = re.search(r"cannot be used: (Attribute|Index|Key|Type|Value|ZeroDivision)Error", verdict)
        assert not raw, f"a claim asks for type and shape before it uses them: {verdict}"


@pytest.mark.parametrize("answer", [*cases(RIGHT)])
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


@pytest.mark.parametrize("exercise", sorted({*references()} - {*JUDGED}))
def test_line_ends_of_windows_cost_nothing(exercise):
    assert not any(stage_of(exercise).judge(references()[exercise].replace("\n", "\r\n")))


@pytest.mark.parametrize("exercise", references())
def test_blank_is_not_written_yet(exercise):
    said = list(stage_of(exercise).judge(blank(references()[exercise])))
    assert said == [f"{exercise}: not written yet"] * len(CLAIMS[exercise])


def test_no_answer_stands_twice_under_one_name():
    assert len({identify(answer) for answer in WRONG + RIGHT}) == len(WRONG + RIGHT)


GET_POLICIES = [answer for answer in RIGHT if answer.exercise == "get_policy"]
MEET_GET_POLICY = ("take_one_gradient_step", "train_vpg", "log_probability_surplus", "sum_of_log_policy")


@pytest.mark.parametrize("exercise", MEET_GET_POLICY)
@pytest.mark.parametrize("answer", GET_POLICIES, ids=lambda answer: answer.label)
def test_a_right_get_policy_makes_no_later_check_refuse_the_reference(answer, exercise, monkeypatch):
    """In the exercise edition `vpg` holds the learner's own functions of earlier lessons."""
    module = learner._load_module(learner.AGENT)
    namespace = {"__name__": "__main__"}
    exec(learner.AGENT.header, namespace)
    run(answer.code, namespace)
    module.get_policy = namespace["get_policy"]
    monkeypatch.setitem(sys.modules, "vpg_helpers", module)
    assert not any(stage_of(exercise).judge(references()[exercise]))


@pytest.mark.parametrize("exercise", ["get_policy", "sum_of_log_policy", "calculate_loss", "reward_to_go"])
def test_no_small_change_of_the_lesson_s_own_function_goes_unnoticed(exercise):
    equal = mutants.equal_mutants()
    changed = random.Random(exercise).sample(mutants.mutants_of(exercise, references()[exercise]), 10)
    for mutant, said in zip(changed, mutants.verdicts(exercise, changed), strict=True):
        assert bool(said) != (mutant[:2] in equal), mutant.change


def test_a_change_that_does_not_fit_is_reported():
    with pytest.raises(ValueError, match="occurs 0 times"):
        change("a = 1\nb = 2", "- c = 3\n+ c = 4")
    assert change("a = 1\nb = 2\nc = 3", "- b = 2\n+ b = 4\n- c = 3") == "a = 1\nb = 4"


@pytest.mark.parametrize("question", QUESTIONS, ids=lambda question: question["name"])
def test_question_takes_the_right_choice_and_says_why_others_are_wrong(question, capsys):
    sealed = seal_question(question)
    for choice, sentence in question["choices"].items():
        if choice == question["answer"]:
            judge("name", choice.upper() + " ", sealed)
            assert capsys.readouterr().out == f"Right. {sentence}\n"
        else:
            with pytest.raises(CheckFailed, match=re.escape(f'name: not "{choice}". {sentence}')):
                judge("name", choice, sealed)
    with pytest.raises(NotWrittenYet, match="not written yet; put one of"):
        judge("name", ..., sealed)
    with pytest.raises(CheckFailed, match="got 'something else'; write one of"):
        judge("name", "something else", sealed)


# --- the verdict itself -------------------------------------------------------------------------------------


def test_interrupt_is_no_verdict_and_an_endless_loop_runs_once():
    def count_parameters(*sizes):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        check(count_parameters)
    with pytest.raises(CheckFailed, match="count_parameters: it was interrupted before"):
        check(count_parameters)


def test_verdict_is_one_line_in_a_notebook():
    with pytest.raises(CheckFailed) as caught, checking(len, "counts", "len"):
        raise AssertionError("expected 1, got 2")
    assert caught.value._render_traceback_() == ["CheckFailed: len: expected 1, got 2"]


def test_error_outside_the_learner_s_cell_is_told_apart():
    with pytest.raises(CheckFailed, match="len: what it returns cannot be used: AttributeError"):
        with checking(len, "counts", "len"):
            None.shape  # noqa: B018


def test_check_tells_what_held_claim_by_claim(capsys):
    reward_to_go = lambda rewards: np.cumsum(rewards[::-1])[::-1]  # noqa: E731
    reward_to_go.__name__ = "reward_to_go"
    check(reward_to_go)
    assert capsys.readouterr().out == "reward_to_go does what it should\n"

    def calculate_loss(log_probabilities, weights):
        return -(log_probabilities * weights).mean()

    check(calculate_loss)
    first, second = CLAIMS["calculate_loss"]
    assert capsys.readouterr().out == f"calculate_loss {first}\ncalculate_loss {second}\n"
    check(calculate_loss, second)
    assert capsys.readouterr().out == f"calculate_loss {second}\n"


def test_check_finds_an_exercise_under_the_name_that_the_notebook_gives_it(capsys):
    namespace = {"check": check, "np": np}
    exec("reward_to_go = lambda rewards: np.cumsum(rewards[::-1])[::-1]\ncheck(reward_to_go)", namespace)
    assert capsys.readouterr().out == "reward_to_go does what it should\n"


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: check(len), ValueError, "len is no exercise; give one of count_parameters, create_model"),
        (lambda: check(vpg_helpers.get_policy, "flies"), ValueError, "get_policy has no claim 'flies'; give one of"),
        (
            lambda: check(trajectory_probability),
            TypeError,
            r"was given \[\] of the lesson; it needs \['trajectories'\]",
        ),
        (
            lambda: check(vpg_helpers.get_policy, model=1),
            TypeError,
            r"was given \['model'\] of the lesson; it needs \[\]",
        ),
    ],
)
def test_a_check_that_cannot_be_run_is_refused_at_once(call, error, message):
    with pytest.raises(error, match=message):
        call()


def trajectory_probability(model, trajectory):
    """A function of an exercise whose check needs something of the lesson."""


def test_a_second_claim_in_the_same_words_is_refused():
    before = dict(CLAIMS["reward_to_go"])
    with pytest.raises(ValueError, match="reward_to_go has a claim 'does what it should' already"):
        claim("reward_to_go")(len)
    assert CLAIMS["reward_to_go"] == before


def test_a_claim_asserts_and_says_what_is_wrong():
    for function in [each for claims in CLAIMS.values() for each in claims.values()]:
        tree = ast.parse(inspect.getsource(function))
        asserts = [node for node in ast.walk(tree) if isinstance(node, ast.Assert)]
        expectations = [node for node in ast.walk(tree) if getattr(node, "id", "").startswith("expect_")]
        raised = [node.exc for node in ast.walk(tree) if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call)]
        assert asserts or expectations or raised
        assert all(node.msg is not None for node in asserts)
        assert all(each.func.id == "AssertionError" and each.args for each in raised)


def test_every_exercise_of_the_lessons_has_claims_and_no_other():
    assert list(CLAIMS) == list(references())
    assert set(learner.KEPT_FUNCTIONS) < set(CLAIMS)
