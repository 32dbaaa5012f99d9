"""What a function needs of the notebook cell that defines it."""

import ast
import inspect
import itertools
import linecache
import re
import symtable
from collections.abc import Callable

from IPython import get_ipython

FUTURE = "from __future__ import annotations\n"


def section_of(name: str, function: Callable, whole: bool = False) -> str:
    """Return the statements of a cell that define a function: its own, and those behind the globals that it reads.

    All comments stay. whole=True leaves out only what tries the function out.
    Raises ValueError where the function was not defined in a cell.
    """
    source = _cell_of(name, function)
    statements = ast.parse(source).body
    needed = _needed_for(name, statements, whole)
    lines = source.encode().split(b"\n")  # bytes, as a statement's columns are counted
    inside = lines_inside(statements)
    for number, line in enumerate(lines, 1):
        if number not in inside:  # no heading of the file that it is kept in
            lines[number - 1] = re.sub(rb"^# ---- (.+) ----$", rb"# --- \1 ---", line)
    future = [isinstance(each, ast.ImportFrom) and each.module == "__future__" for each in statements]
    for number in reversed(range(len(statements))):
        if number not in needed or future[number]:
            _cut(lines, statements[number], *statements[number + 1 : number + 2])
    return FUTURE * any(future) + b"\n".join(lines).decode().strip("\n") + "\n"


def lines_inside(statements: list[ast.stmt]) -> set[int]:
    """Return the numbers of the lines that statements take up, from 1 on."""
    return {line for each in statements for line in range(each.lineno, each.end_lineno + 1)}


def _cut(lines, statement, following=None):
    """Cut a statement out of lines; a comment behind it stays, and so does what shares its line."""
    decorators = [each.lineno for each in getattr(statement, "decorator_list", [])]
    first, column = min([statement.lineno, *decorators]) - 1, 0 if decorators else statement.col_offset
    last, end = statement.end_lineno - 1, statement.end_col_offset
    if following and following.lineno - 1 == last:
        end = following.col_offset
    left = lines[first][:column] + lines[last][end:].lstrip(b" \t;")
    lines[first : last + 1] = [left] if left.strip() else []
    while first < len(lines) and not lines[first].strip() and not b"".join(lines[max(first - 1, 0) : first]).strip():
        del lines[first]


def _needed_for(name, statements, whole):
    """Return the numbers of the statements behind a name; with whole, of all that do not use it themselves."""
    imports = [isinstance(each, (ast.Import, ast.ImportFrom)) for each in statements]
    makes, reads = zip(*map(names_of, statements), strict=True)
    own = set().union(*itertools.compress(makes, [not each for each in imports]))
    changes = [_changed_by(each) & own for each in statements]  # LAYERS.append(...), KINDS["relu"] = ...
    needed, kept, more = {name}, {number for number, each in enumerate(makes) if "*" in each}, True
    while more:
        more = {n for n in range(len(statements)) if n not in kept and (makes[n] | changes[n]) & needed}
        kept |= more
        needed |= set().union(*(reads[n] for n in more))
    tried = {name}
    for n in range(len(statements)) if whole else ():
        if n not in kept and reads[n] & tried:
            tried |= makes[n]
        else:
            kept.add(n)
    return kept


def _cell_of(name, function):
    """Return the code of the cell that defines a name, as Python: magics are calls, or gone."""
    code, shell = getattr(inspect.unwrap(function), "__code__", None), get_ipython()
    shown = "".join(linecache.getlines(code.co_filename)) if code else ""
    raw = [*reversed(shell.history_manager.input_hist_raw)] if shell else []
    # The function's own cell first; what is shown of it has broken lines where a comment holds a form feed.
    own = (cell for each in raw if (cell := _as_python(shell, each)).splitlines() == shown.splitlines())
    for cell in itertools.chain(itertools.islice(own, 1), [shown], (_as_python(shell, each) for each in raw)):
        source = re.sub(r"\r\n?", "\n", cell)
        try:
            if any(name in names_of(statement)[0] for statement in ast.parse(source).body):
                return source
        except SyntaxError:
            continue
    raise ValueError(f"{name} was not defined in a notebook cell")


def _as_python(shell, cell):
    """Return what IPython makes of a cell, without the magics that take all of it."""
    while cell.startswith("%%"):
        cell = cell.partition("\n")[2].lstrip("\n")
    return shell.transform_cell(cell)


def names_of(statement: ast.stmt) -> tuple[set[str], set[str]]:
    """Return the global names that a statement makes, and those that it reads, in its functions' bodies too.

    What a star imports is named "*".
    """
    top = symtable.symtable(ast.unparse(statement), "cell", "exec")
    tables, reads = [top], {each.get_name() for each in top.get_symbols() if each.is_referenced()}
    for table in tables:  # the list grows while it is walked
        tables += table.get_children()
        reads |= {each.get_name() for each in table.get_symbols() if table is not top and each.is_global()}
    makes = {each.get_name() for each in top.get_symbols() if each.is_assigned() or each.is_imported()}
    star = isinstance(statement, ast.ImportFrom) and statement.names[0].name == "*"
    return makes | ({"*"} if star else set()), reads


def _changed_by(statement):
    """Return the names whose objects a statement changes by a method, an item or an attribute."""
    changed = set()
    for node in ast.walk(statement):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
            node = node.value.func
        elif not (isinstance(node, (ast.Subscript, ast.Attribute)) and not isinstance(node.ctx, ast.Load)):
            continue
        while isinstance(node, (ast.Subscript, ast.Attribute)):
            node = node.value
            changed |= {node.id} if isinstance(node, ast.Name) else set()
    return changed
