"""Do the checks notice every small change? Change the lessons' own functions one node at a time, and judge each.

    python tests/benchmarks/mutants.py                       # every exercise
    python tests/benchmarks/mutants.py get_policy train      # some
    python tests/benchmarks/mutants.py --sample 0.1          # a tenth of the mutants, drawn with a seed

Print, for each exercise, mutants, refused, equal in behavior (listed with a reason in equal_mutants.txt) and
survivors, and each survivor as a changed line. Exit with 1 where there is a survivor, or an equal mutant that is
refused or no longer made.

The operators are those of cosmic-ray 8.7 and mutmut 3.8, written with `ast` because both need parsers and servers of
their own for thirteen small functions, and behind them those of this field: a gradient cut, another dimension, a sum
for a mean, a 32-bit number.
"""

import argparse
import ast
import contextlib
import copy
import io
import math
import multiprocessing
import random
import re
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

TESTS = Path(__file__).parents[1]
sys.path[:0] = [str(TESTS), str(TESTS.parent / "notebooks")]

from catalogue import Stage, references  # noqa: E402

EQUAL = Path(__file__).with_name("equal_mutants.txt")
SECONDS = 20  # a check that takes longer does not end: refused

# ---- Operators: each yields what may stand in the place of a node ----------------------------------------------------

BINARY = [ast.Add, ast.Sub, ast.Mult, ast.Div, ast.FloorDiv, ast.Mod, ast.Pow]
COMPARISONS = [ast.Eq, ast.NotEq, ast.Lt, ast.LtE, ast.Gt, ast.GtE]
NAMES = {  # of a method or a function -> what is easily taken for it
    "mean": ["sum", "max", "median", "prod"],
    "sum": ["mean", "max", "len"],
    "exp": ["log", "exp2", "sigmoid"],
    "log": ["exp"],
    "zeros_like": ["ones_like", "empty_like"],
    "stack": ["concatenate"],
    "percentile": ["quantile"],
    "cumsum": ["cumprod"],
    "integers": ["permutation"],
    "append": ["remove"],
    "sample": ["mode"],
    "ReLU": ["Tanh", "Sigmoid", "Identity", "LeakyReLU", "GELU", "Softplus", "ELU", "ReLU6"],
    "Adam": ["SGD", "RMSprop", "Adagrad", "Adamax", "NAdam", "RAdam", "Rprop"],
    "float32": ["float64", "float16", "int64"],
    "probs": ["logits"],
    "logits": ["probs"],
    "log_prob": ["cdf", "entropy"],
    "no_grad": ["enable_grad"],
}


def replace_number(node) -> Iterator[ast.expr]:
    """Number replacement (cosmic-ray NumberReplacer, mutmut operator_number); no number, for a default."""
    if isinstance(node, ast.Constant) and type(node.value) in (int, float):
        values = [node.value + 1, node.value - 1, -node.value, 2 * node.value, node.value / 2, 0]
        yield from (ast.Constant(value) for value in dict.fromkeys(values) if value != node.value)


