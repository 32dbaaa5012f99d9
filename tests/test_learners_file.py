"""The file in which a learner's functions are kept: nothing is lost, and what is kept runs by itself."""

import runpy
from pathlib import Path

import pytest
from build.edition import seal
from catalogue import read_catalogue, references, run

import vpg_helpers as vpg
from vpg_lab import companion, learner
from vpg_lab.checks import CLAIMS, CheckFailed, NotWrittenYet
from vpg_lab.checks.verdicts import checking
from vpg_lab.learner import go_on, with_my_functions

SIX = {name: source for name, source in references().items() if name in learner.KEPT_FUNCTIONS}
FILE = learner.AGENT.file
HEAD = learner.AGENT.header  # what the set-up cells of the lessons import


@pytest.fixture(autouse=True)
def own_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(learner, "HOME", tmp_path)


def define(source, head=HEAD):
    """Run a cell as a notebook does and return its namespace."""
    namespace = {"__name__": "__main__", "vpg": vpg}
    exec(head, namespace)
    run(source, namespace)
    return namespace


def keep(name, source):
    return learner.keep(name, define(source)[name])


def test_what_is_kept_is_a_program_that_trains(capsys):
    for name, source in SIX.items():
        assert keep(name, source) == "Kept in my_agent.py."
    text = FILE.read_text(encoding="utf-8")
    assert all(source in text for source in SIX.values())
    FILE.write_text(text.replace("epochs=80", "epochs=2, max_timesteps=60"), encoding="utf-8")
    capsys.readouterr()
    runpy.run_path(str(FILE), run_name="__main__")
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["1", "2"] and all(float(line.split()[1]) > 5 for line in lines)
    assert "vpg" not in text


def test_a_hand_edited_program_and_header_stay():
    for name, source in SIX.items():
        keep(name, source)
    FILE.write_text(
        FILE.read_text(encoding="utf-8")
        .replace("epochs=80", "epochs=99")
        .replace("import copy\n", "import copy\nimport csv\n"),
        encoding="utf-8",
    )
    keep(
        "get_action",
        SIX["get_action"]
        .replace("action = ", "rolled = ")
        .replace("action.", "rolled.")
        .replace("(action)", "(rolled)"),
    )
    assert (
        "epochs=99" in FILE.read_text(encoding="utf-8")
        and "import csv" in FILE.read_text(encoding="utf-8")
        and "rolled" in FILE.read_text(encoding="utf-8")
    )


@pytest.mark.parametrize(
    "answer",
    [each for each in read_catalogue("right_answers.txt") if each.exercise in SIX],
    ids=lambda each: each.label,
)
def test_every_right_answer_can_be_kept_and_fetched(answer, monkeypatch):
    if answer.exercise in ("get_action", "train_one_epoch", "train"):  # slow, and judged by test_exercises.py
        monkeypatch.setattr(learner, "check_as", lambda *_: None)
    assert keep(answer.exercise, answer.code) == "Kept in my_agent.py."
    mine = with_my_functions(answer.exercise)
    assert getattr(mine, answer.exercise).__code__.co_filename == str(FILE)


def test_version_before_is_kept_and_equal_ones_are_not_written_again():
    keep("get_policy", SIX["get_policy"])
    first = FILE.read_text(encoding="utf-8")
    keep(
        "get_policy",
        SIX["get_policy"].replace("logits", "preferences", 1).replace("logits=logits", "logits=preferences"),
    )
    second = FILE.read_text(encoding="utf-8")
    assert second != first and Path("my_agent.previous.py").read_text(encoding="utf-8") == first
    keep(
        "get_policy",
        SIX["get_policy"].replace("logits", "preferences", 1).replace("logits=logits", "logits=preferences"),
    )
    assert (
        FILE.read_text(encoding="utf-8") == second and Path("my_agent.previous.py").read_text(encoding="utf-8") == first
    )


def test_interrupted_writing_leaves_the_old_file(monkeypatch):
    keep("get_policy", SIX["get_policy"])
    before = FILE.read_text(encoding="utf-8")

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(learner.os, "replace", fail)
    assert keep("get_action", SIX["get_action"]) == "Not kept: disk full."
    assert FILE.read_text(encoding="utf-8") == before and {path.name for path in Path().iterdir()} == {"my_agent.py"}


