"""What of a learner's cell is kept: all that its function needs, on whatever machine, and nothing is lost."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from learners import ACTION, FILE, KEPT, MODEL, POLICY, keep

from vpg_lab import learner

TYPED = MODEL.replace("nn.ReLU()", "KINDS['relu']()")
REGISTRY = "KINDS = {}\n\ndef register(layer):\n    KINDS[layer.__name__] = layer\n    return layer\n\n"
COUNTED = "COUNT = 0\n\n" + POLICY.replace("    return", "    global COUNT\n    COUNT += 1\n    return")
BEND = MODEL.replace("nn.ReLU()", "bend()")


@pytest.mark.parametrize(
    ("name", "cell", "there", "gone"),
    [
        ("create_model", REGISTRY + "@register\ndef relu():\n    return nn.ReLU()\n\n" + TYPED, "@register", ""),
        ("create_model", "KINDS = {}\n_ = KINDS.setdefault('relu', nn.ReLU)\n\n" + TYPED, "setdefault", ""),
        ("create_model", "KINDS = {}\nalias = KINDS\nalias['relu'] = nn.ReLU\n\n" + TYPED, "alias['relu']", ""),
        (
            "create_model",
            "class KINDS:\n    pass\n\nsetattr(KINDS, 'relu', nn.ReLU)\n\n"
            + TYPED.replace("['relu']", ".relu")
            + "\n\nmodel = create_model(4, 2)\nprint(model)",
            "setattr(KINDS",
            "print(model)",
        ),
        ("create_model", "bend = nn.ReLU; print('tried')\n\n" + BEND, "bend = nn.ReLU", "tried"),
        ("create_model", "print('tried'); bend = nn.ReLU;\n\n" + BEND, "bend = nn.ReLU", "tried"),
        ("create_model", "with torch.no_grad():\n    bend = nn.ReLU\n\n" + BEND, "bend = nn.ReLU", ""),
        ("create_model", "if True:\n    " + MODEL.replace("\n", "\n    "), "if True:", ""),
        ("create_model", "from torch.nn import *\n\n" + MODEL.replace("nn.", ""), "import *", ""),
        ("get_policy", COUNTED, "global COUNT", ""),
        ("get_policy", "if True:\n    " + POLICY.replace("\n", "\n    "), "if True:", ""),
        ("get_policy", POLICY.replace("\n", "\r\n"), "def get_policy", "\r"),
        (
            "get_policy",
            POLICY + "\n    # with probs= it failed\n\nprint('tried')",
            "    # with probs= it failed",
            "tried",
        ),
        ("get_policy", POLICY + "  # at last\n\n# what now?", "  # at last\n\n# what now?", ""),
        ("get_policy", "# a\x0cb\u2028c\n" + POLICY.replace(":\n", ":\n    'Fé\u2028d.'\n", 1), "'Fé\u2028d.'", ""),
        (
            "get_policy",
            f"# ---- get_action ----\n\n{POLICY}\n# ---- end of get_policy ----\n",
            "\n# --- get_action ---\n",
            "\n# ---- get_action ----\n",
        ),
        (
            "get_policy",
            "from IPython.display import display\n\n" + POLICY.replace("    return", "    display()\n    return"),
            "import display",
            "",
        ),
        ("get_policy", "%precision 3\n" + POLICY + "\n\nfiles = !ls", "def get_policy", "files"),
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
    text = FILE.read_text(encoding="utf-8")
    assert there in text and (not gone or gone not in text.split("# ---- get_action ----")[0])
    said = cells(
        f"vpg = with_my_functions({name!r})",
        f"from vpg_lab.checks.verdicts import check_as\ncheck_as({name!r}, vpg.{name})",
    )
    assert "does not run" not in said and f"{name} " in said, said


def test_a_trial_of_get_action_does_not_run_when_the_file_is_loaded(cells):
    tried = ACTION + "\n\npolicy = Categorical(logits=torch.zeros(2))\naction, log_probability = get_action(policy)"
    assert KEPT in cells(tried, "check(get_action)", keep("get_action"))
    assert "torch.zeros" not in FILE.read_text(encoding="utf-8")


def test_a_section_of_one_s_own_stays(cells):
    cells(MODEL, "check(create_model)", keep("create_model"))
    mine = "\n# ---- helpers ----\n\ndef mine():\n    return 42\n"
    FILE.write_text(FILE.read_text(encoding="utf-8") + mine, encoding="utf-8")
    for cell in (POLICY, POLICY.replace("logits=model", "logits=1 * model")):
        assert KEPT in cells(cell, "check(get_policy)", keep("get_policy"))
        assert KEPT in cells(MODEL, "check(create_model)", keep("create_model"))
        assert (
            mine.strip() in FILE.read_text(encoding="utf-8")
            and FILE.read_text(encoding="utf-8").count("def get_policy") == 1
        )


def test_two_cells_with_the_same_line_are_no_conflict(cells):
    device = "device = torch.device('cpu')\n\n"
    policy = device + POLICY.replace("torch.as_tensor(observation)", "torch.as_tensor(observation).to(device)")
    action = device + ACTION.replace("policy.sample()", "policy.sample().to(device)")
    assert KEPT in cells(policy, "check(get_policy)", keep("get_policy"))
    assert KEPT in cells(action, "check(get_action)", keep("get_action"))


def test_what_does_not_work_from_the_file_is_told_and_not_written(cells):
    leans = "OFFSETS = [1.0]\n\n" + POLICY.replace("logits=model(", "logits=(1 + sum(OFFSETS)) * model(")
    said = cells(leans, "OFFSETS.clear()", "check(get_policy)", keep("get_policy"))
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


def test_a_file_that_cannot_be_read_is_told_and_stays(cells):
    FILE.mkdir()  # what nobody can read as a file, whoever runs the tests
    said = cells("vpg = with_my_functions('get_policy')")
    assert "my_agent.py is not used: " in said and "The reference: get_policy." in said
    assert "Not kept: " in cells(POLICY, "check(get_policy)", keep("get_policy")) and FILE.is_dir()


def test_a_broken_file_in_a_folder_that_cannot_be_written_is_told(cells, monkeypatch):
    FILE.write_text("import sys\nsys.exit(3)\n", encoding="utf-8")

    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(learner.os, "replace", refuse)
        said = cells(POLICY, "check(get_policy)", keep("get_policy"))
        assert "Not kept: my_agent.py does not run (SystemExit: 3), and cannot be set aside" in said
        said = cells("vpg = with_my_functions('get_policy')")
        assert "my_agent.py is not used: my_agent.py does not run (SystemExit: 3)" in said
    assert FILE.read_text(encoding="utf-8") == "import sys\nsys.exit(3)\n"
    assert KEPT in cells(keep("get_policy")) and Path("my_agent.broken-1.py").exists()


def test_what_is_defined_again_below_is_told(cells):
    cells(POLICY, "check(get_policy)", keep("get_policy"))
    FILE.write_text(FILE.read_text(encoding="utf-8") + "\n\n" + POLICY, encoding="utf-8")
    said = cells(POLICY.replace("logits=model", "logits=1 * model"), "check(get_policy)", keep("get_policy"))
    assert "my_agent.py defines get_policy again, below its section; take that away." in said
    assert "1 * model" not in FILE.read_text(encoding="utf-8")


def test_a_version_that_was_edited_by_hand_outlives_many_others(cells):
    for name, cell in (("get_policy", POLICY), ("get_action", ACTION)):
        cells(cell, f"check({name})", keep(name))
    FILE.write_text(
        FILE.read_text(encoding="utf-8").replace(
            "    return Categorical", "    # found at night\n    return Categorical"
        ),
        encoding="utf-8",
    )
    for factor in range(1, 4):
        policy = POLICY.replace("logits=model", f"logits={factor} / {factor} * model")
        action = ACTION.replace("policy.sample()", f"policy.sample() * {factor} // {factor}")
        assert KEPT in cells(policy, "check(get_policy)", keep("get_policy"))
        assert KEPT in cells(action, "check(get_action)", keep("get_action"))
    previous = Path("my_agent.previous.py").read_text(encoding="utf-8")
    assert "# |     # found at night\n" in previous
    assert all(f"{factor} / {factor} * model" in previous + FILE.read_text(encoding="utf-8") for factor in range(1, 4))
    compile(previous, "previous", "exec")
    Path("my_agent.previous.py").write_text("my notes (\n", encoding="utf-8")
    assert KEPT in cells(POLICY, "check(get_policy)", keep("get_policy"))
    assert "# | my notes (\n" in Path("my_agent.previous.py").read_text(encoding="utf-8")


def test_another_folder_is_named_and_a_link_stays_a_link(cells, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    said = cells("import os\nos.chdir('elsewhere')", POLICY, "check(get_policy)", keep("get_policy"))
    assert f"Kept in {tmp_path / 'elsewhere' / FILE}." in said
    os.chdir(tmp_path)
    FILE.symlink_to("elsewhere/my_agent.py")
    assert KEPT in cells(ACTION, "check(get_action)", keep("get_action"))
    assert FILE.is_symlink() and "def get_action" in (tmp_path / "elsewhere" / FILE).read_text(encoding="utf-8")


def test_the_lock_of_a_dead_kernel_is_no_obstacle(cells):
    lock = Path("my_agent.lock")
    lock.touch()
    assert KEPT in cells(POLICY, "check(get_policy)", keep("get_policy")) and not lock.exists()


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
        subprocess.Popen(
            [sys.executable, "-c", KEEP_AGAIN, *order],
            cwd=tmp_path,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
        )
        for order in (names, names[::-1])
    ]
    for process in pair:
        assert process.wait(120) == 0, process.stderr.read()
    text = (tmp_path / FILE).read_text(encoding="utf-8")
    assert text.count("0 * 19") == 2 and {path.name for path in Path(tmp_path).iterdir()} == {
        "my_agent.py",
        "my_agent.previous.py",
    }
