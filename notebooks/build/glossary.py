"""The glossary: the words of all lessons, each lesson's from the table under "Words for this lesson"."""

import re
from typing import NamedTuple

from nbformat import NotebookNode

from build.lessons import LESSONS, name_of, opening_of, read

TABLE = re.compile(r"^## Words for this lesson\n(?s:.*?)\n(\|.+\|)\n\|[-| ]+\|\n((?:\|.+\|\n?)+)", re.M)
INTRODUCTION = """\
# Glossary

The words of the lessons, from A to Z. A word that two lessons use for two things stands here twice.

| word | symbol | in the code | shape, unit | lesson |
|---|---|---|---|---|
"""


class Word(NamedTuple):
    """What a lesson says of a word: what it means in short, if it does, and the cells of the other columns."""

    word: str
    meaning: str
    symbol: str
    code: str
    shape: str
    unit: str


def words_of(lesson: NotebookNode) -> list[Word]:
    """Return the words of a lesson, in its own order.

    Raises ValueError where it has no table of them.
    """
    text = "\n\n".join(cell.source for cell in lesson.cells if cell.cell_type == "markdown")
    if not (table := TABLE.search(text)):
        raise ValueError('the lesson has no table below a heading "## Words for this lesson"')
    columns, words = cells_of(table[1]), []
    for row in table[2].strip().splitlines():
        found = dict(zip(columns, cells_of(row), strict=True))
        word, _, meaning = found.get("term", found.get("name")).partition(": ")
        words.append(
            Word(
                word,
                meaning or found.get("what it is", ""),
                found.get("symbol", ""),
                found.get("name in the code", ""),
                found.get("shape", ""),
                found.get("unit", ""),
            )
        )
    return words


def cells_of(row: str) -> list[str]:
    """Return the cells of a table's row; a bar in code or after a backslash would be one of its cells' own."""
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", row)[1:-1]]


def make_glossary() -> str:
    """Return the page, in Markdown, with links that start from notebooks/."""
    rows = []
    for path in LESSONS:
        lesson = read(path)
        number, place = opening_of(lesson).title.partition(".")[0], f"{name_of(path)}#Words-for-this-lesson"
        for word in words_of(lesson):
            said = f"**{word.word}**" + f": {word.meaning}" * bool(word.meaning)
            size = ", ".join(part for part in (word.shape, word.unit) if part and not part.startswith("as "))
            row = f"| {said} | {word.symbol} | {word.code} | {size} | [{number}]({place}) |"
            rows.append((re.sub(r"\W", "", word.word.lower()), int(number), row))
    return INTRODUCTION + "\n".join(row for *_, row in sorted(rows)) + "\n"
