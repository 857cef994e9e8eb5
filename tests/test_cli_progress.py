"""What a harvest shows in the terminal, and without one."""

import os
import pty
import subprocess
import sys

from app.cli_progress import Lines
from app.harvest.run import Progress

SCRIPT = """
from app.cli_progress import Bar
from app.harvest.run import Progress

bar = Bar()
bar.doing("loading the subject")
bar._bar.refresh()
bar.step(Progress(250, 1000, 50, 100.0))
bar._bar.refresh()
bar.step(Progress(1000, 1000, 50, 200.0))
bar._bar.refresh()
bar.doing("measuring loss recovered")
bar.close()
"""


def test_lines_say_once_what_is_carried_on_and_no_time_left_when_all_is_read(capsys):
    lines = Lines()
    lines.doing("loading the subject")
    for tokens, seconds in ((60, 1.0), (70, 2.0), (250, 12.0), (1000, 20.0)):
        lines.step(Progress(tokens, 1000, 50, seconds))
    lines.doing("measuring loss recovered")
    lines.close()
    assert capsys.readouterr().err.splitlines() == [
        "loading the subject ...",
        "carrying on after 50 tokens",
        "250 of 1,000 tokens  17 tok/s  45 s left",
        "1,000 of 1,000 tokens  48 tok/s",
        "measuring loss recovered ...",
    ]


def test_a_corpus_of_unknown_length_has_no_time_left(capsys):
    lines = Lines()
    lines.step(Progress(1000, None, 0, 12.0))
    assert capsys.readouterr().err.splitlines() == ["1,000 tokens  83 tok/s"]


def test_a_terminal_names_the_stage_in_the_place_of_speed_and_time_left():
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "80"}
    process = subprocess.Popen([sys.executable, "-c", SCRIPT], stderr=theirs, stdout=theirs, env=environment)
    os.close(theirs)
    seen = b""
    try:
        while part := os.read(ours, 4096):
            seen += part
    except OSError:  # the other end is closed
        pass
    os.close(ours)
    assert process.wait(timeout=300) == 0
    shown = seen.decode()
    assert "carrying on after 50 tokens" in shown
    assert "loading the subject ..." in shown
    assert "250 of 1,000 tokens" in shown
    assert "6 min 15 s left" in shown
    last = shown.rpartition("\x1b[2K")[2]  # what the line was cleared for
    assert "1,000 of 1,000 tokens" in last
    assert "measuring loss recovered ..." in last
    assert "left" not in last
    assert "0 s left" not in shown
