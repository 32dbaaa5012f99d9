"""What a lesson teaches, beside what a module holds: their functions, read as code."""

import ast


def functions(source: str) -> dict[str, ast.FunctionDef]:
    """Return the functions that code defines at its top, by name."""
    return {node.name: node for node in ast.parse(source).body if isinstance(node, ast.FunctionDef)}


def taught_part(function: ast.FunctionDef) -> str:
    """Return the code that the lesson has: without the module's first line, a refusal, and what it raises."""
    docstring, refusal, *body = function.body
    if ast.unparse(refusal).lstrip("_").startswith("refuse_bad_"):
        docstring.value.value, _ = docstring.value.value.rsplit("Raises ", 1)
        function.body = [docstring, *body]
    docstring.value.value = docstring.value.value.rstrip()
    return ast.unparse(function)