@pytest.mark.parametrize("broken", ["def get_policy(:\n", "import no_such_module\n", "1 / 0\n"])
def test_broken_file_is_reported_and_set_aside(broken, capsys):
    for number in (1, 2):
        FILE.write_text(broken, encoding="utf-8")
        mine = with_my_functions("get_policy")
        said = capsys.readouterr().out
        assert "my_agent.py does not run" in said and f"my_agent.broken-{number}.py" in said
        assert "Yours: none. The reference: get_policy." in said
        assert not FILE.exists() and Path(f"my_agent.broken-{number}.py").read_text(encoding="utf-8") == broken
        assert mine.get_policy.__code__.co_filename == vpg.__file__


def test_only_what_defines_something_is_kept():
    source = SIX["create_model"].replace("return nn.Sequential(", "assert LIMIT, string\n    return nn.Sequential(")
    tried = f"import string\nLIMIT = 3\n{source}\n\nmodel = create_model(4, 2)\nprint(model)\n"
    keep("create_model", tried)
    kept = FILE.read_text(encoding="utf-8")
    assert "import string" in kept and "LIMIT = 3" in kept and "print(model)" not in kept and "model = " not in kept


def test_a_function_given_by_assignment_is_kept():
    source = "get_policy = lambda model, observation: Categorical(logits=model(torch.as_tensor(observation)))"
    assert keep("get_policy", source) == "Kept in my_agent.py."


def test_a_function_that_leans_on_another_cell_is_not_kept():
    source = "def get_policy(model, observation):\n    return Categorical(logits=ask(model, observation))"
    assert (
        keep("get_policy", source)
        == "Not kept: get_policy uses ask of elsewhere; define or import it in the cell of get_policy."
    )
    source = "def get_policy(model: Network, observation):\n    return Categorical(logits=model(observation))"
    namespace = define(source, HEAD + "\nNetwork = nn.Module\n")
    said = learner.keep("get_policy", namespace["get_policy"])  # Python 3.14 looks annotations up later
    assert said.startswith("Not kept: ") and "Network" in said
    assert not FILE.exists()


def test_a_function_that_calls_the_helper_module_is_not_kept():
    source = SIX["train_one_epoch"].replace("get_policy(", "vpg.get_policy(")
    assert "write get_policy, say, and not vpg.get_policy" in keep("train_one_epoch", source)


def test_two_cells_with_a_helper_of_the_same_name_are_told_apart():
    helper = "def look(x):\n    return torch.as_tensor(x)\n\n"
    keep("get_policy", helper + SIX["get_policy"].replace("torch.as_tensor(", "look("))
    before, uses = (
        FILE.read_text(encoding="utf-8"),
        SIX["get_action"].replace("return action.numpy()", "return look(action).numpy()"),
    )
    said = keep("get_action", helper.replace("x)\n", "x) + 0\n") + uses)
    assert said == "Not kept: get_action's cell and that of get_policy define look in two ways; rename one."
    assert FILE.read_text(encoding="utf-8") == before
    assert keep("get_action", helper + uses) == "Kept in my_agent.py.", "the same helper twice is no conflict"


def test_a_function_from_nowhere_is_not_kept():
    assert learner.keep("get_policy", len).startswith("Not kept: get_policy was not defined")


def test_all_functions_call_each_other_in_one_namespace():
    """The namespace trap: what is the learner's is used wherever it is called, and the rest is the reference."""
    marked = SIX["get_policy"].replace("    logits =", "    CALLS.append(1)\n    logits =")
    keep("get_policy", "CALLS = []\n" + marked)
    keep("train_one_epoch", SIX["train_one_epoch"])
    mine = with_my_functions("create_model", "get_policy", "train_one_epoch")
    calls = mine.get_policy.__globals__["CALLS"]
    for train in (mine.train, mine.train_seeds):  # the reference's train, and the batches
        calls.clear()
        train(**({"seeds": [0]} if train is mine.train_seeds else {}), epochs=1, max_timesteps=20)
        assert calls
    assert mine.train_one_epoch is not vpg.train_one_epoch and mine.train.__globals__["get_policy"] is mine.get_policy
    assert vpg.get_policy.__globals__ is vars(vpg), "the module itself is left alone"


def test_a_helper_of_the_learner_s_may_have_any_name():
    keep(
        "get_policy",
        "def whole_return(x):\n    return x\n\n"
        + SIX["get_policy"].replace("logits=logits", "logits=whole_return(logits)"),
    )
    mine = with_my_functions("get_policy")
    assert mine.whole_return.__code__.co_filename == vpg.__file__


# --- going on -----------------------------------------------------------------------------------------------


FIRST, SECOND = CLAIMS["get_policy"]


def pass_check(function, *claims):
    for claim in claims or CLAIMS["get_policy"]:
        with checking(function, claim, "get_policy"):
            pass


