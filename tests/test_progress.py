"""Where a learner stands, how one exercise begins anew, and what is shown once all six functions are theirs."""

import re
import threading
import types

import nbformat
import pytest
from build.lessons import EDITION, has_tag, read
from catalogue import references, run

from vpg_lab import learner, progress

NAMES = learner.KEPT_FUNCTIONS
PRINTED = [nbformat.from_dict({"output_type": "stream", "name": "stdout", "text": "create_model does what it should"})]
FAILED = [nbformat.v4.new_output("error", ename="CheckFailed", evalue="no")]


@pytest.fixture(autouse=True)
def own_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(learner, "HOME", tmp_path)
    monkeypatch.setattr(progress, "passed", {})


@pytest.fixture
def kernel(monkeypatch):
    """A kernel's own names; what is put there is what the learner's cells have defined."""
    names = {}
    monkeypatch.setattr(progress, "get_ipython", lambda: types.SimpleNamespace(user_ns=names))
    return names


def save(tmp_path, name, **outputs):
    """Save a notebook of the edition whose checks have these outputs, by the id under which they are graded."""
    notebook = read(EDITION / name)
    for cell in notebook.cells:
        if has_tag(cell, "check"):
            cell.outputs = outputs.get(cell.metadata.nbgrader.grade_id, outputs.get("others", []))
    nbformat.write(notebook, tmp_path / name)


def keep(*names):
    """Write functions of the agent as the learner's file has them."""
    sections = [f"# ---- {name} ----\n\n{references()[name]}\n\n# ---- end of {name} ----\n" for name in names]
    learner.AGENT.file.write_text(learner.AGENT.header + "\n\n" + "\n\n".join(sections), encoding="utf-8")


# --- progress ---------------------------------------------------------------------------------------------


def test_a_line_a_notebook_says_what_its_saved_checks_say(tmp_path, capsys):
    save(tmp_path, "01_model.ipynb", others=PRINTED)
    save(tmp_path, "02_policy.ipynb", others=PRINTED, check_get_policy_1=FAILED, check_who_gains_from_5=FAILED)
    save(tmp_path, "03_action.ipynb")
    keep("create_model")
    progress.progress()
    first, second, third, kept, following = capsys.readouterr().out.splitlines()
    # The teachers' table: lesson 1 gives 15 points, lesson 2 too; one of them is for the question.
    assert first.split(maxsplit=2)[2] == "2 of 2 functions, 5 of 5 questions, 15 of 15 points"
    worth = {
        cell.metadata.nbgrader.grade_id: cell.metadata.nbgrader.get("points", 0) for cell in graded("02_policy.ipynb")
    }
    points = 15 - worth["check_get_policy_1"] - worth["check_who_gains_from_5"]
    assert second.startswith("2. Policy ") and second.endswith(
        f"1 of 2 functions, 4 of 5 questions, {points} of 15 points"
    )
    assert third.endswith("0 of 3 functions, 0 of 5 questions, 0 of 23 points")
    assert kept == "Kept in my_agent.py: create_model." and following == "Next: get_policy, in 02_policy.ipynb."


def graded(name):
    return [cell for cell in read(EDITION / name).cells if "nbgrader" in cell.metadata]


def test_what_passed_in_this_kernel_counts_before_it_is_saved(tmp_path, capsys, monkeypatch):
    save(tmp_path, "01_model.ipynb")

    def create_model():
        pass

    monkeypatch.setattr(progress, "passed", {create_model: {*progress.CLAIMS["create_model"]}})
    progress.progress()
    line, following = capsys.readouterr().out.splitlines()
    assert "1 of 2 functions" in line and following.startswith("Next: count_parameters, in")


def test_everything_done_and_nothing_there_are_said(tmp_path, capsys):
    progress.progress()
    assert "No exercise notebook lies in this folder" in capsys.readouterr().out
    save(tmp_path, "06_learning_curves.ipynb", others=PRINTED)
    progress.progress()
    assert capsys.readouterr().out.splitlines()[-1] == "Every function of every notebook here is done."


# --- begin anew -------------------------------------------------------------------------------------------


def test_beginning_anew_gives_the_blank_and_loses_nothing(capsys, kernel):
    keep("create_model", "get_policy")
    for number in (1, 2):
        progress.begin_anew("get_policy")
        said, _, given = capsys.readouterr().out.partition("\n\n")
        (cell,) = [cell for cell in graded("02_policy.ipynb") if cell.metadata.nbgrader.grade_id == "get_policy"]
        assert given == cell.source + "\n"
        assert said.startswith(f"my_agent.get_policy-{number}.py has your version; my_agent.py has none now.")
        with open(f"my_agent.get_policy-{number}.py", encoding="utf-8") as aside:
            assert references()["get_policy"] in aside.read()
        text = learner.AGENT.file.read_text(encoding="utf-8")
        assert references()["create_model"] in text and "get_policy" not in text
        compile(text, "my_agent.py", "exec")
        keep("create_model", "get_policy")


