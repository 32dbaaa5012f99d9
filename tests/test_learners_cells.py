"""Cells as learners write them, run by IPython: what a check says of them, and what of them is kept."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from catalogue import references

from vpg_lab import learner

SET_UP = """
import numpy as np
import torch
from torch import Tensor, nn
from torch.distributions import Categorical

import vpg_helpers as vpg
from vpg_lab.checks import check
from vpg_lab.learner import go_on, with_my_functions
"""
POLICY = """def get_policy(model, observation):
    return Categorical(logits=model(torch.as_tensor(observation)))"""
MODEL = """def create_model(inputs, outputs, hidden_units=32):
    return nn.Sequential(nn.Linear(inputs, hidden_units), nn.ReLU(), nn.Linear(hidden_units, outputs))"""
ACTION = references()["get_action"]
FILE = learner.AGENT.file


@pytest.fixture
def cells(ipython, tmp_path, monkeypatch, capsys):
    """A function that runs cells, one after the other, in a folder of their own, and returns what the last one said."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(learner, "HOME", tmp_path)
    ipython.reset(new_session=True)

    def run(*sources):
        for source in sources:
            capsys.readouterr()
            ipython.run_cell(source, store_history=True)
        return capsys.readouterr().out

    run(SET_UP)
    return run


def keep(name):
    return f"go_on({name!r}, globals(), '')"


KEPT = "yours from here on. Kept in my_agent.py."

# --- what is an older version, and what is not ----------------------------------------------------------------------


def passes(said):
    return "get_policy takes batches and arrays" in said


def test_a_cell_that_failed_leaves_an_older_version_and_the_check_says_so(cells):
    said = cells(POLICY, "def get_policy(:", "check(get_policy)")
    assert "get_policy: its last cell failed, so this is an older version" in said
    assert "an older version" in cells(POLICY, "1 / 0\n" + POLICY, "check(get_policy)")
    assert passes(cells(POLICY, "check(get_policy)")), "run again, it is new"


@pytest.mark.parametrize(
    "later",
    [
        "example = '''\ndef get_policy(x):\n    pass\n'''\n1 / 0",
        "1 / 0",
        POLICY + "\n\n1 / 0",
        "%%time\n" + POLICY,
        "if True:\n    " + POLICY.replace("\n", "\n    "),
        "get_policy = lambda model, observation: Categorical(logits=model(torch.as_tensor(observation)))",
        POLICY.replace("get_policy", "f") + "\n\nget_policy = f",
        "import functools\nget_policy = functools.partial(get_policy)",
        POLICY.replace("\n", "\r\n"),
        "def count(function):\n    return lambda *given: function(*given)\n\n@count\n" + POLICY,
    ],
)
def test_in_doubt_it_is_no_older_version(cells, later):
    assert passes(cells(POLICY, later, "check(get_policy)"))


def test_a_mistake_under_a_decorator_is_told(cells):
    said = cells("@torch.no_grad()\n" + POLICY, "check(get_policy)")
    assert "the gradient is lost" in said and "no_grad" in said


def test_an_error_in_a_decorated_function_or_a_class_names_the_line(cells):
    wrong = "@torch.inference_mode()\n" + POLICY.replace("return ", "return nothing + ")
    assert "line 3 of its cell, `return nothing + Categorical" in cells(wrong, "check(get_policy)")
    network = MODEL.replace(
        "return nn", "class Net(nn.Module):\n        def forward(self, x):\n            x.no()\n    return Net() or nn"
    )
    assert "line 4 of its cell, `x.no()`" in cells(network, "check(create_model)")


def test_pytorch_s_own_not_implemented_is_not_a_blank(cells):
    said = cells(
        POLICY.replace("return ", "return Categorical(logits=torch.ones(2)).rsample() or "), "check(get_policy)"
    )
    assert "NotImplementedError" in said and "not written yet" not in said
    assert "not written yet" in cells("def get_policy(*_):\n    raise NotImplementedError", "check(get_policy)")


# --- what calls the reference ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "answer",
    [
        "get_policy = vpg.get_policy",
        "def get_policy(model, observation):\n    return vpg.get_policy(model, observation)",
        "from vpg_helpers import get_policy as ready\nget_policy = lambda *given: ready(*given)",
        "import functools\nget_policy = functools.partial(vpg.get_policy)",
        "def make(function):\n    return lambda *given: function(*given)\n\nget_policy = make(vpg.get_policy)",
        "def get_policy(*given):\n    return getattr(vpg, 'get_' + 'policy')(*given)",
        "mine = with_my_functions('get_action')\nget_policy = mine.get_policy",
    ],
)
def test_the_reference_is_found_under_any_name(cells, answer):
    assert "it calls the reference; what that does is yours to write" in cells(answer, "check(get_policy)")
    assert passes(cells(POLICY, "check(get_policy)")), "and it is itself again"


