"""What all commands share: `pwfn COMMAND` and `launchers/COMMAND.py`, their help, their errors."""

import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import pwfn
from pwfn import commands
from pwfn.invocation import command_line

ROOT = Path(__file__).parents[2]
LAUNCHERS = ROOT / "launchers"
ARGUMENTS = ["--results", "my results", "--trial", "0007"]


def test_every_command_has_a_launcher_of_a_few_lines():
    launchers = {path.stem: path.read_text() for path in LAUNCHERS.glob("*.py") if path.stem != "checkout"}
    assert launchers.keys() == commands.COMMANDS.keys()
    for text in launchers.values():
        docstring, *code = filter(None, text.splitlines())
        assert docstring.startswith('"""')
        assert code == ["from checkout import launch", 'if __name__ == "__main__":', "    launch(__file__)"]


@pytest.mark.parametrize("name", commands.COMMANDS)
def test_command_and_launcher_give_the_same_help(name, capsys):
    with pytest.raises(SystemExit, match="0"):
        commands.main([name, "--help"])
    usage, *told = capsys.readouterr().out.split("\n\n")
    launcher = [sys.executable, f"launchers/{name}.py"]
    help_of_launcher = subprocess.run([*launcher, "--help"], capture_output=True, text=True, check=True, cwd=ROOT)
    usage_of_launcher, *told_by_launcher = help_of_launcher.stdout.split("\n\n")
    assert told == told_by_launcher
    assert told[0] == commands.COMMANDS[name]
    options = usage.split()[len(["usage:", "pwfn", name]) :]
    assert usage_of_launcher.split() == ["usage:", *launcher, *options]


def test_help_and_wrong_options_wait_for_no_large_package():
    code = (
        "import sys\n"
        "from pwfn.commands import COMMANDS, main\n"
        "for arguments in (['--help'], *([name, option] for name in COMMANDS for option in ('--help', '--hlep'))):\n"
        "    try: main(arguments)\n"
        "    except SystemExit as end: assert end.code == (2 if '--hlep' in arguments else 0), arguments\n"
        "assert not {'torch', 'ray', 'optuna', 'timm', 'pandas', 'pyarrow', 'analysis'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_the_help_lists_the_commands(capsys):
    with pytest.raises(SystemExit, match="0"):
        commands.main(["--help"])
    lines = [line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines()]
    for name, summary in commands.COMMANDS.items():
        assert [name, summary] in lines
    assert commands.main([]) == 2
    assert commands.COMMANDS["search"] in capsys.readouterr().err


def test_the_version_is_printed(capsys):
    with pytest.raises(SystemExit, match="0"):
        commands.main(["--version"])
    assert capsys.readouterr().out == f"pwfn {pwfn.__version__}\n"


def test_a_misspelt_command_gets_the_nearest_one(capsys):
    with pytest.raises(SystemExit, match="2"):
        commands.main(["serach", "--space", "digits"])
    error = capsys.readouterr().err
    assert "'serach' is not one of search, train, report, " in error
    assert error.endswith("; did you mean search?\n")


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ("/home/me/my envs/bin/pwfn", ["pwfn", "export"]),
        ("launchers/search.py", ["python", "launchers/export.py"]),
        ("../my pwfn/launchers/search.py", ["python", "../my pwfn/launchers/export.py"]),
        ("/else/tests/benchmarks/export.py", ["pwfn", "export"]),  # a program of another kind that uses the library
        ("", ["pwfn", "export"]),
    ],
)
def test_a_command_is_shown_as_the_program_was_called(script, expected, monkeypatch):
    monkeypatch.setattr(sys, "argv", [script, "--space", "digits"])
    monkeypatch.setattr(sys, "orig_argv", ["python", script, "--space", "digits"])
    assert shlex.split(command_line("export", *ARGUMENTS)) == [*expected, *ARGUMENTS]


def test_a_launcher_is_recognised_from_its_own_folder(monkeypatch):
    monkeypatch.chdir(LAUNCHERS)
    monkeypatch.setattr(sys, "argv", ["train.py"])
    monkeypatch.setattr(sys, "orig_argv", ["python3", "train.py"])
    assert command_line("export") == "python3 export.py"
