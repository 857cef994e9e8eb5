"""The command line: what it refuses, and a demo stopped at every step."""

import contextlib
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time

import pytest
import typer

from app import cli
from app.cli_server import spin_less
from tests.conftest import public_folder

COMMAND = [sys.executable, "-m", "app.cli"]
STEPS = ["Starting the database", "Preparing the subject", "Harvesting", " of "]


def run(arguments, monkeypatch, capsys):
    """Exit status and the last line on stderr."""
    monkeypatch.setattr("sys.argv", ["saescope", *map(str, arguments)])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    return stop.value.code, capsys.readouterr().err.strip().splitlines()[-1]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["harvest", "--sae", "/nowhere", "--model", "/nowhere", "--corpus", "text:x"], "No SAE folder at /nowhere"),
        (["harvest", "--sae", "SAE", "--model", "/nowhere", "--corpus", "text:x"], "No model at /nowhere"),
        (["harvest", "--sae", "SAE", "--model", "MODEL", "--corpus", "text:/nowhere"], "No text at /nowhere"),
        (["harvest", "--sae", "SAE", "--model", "MODEL", "--corpus", "nonsense"], "'nonsense' is not known"),
        (["harvest", "--sae", "SAE", "--model", "MODEL", "--corpus", "text:T", "--slug", "A b"], "'A b' cannot name"),
        (["train", "--model", "/nowhere", "--corpus", "text:x", "--out", "OUT"], "No model at /nowhere"),
        (["train", "--model", "MODEL", "--corpus", "text:T", "--out", "OUT", "--k", "9", "--latents", "3"], "k is 9"),
        (["train", "--model", "MODEL", "--corpus", "text:T@x", "--out", "OUT"], "number of tokens"),
        (
            ["harvest", "--sae", "SAE", "--model", "MODEL", "--corpus", "text:~nosuchuser/x"],
            "'~nosuchuser/x' cannot be looked",
        ),
        (["harvest", "--sae", "~nosuchuser/x", "--model", "MODEL", "--corpus", "text:T"], "up: there is no such user."),
        (["harvest", "--sae", "SAE", "--model", "MODEL", "--corpus", f"text:{'a' * 5000}"], "aaa…aaa"),
        (["harvest", "--sae", "a" * 5000, "--model", "MODEL", "--corpus", "text:T"], "aaa…aaa"),
        (
            ["harvest", "--sae", "SAE", "--model", "a" * 5000, "--corpus", "text:T"],
            "cannot be looked up: File name too long",
        ),
        (["harvest", "--sae", "SAE", "--model", "MODEL", "--corpus", "text:/tmp/\udcff"], "text:/tmp/� is not UTF-8"),
        (["import", "~nosuchuser/x"], "~nosuchuser/x names a user there is not."),
        (["import", "a" * 5000], "cannot be read: File name too long"),
        (["serve", "--port", "70000"], "70000"),
        (["nonsense"], "nonsense"),
    ],
)
def test_refusals_are_one_line(arguments, says, monkeypatch, capsys, sae_folder, tiny_folder, tmp_path):
    (tmp_path / "text.txt").write_text("Some words. " * 50)
    names = {"SAE": sae_folder, "MODEL": tiny_folder, "OUT": tmp_path / "out"}
    given = [str(names.get(a, a)).replace("text:T", f"text:{tmp_path / 'text.txt'}") for a in arguments]
    home = public_folder()
    monkeypatch.setenv("SAESCOPE_HOME", str(home))
    code, line = run(given, monkeypatch, capsys)
    assert code in (1, 2)
    assert line.startswith("saescope: ")
    assert says in line
    assert len(line) < 400
    assert ".." not in line
    assert not (tmp_path / "out").exists()
    assert not (home / "saes").exists()


COMMANDS = typer.main.get_command(cli.app).commands


@pytest.mark.parametrize("command", [None, *COMMANDS])
def test_every_command_has_its_help_as_it_is_written(command, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["saescope", *([command] if command else []), "--help"])
    monkeypatch.setenv("TERMINAL_WIDTH", "200")
    cli.main()
    told = " ".join(capsys.readouterr().out.split())
    assert "Usage: " in told
    shown = COMMANDS[command].params if command else []
    assert [one.name for one in shown if one.help and not one.hidden and one.help not in told] == []
    assert "hf:owner/repo[/folder][@revision]" in told or command != "import"


