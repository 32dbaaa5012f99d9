"""Settings for grading the exercises with nbgrader; `make.py --for-class` puts them into a course.

vpg_judging.py and vpg_grading.py, beside this file, hold what they name.
"""

import os
import sys
from pathlib import Path

import nbgrader

COURSE = Path(__file__).resolve().parent
sys.path.insert(0, str(COURSE))
# nbgrader calls alembic by its name; it lies beside the Python that runs nbgrader.
os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])

c = get_config()  # noqa: F821 - nbgrader defines it

# nbgrader's own list would also replace each blank by a bare stub, without signature and docstring,
# and clear the pictures that explain. The notebooks hold no solutions, so neither is wanted.
c.GenerateAssignment.preprocessors = [
    "nbgrader.preprocessors.LockCells",
    "nbgrader.preprocessors.CheckCellMetadata",
    "nbgrader.preprocessors.ComputeChecksums",
    "nbgrader.preprocessors.SaveCells",
]
# What a submission holds is put into the notebook as it was released: it cannot stop the class.
c.Autograde.exporter_class = "vpg_judging.Submission"
c.Autograde.sanitize_preprocessors = ["vpg_judging.Rebuild"]
c.Autograde.autograde_preprocessors = [
    "vpg_judging.Judge",
    "nbgrader.preprocessors.IgnorePattern",
    "nbgrader.preprocessors.LimitOutput",
    "nbgrader.preprocessors.SaveAutoGrades",
    "nbgrader.preprocessors.AssignLatePenalties",
    "nbgrader.preprocessors.CheckCellMetadata",
]
# An endless loop is interrupted after half a minute of computing, a tenth of which a right answer takes; what waits, by
# the clock. On a busy machine everything else may take its time.
c.Judge.cpu_seconds = 30
c.Judge.timeout = c.Judge.startup_timeout = 300
c.Judge.iopub_timeout = 30
c.Judge.shutdown_kernel = "immediate"
# Kernels have nothing to say to a teacher but their errors.
c.Judge.extra_arguments = ["--IPKernelApp.log_level=ERROR"]
# A check fails by its verdict; a warning on stderr takes no points.
c.IgnorePattern.enabled = True
c.IgnorePattern.pattern = "."
# Not copied: what systems and environments keep, and the files that grading makes anew of what passes.
c.CourseDirectory.ignore = [".*", "__pycache__", "__MACOSX", "venv", "site-packages", "node_modules", "feedback"]
c.CourseDirectory.ignore += ["my_agent*", "my_vpg*"]

# How Moodle names what it packs: Ada Lovelace_12_assignsubmission_file_/01_model.ipynb, say, or in a folder there.
PLACE = r".*[/\\](?P<student_id>[^/\\]+)_assignsubmission_file_?[/\\](?:.*[/\\])?"
c.FileNameCollectorPlugin.named_regexp = PLACE + r"(?P<file_id>[^/\\.][^/\\]*)\.ipynb"

c.GenerateFeedback.preprocessors = ["vpg_grading.Feedback"]
c.GenerateFeedback.post_convert_hook = "vpg_grading.leave_only_pages"
c.HTMLExporter.extra_template_basedirs = [
    str(COURSE / "templates"),
    str(Path(nbgrader.__file__).parent / "server_extensions/formgrader/templates"),
]

c.ExportApp.plugin_class = "vpg_grading.ClassReport"
