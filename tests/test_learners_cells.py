"""Cells as learners write them, run by IPython: what a check says of them."""

import subprocess
import sys

import pytest
from learners import MODEL, POLICY

# --- what is an older version, and what is not ----------------------------------------------------------------------


def passes(said):
    return "get_policy takes batches and arrays" in said


def test_a_cell_that_failed_leaves_an_older_version_and_the_check_says_so(cells):
    said = cells(POLICY, "def get_policy(:", "check(get_policy)")
    assert "get_policy: its last cell failed, so this is an older version" in said
    for failed in ("1 / 0\n" + POLICY, "%%time\n1 / 0\n" + POLICY, POLICY + "\n)", "1 / 0\nget_policy: object = 1"):
        assert "an older version" in cells(POLICY, failed, "check(get_policy)")
    assert passes(cells(POLICY, "check(get_policy)")), "run again, it is new"


@pytest.mark.parametrize(
    "later",
    [
        "example = '''\ndef get_policy(x):\n    pass\n'''\n1 / 0",
        "1 / 0",
        "def test():\n    def get_policy(x):\n        pass\n1 / 0",
        "class Test:\n    def get_policy(self):\n        get_policy = 1\n1 / 0",
        'example = """\ndef get_policy(x):\n""" + (',
        "%%nothing\ndef get_policy(x):\n    pass",
        POLICY + "\n\nimport nowhere\nbend = lambda x: x",
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


def test_names_that_an_environment_gives_cells_change_nothing(cells, monkeypatch):
    monkeypatch.setenv("IPYKERNEL_CELL_NAME", "cell")
    assert "an older version" in cells(POLICY, "1 / 0\n" + POLICY, "check(get_policy)")
    assert passes(cells(POLICY, "check(get_policy)"))


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


@pytest.mark.parametrize(
    ("begin", "end"),
    [
        ("torch.set_default_device('meta')", "torch.set_default_device(None)"),
        ("half = torch.autocast('cpu')\n_ = half.__enter__()", "half.__exit__(None, None, None)"),
        ("before = np.seterr(all='raise')", "_ = np.seterr(**before)"),
        ("torch.set_default_dtype(torch.bfloat16)", "torch.set_default_dtype(torch.float32)"),
    ],
)
def test_what_another_cell_left_set_costs_nothing(cells, begin, end):
    try:
        assert passes(cells(begin, POLICY, "check(get_policy)"))
        assert cells("print(torch.get_default_device())") == f"{'meta' if 'meta' in begin else 'cpu'}\n"
    finally:
        cells(end)


@pytest.mark.parametrize(
    ("begin", "end"),
    [
        ("_ = torch.set_grad_enabled(False)", "_ = torch.set_grad_enabled(True)"),
        ("off = torch.no_grad()\noff.__enter__()", "off.__exit__(None, None, None)"),
        ("off = torch.inference_mode()\n_ = off.__enter__()", "off.__exit__(None, None, None)"),
    ],
)
def test_gradients_that_are_switched_off_are_named(cells, begin, end):
    try:
        said = cells(begin, POLICY, "check(get_policy)")
        assert "gradients are switched off in this kernel" in said
    finally:
        cells(end)


def test_a_name_that_holds_no_function_hears_so_under_its_own_name(cells):
    """Names that are not defined hold nothing, and not None."""
    assert "get_policy: that is None and no function" in cells("get_policy = None", "check(get_policy)")


def test_a_function_that_switches_gradients_off_does_not_do_so_for_others(cells):
    off = POLICY.replace("    return", "    torch.set_grad_enabled(False)\n    return")
    assert "the gradient is lost" in cells(off, "check(get_policy)")
    assert passes(cells(POLICY, "check(get_policy)"))


@pytest.mark.parametrize("option", ["-O", pytest.param("-OO", marks=pytest.mark.slow)])
@pytest.mark.parametrize("module", ["vpg_lab.checks", pytest.param("vpg_lab.learner", marks=pytest.mark.slow)])
def test_without_assertions_nothing_can_be_checked(option, module):
    said = subprocess.run(
        [sys.executable, option, "-c", f"import {module}"], capture_output=True, text=True, encoding="utf-8"
    )
    assert "ImportError: Python runs without assertions" in said.stderr