def test_a_fault_nobody_foresaw_is_one_line_and_says_how_to_see_more(monkeypatch, capsys):
    def fail(*_, **__):
        raise RuntimeError("the sky fell\nin two lines")

    monkeypatch.setattr(cli, "load_settings", fail)
    code, line = run(["serve"], monkeypatch, capsys)
    assert code == 1
    assert line.startswith("saescope: ")
    assert "the sky fell" in line
    assert "SAESCOPE_DEBUG=1" in line


def demo(home):
    environment = {**os.environ, "SAESCOPE_BATCH_TOKENS": "512", "PYTHONUNBUFFERED": "1"}
    arguments = [*COMMAND, "demo", "--no-serve", "--tokens", "6000", "--home", str(home)]
    return subprocess.Popen(
        arguments, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True, env=environment
    )


def read_until(process, mark, seconds=600):
    """What the process printed up to and with ``mark``, or all of it."""
    text, end = "", time.monotonic() + seconds
    while mark not in text and time.monotonic() < end:
        if select.select([process.stdout], [], [], 0.2)[0]:
            part = os.read(process.stdout.fileno(), 4096).decode()
            if not part:
                break
            text += part
    return text


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_that_a_library_swallowed_stops_before_the_next_step(monkeypatch, capsys, sent):
    def swallowing() -> None:
        with contextlib.suppress(BaseException):
            os.kill(os.getpid(), sent)
            time.sleep(5)  # the signal comes within
        cli.say("The next step")

    monkeypatch.setattr(cli, "app", lambda standalone_mode: swallowing())
    monkeypatch.setattr("sys.argv", ["saescope", "demo"])
    before, ended = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as stop:
        cli.main()
    told = capsys.readouterr().err
    assert stop.value.code == 130
    assert "The next step" not in told
    assert "Stopped." in told
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == (before, ended)


def test_ctrl_c_at_every_step_of_the_demo_leaves_nothing_broken(cache, real_folder):
    """The keyboard's signal goes to the whole group, the database's processes too; a scheduler's to the command."""
    home = public_folder()
    shutil.copytree(cache / "packages", home / "packages")
    for number, step in enumerate(STEPS):
        process = demo(home)
        seen = read_until(process, step)
        assert step in seen
        if number % 2:
            process.terminate()
        else:
            os.killpg(process.pid, signal.SIGINT)
        rest = process.communicate(timeout=300)[0].decode()
        # Where it comes within exec(), as a dataclass is being made, Python ends itself by the signal at the end.
        assert process.returncode in (130, -signal.SIGINT), seen + rest
        assert "Stopped. The same command carries on from here." in rest
        assert "Traceback" not in seen + rest
    process = demo(home)
    out = process.communicate(timeout=300)[0].decode()
    assert process.returncode == 0, out
    assert "Traceback" not in out
    again = demo(home)
    out = again.communicate(timeout=300)[0].decode()
    assert again.returncode == 0, out
    assert "Harvesting" not in out
    from app.settings import Settings
    from app.store.engine import database_url, sync_engine

    engine = sync_engine(database_url(Settings(home=home)))
    with engine.connect() as connection:
        harvests = connection.exec_driver_sql("SELECT tokens, metrics FROM harvest").all()
        latents = connection.exec_driver_sql("SELECT count(*) FROM latent").scalar_one()
    engine.dispose()
    assert len(harvests) == 1
    assert 5500 < harvests[0][0] <= 6000
    assert latents == 4096
    assert json.dumps(harvests[0][1])


def test_openmp_spins_little_where_the_site_is_served_unless_told_otherwise(monkeypatch):
    for given, left in (({}, "10000"), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "ACTIVE"}, None)):
        with monkeypatch.context() as patch:
            patch.setattr(os, "environ", given)
            spin_less()
            assert given.get("GOMP_SPINCOUNT") == left
    loaded = "import sys, app.cli; print('torch' in sys.modules)"  # it reads them once, as it is loaded
    assert (
        subprocess.run([sys.executable, "-c", loaded], capture_output=True, text=True, check=True).stdout == "False\n"
    )