def replace_constant(node) -> Iterator[ast.expr]:
    """Another string, the other truth, something for nothing (mutmut operator_string, operator_name)."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield ast.Constant(f"XX{node.value}XX")
    elif isinstance(node, ast.Constant) and isinstance(node.value, bool):
        yield ast.Constant(not node.value)


def replace_operator(node) -> Iterator[ast.expr]:
    """Binary, unary, boolean and comparison operators (both tools)."""
    if isinstance(node, ast.BinOp):
        yield from (ast.BinOp(node.left, kind(), node.right) for kind in BINARY if not isinstance(node.op, kind))
        yield ast.BinOp(node.right, node.op, node.left)
        yield from (node.left, node.right)
    elif isinstance(node, ast.UnaryOp):
        yield node.operand
        yield ast.UnaryOp(ast.UAdd(), node.operand)
    elif isinstance(node, ast.BoolOp):
        yield ast.BoolOp(ast.And() if isinstance(node.op, ast.Or) else ast.Or(), node.values)
        yield from node.values
    elif isinstance(node, ast.Compare):
        for kind in COMPARISONS:
            if not isinstance(node.ops[0], kind):
                yield ast.Compare(node.left, [kind()], node.comparators)


def negate_condition(node) -> Iterator[ast.stmt]:
    """Not in front of a condition (cosmic-ray AddNot); a condition that always or never holds."""
    if isinstance(node, (ast.If, ast.While)):
        for test in (ast.UnaryOp(ast.Not(), node.test), ast.Constant(False), ast.Constant(True)):
            changed = copy.copy(node)
            changed.test = test
            yield changed


def change_loop(node) -> Iterator[ast.stmt]:
    """A loop of no round (cosmic-ray ZeroIterationForLoop) and one that leaves after its first or skips its second."""
    if isinstance(node, ast.For):
        changed = copy.copy(node)
        changed.iter = ast.List([], ast.Load())
        yield changed
    if isinstance(node, (ast.For, ast.While)):
        for leave in (ast.Break(), ast.Return(None)):
            changed = copy.copy(node)
            changed.body = [*node.body, leave]
            yield changed


def change_statement(node) -> Iterator[ast.stmt]:
    """A statement deleted; nothing assigned, added or returned (mutmut operator_assignment, operator_augmented)."""
    if isinstance(node, (ast.Expr, ast.Assign, ast.AugAssign, ast.If, ast.For, ast.While, ast.With)):
        yield ast.Pass()
    if isinstance(node, ast.With):
        yield ast.If(ast.Constant(True), node.body, [])
    if isinstance(node, ast.Assign):
        yield ast.Assign(node.targets, ast.Constant(None))
    if isinstance(node, ast.AugAssign):
        yield ast.Assign([node.target], node.value)
        yield ast.AugAssign(node.target, ast.Sub(), node.value)
    if isinstance(node, ast.Return):
        yield ast.Return(None)


def change_call(node) -> Iterator[ast.expr]:
    """An argument dropped, replaced by None, swapped with the next (mutmut operator_arg_removal); the call left out."""
    if not isinstance(node, ast.Call):
        return
    for place in range(len(node.args)):
        before, after = node.args[:place], node.args[place + 1 :]
        yield ast.Call(node.func, [*before, *after], node.keywords)
        yield ast.Call(node.func, [*before, ast.Constant(None), *after], node.keywords)
        if after:
            yield ast.Call(node.func, [*before, after[0], node.args[place], *after[1:]], node.keywords)
    for place in range(len(node.keywords)):
        yield ast.Call(node.func, node.args, node.keywords[:place] + node.keywords[place + 1 :])
    yield from node.args[:1]
    if isinstance(node.func, ast.Attribute):
        yield node.func.value


def change_parts(node) -> Iterator[ast.expr]:
    """Members of a tuple swapped or dropped, slices changed (this field's rows and columns)."""
    if isinstance(node, ast.Tuple) and isinstance(node.ctx, ast.Load) and len(node.elts) > 1:
        yield ast.Tuple(node.elts[1:] + node.elts[:1], node.ctx)
        yield ast.Tuple(node.elts[::-1], node.ctx)
        yield node.elts[0]
    if isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Slice):
        yield node.value


def replace_name(node) -> Iterator[ast.expr]:
    """A method or a function by one that is easily taken for it."""
    if isinstance(node, ast.Attribute):
        yield from (ast.Attribute(node.value, name, node.ctx) for name in NAMES.get(node.attr, []))
    elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
        yield from (ast.Name(name, node.ctx) for name in NAMES.get(node.id, []))


def cut_gradient(node) -> Iterator[ast.expr]:
    """A value detached, as a plain number, clipped, in fewer bits, with an axis turned."""
    if isinstance(node, (ast.Name, ast.Call, ast.BinOp, ast.Subscript)) and not isinstance(
        getattr(node, "ctx", None), (ast.Store, ast.Del)
    ):
        for text in ("VALUE.detach()", "VALUE.clip(-5, 0.9)", "VALUE.flip(-1)", "VALUE.half()", "VALUE + 1e-2"):
            changed = ast.parse(text, mode="eval").body
            yield Insert(node).visit(changed)


class Insert(ast.NodeTransformer):
    """Put a node in the place of the name VALUE."""

    def __init__(self, node):
        self.node = node

    def visit_Name(self, name):  # noqa: N802
        return self.node if name.id == "VALUE" else name


OPERATORS = [
    replace_number,
    replace_constant,
    replace_operator,
    negate_condition,
    change_loop,
    change_statement,
    change_call,
    change_parts,
    replace_name,
    cut_gradient,
]

# ---- Mutants ---------------------------------------------------------------------------------------------------------


class Mutant(NamedTuple):
    """A changed function: which exercise's, the change as a pair of lines, the code."""

    exercise: str
    change: str
    code: str


class Put(ast.NodeTransformer):
    """Put one node in the place of another, wherever that stands."""

    def __init__(self, old, new):
        self.old, self.new = old, new

    def visit(self, node):
        return self.new if node is self.old else super().generic_visit(node)


