"""The learner's file under 200 random edits by hand and keeps from two kernels: nothing is lost, what is kept works."""

import json
import random
import re
import subprocess
import sys
from pathlib import Path

import pytest
from learners import FILE, KEPT, MODEL, POLICY, SET_UP, keep

from vpg_lab import learner
from vpg_lab.checks.verdicts import check_as

KERNEL = """
import contextlib, io, json, sys
from IPython.core.interactiveshell import InteractiveShell
shell = InteractiveShell.instance()
shell.history_manager.enabled = False
for line in sys.stdin:
    said = io.StringIO()
    for cell in json.loads(line):
        with contextlib.redirect_stdout(said):
            shell.run_cell(cell, store_history=True)
    print(json.dumps(said.getvalue()), flush=True)
"""
LOSS = "def calculate_loss(log_probabilities, weights):\n    return -(log_probabilities * weights).mean()"
CELLS = {"create_model": MODEL, "get_policy": POLICY, "calculate_loss": LOSS}


class Kernel:
    """A kernel of its own, in which a learner's cells run."""

    def __init__(self, folder):
        command = [sys.executable, "-c", KERNEL]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        self.process = subprocess.Popen(command, cwd=folder, text=True, encoding="utf-8", **pipes)

    def begin(self, *cells):
        self.process.stdin.write(json.dumps(cells) + "\n")
        self.process.stdin.flush()

    def end(self):
        return json.loads(self.process.stdout.readline())


def edit(text, mark, chance):
    """Return the file's text as a learner might leave it who writes the mark into it."""
    lines = text.split("\n")
    tops = [number for number, line in enumerate(lines) if re.match(r"(def|class|import|from|# ----) ?", line)]
    insides = [number for number, line in enumerate(lines) if re.match("    return", line)]
    how = chance.choice(["comment", "function", "inside", "section", "end", "crlf", "mark", "ends", "broken"])
    if how == "inside" and insides:
        lines.insert(chance.choice(insides), f"    # {mark}")
    elif how == "function":
        lines += [f"def mine_{mark}():", f"    return '{mark}'", ""]
    elif how == "section":
        lines += [f"# ---- mine {mark} ----", f"MINE = '{mark}'", f"# ---- end of mine {mark} ----", ""]
    elif how == "end" and chance.random() < 0.3:  # a line goes that should stay
        ends = [number for number, line in enumerate(lines) if line.startswith("# ---- end of")]
        lines[chance.choice(ends or [len(lines) - 1])] = f"# {mark}"
    elif how == "broken" and chance.random() < 0.3:
        lines.insert(chance.choice(tops or [0]), f"broken by {mark} (")
    else:
        lines.insert(chance.choice(tops[1:] or [len(lines)]), f"# {mark}")
    end = "\r\n" if how == "crlf" else "\n"
    return "\ufeff" * (how == "mark") + end.join(lines)


def everything():
    return "\n".join(path.read_text(encoding="utf-8-sig") for path in Path().glob("my_agent*.py"))


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_nothing_is_lost_and_what_is_kept_works(tmp_path, monkeypatch, capsys, seed):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(learner, "HOME", tmp_path)
    chance, kernels = random.Random(seed), [Kernel(tmp_path), Kernel(tmp_path)]
    for kernel in kernels:
        kernel.begin(SET_UP)
        kernel.end()
    written, last, kept, refused = [], {}, 0, []
    for number in range(200):
        mark = f"mark_{number}_"
        if chance.random() < 0.5 and FILE.exists():
            text = FILE.read_text(encoding="utf-8-sig")
            FILE.write_bytes(edit(text, mark, chance).encode())
            written.append(mark)
        else:
            pair = kernels if chance.random() < 0.5 else chance.sample(kernels, 1)
            names = chance.sample(sorted(CELLS), len(pair))
            for kernel, name in zip(pair, names, strict=True):
                cell = CELLS[name].replace("    return", f"    # {mark}{name}\n    return")
                kernel.begin(cell, f"check({name})", keep(name))
            for kernel, name in zip(pair, names, strict=True):
                said = kernel.end()
                if KEPT in said:
                    last[name] = f"{mark}{name}"
                    written.append(last[name])
                    kept += 1
                else:
                    refused.append(said)
                if "It is now my_agent.broken" in said:
                    last = {name: last[name]} if KEPT in said else {}
            there = FILE.read_text(encoding="utf-8-sig") if FILE.exists() else ""
            gone = [name for name, its in last.items() if its not in there]
            assert not gone, (number, gone)
        lost = [mark for mark in written if mark not in everything()]
        assert not lost, (number, lost)
    for kernel in kernels:
        kernel.process.stdin.close()
        assert kernel.process.wait(60) == 0
    assert kept > 60 and all("Not kept: " in said for said in refused), refused
    mine = learner.with_my_functions(*CELLS)
    assert f"Yours: {', '.join(name for name in CELLS if name in last)}." in capsys.readouterr().out
    for name in last:
        check_as(name, getattr(mine, name))
    print(kept, "kept,", len(refused), "refused,", len(list(Path().glob("my_agent.broken*"))), "set aside", refused)
