"""Settings for grading the exercise notebooks with nbgrader: copy it into your course folder."""

c = get_config()  # noqa: F821 - nbgrader defines it

# nbgrader's own list would also replace each blank by a bare stub, without signature and docstring,
# and clear the pictures that explain. The notebooks hold no solutions, so neither is wanted.
c.GenerateAssignment.preprocessors = [
    "nbgrader.preprocessors.LockCells",
    "nbgrader.preprocessors.CheckCellMetadata",
    "nbgrader.preprocessors.ComputeChecksums",
    "nbgrader.preprocessors.SaveCells",
]
# An endless loop is interrupted after a minute; the longest cell takes some ten seconds.
c.Execute.timeout = 60