def mutants_of(exercise: str, source: str) -> list[Mutant]:
    """Return every mutant of a function once; annotations and docstrings are no behavior."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            node.returns = None
            node.body = node.body[1:] if ast.get_docstring(node) else node.body
        elif isinstance(node, ast.arg):
            node.annotation = None
    whole = ast.unparse(tree)
    found = {}
    for node in ast.walk(tree):
        for operator in OPERATORS:
            for new in operator(node):
                code = _unparse(tree, node, new)
                if code != whole and code not in found:
                    found[code] = Mutant(exercise, _describe(whole, code), code)
    return list(found.values())


def _unparse(tree, old, new):
    # A copy, in which the node to be replaced is found again by its number.
    number = next(number for number, node in enumerate(ast.walk(tree)) if node is old)
    changed = copy.deepcopy(tree)
    node = next(node for each, node in enumerate(ast.walk(changed)) if each == number)
    changed = Put(node, copy.deepcopy(new)).visit(changed)
    return ast.unparse(ast.fix_missing_locations(changed))


def _describe(before, after):
    # Python 3.10 puts targets into parentheses, later ones do not.
    before, after = [
        re.sub(r"(for |^ *)\((\w+(?:, \w+)+)\)( in | = )", r"\1\2\3", code, flags=re.M).splitlines()
        for code in (before, after)
    ]
    while before and after and before[0] == after[0]:
        before, after = before[1:], after[1:]
    while before and after and before[-1] == after[-1]:
        before, after = before[:-1], after[:-1]
    return " ".join(line.strip() for line in before) + "  ->  " + " ".join(line.strip() for line in after)


# ---- Verdicts --------------------------------------------------------------------------------------------------------


def judge_mutants(exercise, codes, pipe):
    """Send what the checks say of every code: what a mutant prints, warns of or seeds stays in this process."""
    warnings.simplefilter("ignore")
    stage = Stage(exercise)
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        for code in codes:
            try:
                said = next(filter(None, stage.judge(code)), "")
            except Exception as error:  # the cell itself does not run
                said = repr(error)
            pipe.send(said)


def verdicts(exercise: str, mutants: list[Mutant]) -> Iterator[str]:
    """Yield what the checks say of each mutant; a process that does not answer is ended, and another one started."""
    context, done = multiprocessing.get_context("fork"), 0
    while done < len(mutants):
        here, there = context.Pipe(duplex=False)
        codes = [mutant.code for mutant in mutants[done:]]
        process = context.Process(target=judge_mutants, args=(exercise, codes, there), daemon=True)
        process.start()
        there.close()
        for _ in codes:
            try:
                said = here.recv() if here.poll(SECONDS) else f"does not end within {SECONDS} s"
            except EOFError:
                said = "ends the process"
            yield said
            done += 1
            if not process.is_alive() or said.startswith(("does not end within", "ends the process")):
                break
        process.kill()
        process.join()


def equal_mutants() -> dict[tuple[str, str], str]:
    """Return the mutants that behave as the lesson's own function does, with the reason."""
    lines = [line for line in EQUAL.read_text(encoding="utf-8").splitlines() if line and not line.startswith("#")]
    fields = [line.split(" | ") for line in lines]
    return {(exercise, change): reason for exercise, change, reason in fields}


def main():
    """Judge all mutants, or a sample, of all exercises, or some."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("exercises", nargs="*")
    parser.add_argument("--sample", type=float, default=1.0)
    arguments = parser.parse_args()
    chosen = {name: code for name, code in references().items() if name in (arguments.exercises or references())}
    equal, wrong = equal_mutants(), 0
    print(f"{'exercise':30}{'mutants':>9}{'refused':>9}{'equal':>7}{'survivors':>11}")
    for exercise, code in chosen.items():
        mutants = mutants_of(exercise, code)
        made = {mutant[:2] for mutant in mutants}
        gone = [change for name, change in equal if name == exercise and (name, change) not in made]
        mutants = random.Random(0).sample(mutants, math.ceil(arguments.sample * len(mutants)))
        said = dict(zip(mutants, verdicts(exercise, mutants), strict=True))
        survivors = [mutant for mutant in mutants if not said[mutant] and mutant[:2] not in equal]
        alike = [mutant for mutant in mutants if mutant[:2] in equal]
        refused = [mutant for mutant in alike if said[mutant]]
        number = len(mutants) - len(alike) - len(survivors)
        print(f"{exercise:30}{len(mutants):>9}{number:>9}{len(alike):>7}{len(survivors):>11}", flush=True)
        print(*(f"    survives: {mutant.change}\n" for mutant in survivors), sep="", end="")
        print(*(f"    equal, and refused: {m.change}\n        {said[m]}\n" for m in refused), sep="", end="")
        print(*(f"    equal, and not made any more: {change}\n" for change in gone), sep="", end="", flush=True)
        wrong += len(survivors) + len(refused) + len(gone)
    sys.exit(int(wrong > 0))


if __name__ == "__main__":
    main()
