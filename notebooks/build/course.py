"""A course for nbgrader: the edition without folded references, the modules beside it, and what grades."""

import shutil
from pathlib import Path

from build.edition import write_edition
from build.lessons import EDITION, LESSONS, ROOT, write_if_changed


def modules() -> list[Path]:
    """Return the files of the project that a notebook may import."""
    rooms = [path for path in (ROOT / "vpg_lab").rglob("*.*") if path.suffix in (".py", ".html", ".js")]
    return [ROOT / "vpg_helpers.py", *sorted(rooms)]


def write_class(folder: Path, lessons: list[Path] = ()) -> None:
    """Write the edition of some lessons, or of all, and the modules to COURSE/source/NAME.

    The notebooks have no folded references. What grades goes to COURSE, which no other account may read. The modules
    travel with the notebooks: students need not install the project, and grading takes the course's copies.

    Raises SystemExit where the folder is no such folder, or the course has settings of its own.
    """
    if folder.parent.name != "source":
        raise SystemExit(f"{folder} is not COURSE/source/NAME, where nbgrader looks; name such a folder")
    ours, theirs = EDITION / "nbgrader_config.py", folder.parents[1] / "nbgrader_config.py"
    if theirs.exists() and not theirs.read_bytes().startswith(ours.read_bytes()):
        raise SystemExit(f"{theirs} holds other settings; put those of {ours} into it, or move it aside")
    if unknown := [str(path) for path in lessons if path not in LESSONS]:
        raise SystemExit(f"{', '.join(unknown)}: no lesson; give some of {', '.join(map(str, LESSONS))}")
    if not folder.parents[1].exists():
        folder.parents[1].mkdir(mode=0o700, parents=True)  # other accounts may neither see answers nor change them
    write_edition(folder, lessons or LESSONS)
    for path in modules():
        write_if_changed(folder / path.relative_to(ROOT), path.read_bytes())
    for path in [*EDITION.glob("vpg_*.py"), *(EDITION / "templates").rglob("*.*")]:
        write_if_changed(folder.parents[1] / path.relative_to(EDITION), path.read_bytes())
    if not theirs.exists():
        shutil.copy(ours, theirs)