def test_passed_function_is_kept_and_used(capsys):
    namespace = define(SIX["get_policy"])
    pass_check(namespace["get_policy"])
    mine = namespace["get_policy"]
    go_on("get_policy", namespace, seal("get_policy = None"))
    assert namespace["get_policy"] is mine and FILE.exists()
    assert "get_policy: yours from here on. Kept in my_agent.py." in capsys.readouterr().out


@pytest.mark.parametrize("claims", [(), (FIRST,), (SECOND,)])
def test_function_that_has_not_passed_every_check_makes_way_for_the_reference(claims, capsys):
    namespace = define(SIX["get_policy"])
    if claims:
        pass_check(namespace["get_policy"], *claims)
    go_on("get_policy", namespace, seal("get_policy = 'reference'"))
    assert namespace["get_policy"] == "reference" and not FILE.exists()
    assert "get_policy: the reference from here on" in capsys.readouterr().out


def test_a_check_that_fails_later_takes_the_pass_back():
    namespace = define(SIX["get_policy"])
    pass_check(namespace["get_policy"])
    with pytest.raises(CheckFailed), checking(namespace["get_policy"], FIRST, "get_policy"):
        raise AssertionError("no")
    go_on("get_policy", namespace, seal("get_policy = 'reference'"))
    assert namespace["get_policy"] == "reference"


def test_a_rewritten_function_must_pass_again():
    namespace = define(SIX["get_policy"])
    pass_check(namespace["get_policy"])
    run(SIX["get_policy"] + "\n", namespace)
    go_on("get_policy", namespace, seal("get_policy = 'reference'"))
    assert namespace["get_policy"] == "reference"


def test_reference_does_not_pass_for_the_learner_s(capsys):
    namespace = define(SIX["get_policy"])
    go_on("get_policy", namespace, seal(SIX["get_policy"]))
    with pytest.raises(NotWrittenYet, match="get_policy: not written yet; this is the reference"):
        pass_check(namespace["get_policy"])
    go_on("get_policy", namespace, seal(SIX["get_policy"]))
    assert "yours from here on" not in capsys.readouterr().out and not FILE.exists()


@pytest.mark.parametrize(
    ("error", "remark"),
    [
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), "a layer takes as many numbers"),
        (
            TypeError("only one element tensors can be converted to Python scalars"),
            "it is handed a batch; that takes one number",
        ),
    ],
)
def test_puzzling_errors_get_a_remark(error, remark):
    with pytest.raises(CheckFailed, match=remark), checking(len, "counts", "len"):
        raise error


def test_a_file_written_by_an_earlier_version_is_read():
    """The form of the file is a promise: what was kept in spring is used in autumn."""
    sections = [
        f"\n# ---- {name} ----\n\n{source}\n"
        for name, source in SIX.items()
        if name in ("get_policy", "calculate_loss")
    ]
    FILE.write_text(
        '"""My own agent."""\n\nimport torch\nfrom torch import *\n' + HEAD + "".join(sections), encoding="utf-8"
    )
    mine = with_my_functions("create_model", "get_policy", "calculate_loss")
    own = [name for name in SIX if getattr(mine, name).__code__.co_filename == str(FILE)]
    assert own == ["get_policy", "calculate_loss"]
    assert keep("get_action", SIX["get_action"]) == "Kept in my_agent.py."
    assert all(SIX[name] in FILE.read_text(encoding="utf-8") for name in ("get_policy", "calculate_loss", "get_action"))


def test_learners_functions_are_put_into_the_algorithm_alone():
    keep("get_policy", SIX["get_policy"])
    mine = with_my_functions("get_policy")
    assert {name for name in vars(mine) if not name.startswith("__")} == {
        name for name in vars(vpg) if not name.startswith("__")
    }


def test_lesson_8_s_functions_have_a_file_of_their_own_and_train_together():
    for name in learner.VPG.names:
        namespace = {"__name__": "__main__"}
        exec(learner.VPG.header, namespace)
        namespace |= {each: getattr(companion, each) for each in learner.VPG.given + learner.VPG.names}
        run(references()[name], namespace)
        assert learner.keep(name, namespace[name]) == "Kept in my_vpg.py."
    assert not FILE.exists()
    mine = with_my_functions("gae", "finish_path", "train_vpg")
    assert mine.train_vpg.__code__.co_filename == mine.gae.__code__.co_filename == "my_vpg.py"
    assert mine.finish_paths.__globals__["finish_path"] is mine.finish_path
    assert mine.train_vpg.__globals__["finish_paths"] is mine.finish_paths
    assert mine.discount_cumsum is not companion.discount_cumsum, "it was not asked for"