@pytest.mark.parametrize("name", ["count_parameters", "GaussianActor"])
def test_what_is_not_kept_begins_anew_too(capsys, kernel, name):
    exec(learner.VPG.header + "from torch.distributions import Distribution, Independent, Normal", kernel)
    run(f"import math\n\n{references()[name]}\n\nlast = 1", kernel)
    progress.begin_anew(name)
    said = capsys.readouterr().out
    assert said.startswith(f"Put this into the cell of {name}, and run it:")
    assert progress.blank(references()[name]) in said and "NotImplementedError" in said


def test_an_exercise_that_is_none_or_was_not_run_is_refused(kernel):
    with pytest.raises(ValueError, match="'get_polcy' is no exercise; give one of count_parameters, create_model, "):
        progress.begin_anew("get_polcy")
    with pytest.raises(ValueError, match="get_policy was not run here yet, so its cell is as it was"):
        progress.begin_anew("get_policy")


def test_files_of_older_versions_and_of_windows_are_read(capsys, kernel):
    """Sections had no line at their end once, and some editors begin a file with a byte order mark."""
    keep("create_model", "get_policy")
    text = learner.AGENT.file.read_text(encoding="utf-8")
    older = re.sub(r"# ---- end of .*\n", "", text)
    learner.AGENT.file.write_text(older, encoding="utf-8-sig")
    progress.progress()
    assert "Kept in my_agent.py: create_model, get_policy." in capsys.readouterr().out
    progress.begin_anew("create_model")
    left = learner.AGENT.file.read_text(encoding="utf-8")
    assert "create_model" not in left and references()["get_policy"] in left
    with open("my_agent.create_model-1.py", encoding="utf-8") as aside:
        assert references()["create_model"] in aside.read()


def test_a_file_that_is_no_python_is_named_and_left_as_it_is(capsys, kernel):
    keep("create_model")
    broken = learner.AGENT.file.read_text(encoding="utf-8").replace("def create_model(", "def create_model")
    learner.AGENT.file.write_text(broken, encoding="utf-8")
    progress.progress()
    assert re.search(r"my_agent.py is no Python in line \d+ \(.+\); mend it there", capsys.readouterr().out)
    with pytest.raises(ValueError, match=r"my_agent.py is no Python in line \d+ \(.+\); mend it there"):
        progress.begin_anew("create_model")
    assert learner.AGENT.file.read_text(encoding="utf-8") == broken


def test_beginning_anew_waits_for_another_notebook_that_writes(kernel):
    keep("create_model", "get_policy")
    with learner._locked(learner.AGENT.file):
        waiting = threading.Thread(target=learner.set_aside, args=["get_policy"])
        waiting.start()
        waiting.join(0.3)
        assert waiting.is_alive() and [*learner.kept_in(learner.AGENT)] == ["create_model", "get_policy"]
    waiting.join(5)
    assert [*learner.kept_in(learner.AGENT)] == ["create_model"]


# --- six of six -------------------------------------------------------------------------------------------


def test_what_lacks_is_named_and_six_of_six_play(capsys):
    keep(*NAMES[:5])
    assert progress.celebrate() is None
    assert capsys.readouterr().out == (
        "5 of 6 functions are kept in my_agent.py. Once train is, your agent plays here.\n"
    )
    keep(*NAMES)
    animation = progress.celebrate(epochs=2)
    assert animation.png[:4] == b"\x89PNG" and "Your own agent" in animation.description
    assert capsys.readouterr().out.startswith("Six of six. Your own functions learned this in ")


def test_it_is_the_learner_s_functions_that_play(capsys):
    """A policy that ignores its model learns nothing, whatever the loop around it does."""
    keep(*NAMES)
    text = learner.AGENT.file.read_text(encoding="utf-8")
    steps = []
    for policy in ("Categorical(logits=logits)", "Categorical(logits=0 * logits)"):
        learner.AGENT.file.write_text(text.replace("Categorical(logits=logits)", policy), encoding="utf-8")
        progress.celebrate(epochs=30)
        steps.append(int(capsys.readouterr().out.partition("stays up for ")[2].split()[0]))
    assert steps[0] > 2 * steps[1] > 0