def test_the_companion_s_functions_are_references_too(cells):
    said = cells("from vpg_lab.companion import gae", "check(gae)")
    assert "it calls the reference" in said
    assert "it calls the reference" in cells("from vpg_lab.companion import discount_cumsum", "check(discount_cumsum)")


# --- state of the kernel that is nobody's mistake -------------------------------------------------------------------


def test_another_default_type_of_the_kernel_costs_nothing(cells):
    try:
        assert passes(cells("torch.set_default_dtype(torch.float64)", POLICY, "check(get_policy)"))
        assert cells("print(torch.get_default_dtype())") == "torch.float64\n"
    finally:
        cells("torch.set_default_dtype(torch.float32)")


def test_gradients_that_are_switched_off_are_named(cells):
    try:
        said = cells("_ = torch.set_grad_enabled(False)", POLICY, "check(get_policy)")
        assert "gradients are switched off in this kernel" in said
    finally:
        cells("_ = torch.set_grad_enabled(True)")


def test_without_assertions_nothing_can_be_checked():
    said = subprocess.run([sys.executable, "-O", "-c", "import vpg_lab.checks"], capture_output=True, text=True)
    assert "ImportError: Python runs without assertions" in said.stderr


# --- what is kept ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "cell", "there", "gone"),
    [
        ("get_policy", "from __future__ import annotations\n" + POLICY, "annotations", ""),
        (
            "get_policy",
            POLICY + "\n\nmodel = vpg.create_model(4, 2)\nprint('tried')\nget_policy(model, torch.zeros(4)).probs",
            "",
            "tried",
        ),
        (
            "create_model",
            "LAYERS = []\nfor _ in range(1):\n    LAYERS.append(nn.ReLU)\n\n"
            + MODEL.replace("nn.ReLU()", "*[layer() for layer in LAYERS]"),
            "LAYERS.append(nn.ReLU)",
            "",
        ),
        (
            "create_model",
            'KINDS = {}\nKINDS["relu"] = nn.ReLU\n' + MODEL.replace("nn.ReLU()", 'KINDS["relu"]()'),
            'KINDS["relu"] = nn.ReLU',
            "",
        ),
        (
            "create_model",
            "try:\n    from nowhere import bend\nexcept ImportError:\n    bend = nn.ReLU\n\n"
            + MODEL.replace("nn.ReLU()", "bend()"),
            "except ImportError",
            "",
        ),
        ("get_policy", "# mine, after a long night\n" + POLICY, "# mine, after a long night", ""),
        ("get_policy", "%%time\n" + POLICY, "def get_policy", "%%time"),
        (
            "create_model",
            "def create_model(inputs, outputs, hidden_units=32):\n    first = nn.Linear(inputs, hidden_units)\n\n"
            "# ---- output ----\n\n    return nn.Sequential(first, nn.ReLU(), nn.Linear(hidden_units, outputs))",
            "# ---- output ----",
            "",
        ),
    ],
)
def test_what_a_function_needs_of_its_cell_is_kept_and_works(cells, name, cell, there, gone):
    assert KEPT in cells(cell, f"check({name})", keep(name))
    cells(ACTION, "check(get_action)", keep("get_action"))
    text = FILE.read_text()
    assert there in text and (not gone or gone not in text)
    said = cells(
        f"vpg = with_my_functions({name!r})",
        f"from vpg_lab.checks.verdicts import check_as\ncheck_as({name!r}, vpg.{name})",
    )
    assert "does not run" not in said and f"{name} " in said, said


def test_a_trial_of_get_action_does_not_run_when_the_file_is_loaded(cells):
    tried = ACTION + "\n\npolicy = Categorical(logits=torch.zeros(2))\naction, log_probability = get_action(policy)"
    assert KEPT in cells(tried, "check(get_action)", keep("get_action"))
    assert "torch.zeros" not in FILE.read_text()


