"""Make what is made: execute lessons in place, then the exercise edition, the tables of lessons and the links.

    python notebooks/make.py                            # all that is stale
    python notebooks/make.py notebooks/02_policy.ipynb  # this lesson, and all that is stale
    python notebooks/make.py --all                      # after a change to vpg_helpers.py, say
    python notebooks/make.py --for-class ~/course/source/vpg   # exercises for nbgrader; of the lessons named, if any
    python notebooks/make.py --alone FOLDER             # notebooks that work alone, in Colab say
    python notebooks/make.py --site FOLDER              # pages to read, for any web server

A lesson is stale when its code is no longer the code that was executed. build/ holds the jobs, a file each; the list of
the lessons, and what their cells carry, is in build/lessons.py.
"""

import argparse
import time
from pathlib import Path

from build.course import write_class
from build.edition import write_edition
from build.executing import execute, is_stale, ruff
from build.lessons import EDITION, LESSONS, refuse_damaged_lessons
from build.links import write_links
from build.standalone import write_alone
from build.tables import write_tables


def make_lessons(named: list[Path], every: bool) -> None:
    """Format and execute the named lessons and the stale ones, or every one; then make what is made out of them."""
    for path in LESSONS + [path for path in named if path not in LESSONS]:
        if every or path in named or is_stale(path):
            start = time.perf_counter()
            ruff("format", path)
            execute(path)
            print(f"{path.name} executed in {time.perf_counter() - start:.1f} s", flush=True)
    write_links()
    write_tables()
    write_edition(EDITION)


def main() -> None:
    """Execute lessons, then make what is made out of them; or write another edition alone."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("lessons", type=Path, nargs="*", help="lessons to execute, or to give a class")
    parser.add_argument("--all", action="store_true", help="execute every lesson")
    folder = {"type": Path, "metavar": "FOLDER"}
    parser.add_argument("--for-class", **folder, help="only write exercises without references there")
    parser.add_argument("--alone", **folder, help="only write notebooks that work alone there")
    parser.add_argument("--site", **folder, help="only write pages to read there")
    settings = parser.parse_args()
    if missing := [path for path in settings.lessons if not path.exists()]:
        parser.error(f"there is no {missing[0]}")
    refuse_damaged_lessons()
    if settings.for_class:
        write_class(settings.for_class.resolve(), [path.resolve() for path in settings.lessons])
    if settings.alone:
        write_alone(settings.alone.resolve())
    if settings.site:
        from build.pages import write_site  # what only this needs is an extra, [site]

        write_site(settings.site.resolve())
    if not (settings.for_class or settings.alone or settings.site):
        make_lessons([path.resolve() for path in settings.lessons], settings.all)


if __name__ == "__main__":
    main()