def test_a_section_of_one_s_own_stays(cells):
    cells(MODEL, "check(create_model)", keep("create_model"))
    mine = "\n# ---- helpers ----\n\ndef mine():\n    return 42\n"
    FILE.write_text(FILE.read_text() + mine)
    for cell in (POLICY, POLICY.replace("logits=model", "logits=1 * model")):
        assert KEPT in cells(cell, "check(get_policy)", keep("get_policy"))
        assert KEPT in cells(MODEL, "check(create_model)", keep("create_model"))
        assert mine.strip() in FILE.read_text() and FILE.read_text().count("def get_policy") == 1


def test_two_cells_with_the_same_line_are_no_conflict(cells):
    device = "device = torch.device('cpu')\n\n"
    policy = device + POLICY.replace("torch.as_tensor(observation)", "torch.as_tensor(observation).to(device)")
    action = device + ACTION.replace("policy.sample()", "policy.sample().to(device)")
    assert KEPT in cells(policy, "check(get_policy)", keep("get_policy"))
    assert KEPT in cells(action, "check(get_action)", keep("get_action"))


def test_what_does_not_work_from_the_file_is_told_and_not_written(cells):
    leans = "OFFSETS = [1.0]\nset_to_zero = lambda offsets: offsets.clear()\nset_to_zero(OFFSETS)\n"
    leans += POLICY.replace("logits=model(", "logits=(1 + sum(OFFSETS)) * model(")
    said = cells(leans, "check(get_policy)", keep("get_policy"))
    assert "yours from here on. Not kept: from the file it does not pass its check: get_policy:" in said
    assert not FILE.exists()
    said = cells(
        "SCALE = 1.0", POLICY.replace("logits=model", "logits=SCALE * model"), "check(get_policy)", keep("get_policy")
    )
    assert "Not kept: get_policy uses SCALE of elsewhere; define or import it in the cell of get_policy." in said
    said = cells(POLICY.replace("    return", "    display(1)\n    return"), "check(get_policy)", keep("get_policy"))
    assert "Not kept: get_policy uses display of elsewhere" in said


def test_a_folder_that_cannot_be_written_is_told(cells, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(learner.os, "open", refuse)
    said = cells(POLICY, "check(get_policy)", keep("get_policy"))
    assert "yours from here on. Not kept: [Errno 13] Permission denied." in said


def test_another_folder_is_named_and_a_link_stays_a_link(cells, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    said = cells("import os\nos.chdir('elsewhere')", POLICY, "check(get_policy)", keep("get_policy"))
    assert f"Kept in {tmp_path / 'elsewhere' / FILE}." in said
    os.chdir(tmp_path)
    FILE.symlink_to("elsewhere/my_agent.py")
    assert KEPT in cells(ACTION, "check(get_action)", keep("get_action"))
    assert FILE.is_symlink() and "def get_action" in (tmp_path / "elsewhere" / FILE).read_text()


def test_a_byte_order_mark_is_read(cells):
    cells(POLICY, "check(get_policy)", keep("get_policy"))
    FILE.write_bytes(b"\xef\xbb\xbf" + FILE.read_bytes())
    assert "Yours: get_policy." in cells("vpg = with_my_functions('get_policy')")


KEEP_AGAIN = """
import linecache, sys
from torch.distributions import Categorical
import torch
from vpg_lab import learner
learner.check_as = lambda *given: None  # only writing is tried here
name, other = sys.argv[1:]
body = {
    "get_policy": "(model, observation):\\n    return Categorical(logits=model(observation) + 0 * NUMBER)",
    "get_action": "(policy):\\n    return 0 * NUMBER, policy",
}
source = f"def {name}{body[name]}"
for number in range(20):
    code = source.replace("NUMBER", str(number))
    linecache.cache["cell"] = len(code), None, code.splitlines(keepends=True), "cell"
    namespace = {"__name__": "__main__", "Categorical": Categorical, "torch": torch}
    exec(compile(code, "cell", "exec"), namespace)
    assert learner.keep(name, namespace[name]) == "Kept in my_agent.py.", number
    text = open("my_agent.py").read()
    assert f"0 * {number}" in text, (number, text)
"""


def test_two_notebooks_that_keep_at_the_same_time_lose_nothing(tmp_path):
    names = ("get_policy", "get_action")
    pair = [
        subprocess.Popen([sys.executable, "-c", KEEP_AGAIN, *order], cwd=tmp_path, stderr=subprocess.PIPE, text=True)
        for order in (names, names[::-1])
    ]
    for process in pair:
        assert process.wait(120) == 0, process.stderr.read()
    text = (tmp_path / FILE).read_text()
    assert text.count("0 * 19") == 2 and {path.name for path in Path(tmp_path).iterdir()} == {
        "my_agent.py",
        "my_agent.previous.py",
    }
