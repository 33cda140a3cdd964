"""Every command: exit status, standard streams, signals, and faults of graphscale."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import onnx
import pytest

from graphscale.cli.command_line import main
from graphscale.core.errors import GraphScaleError
from graphscale.core.tuning import Tuner
from tests.cli.signals import heed_signals


def run(*arguments: object, before: str = "", **options) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own, after the Python code `before`."""
    code = f"{textwrap.dedent(before)}\nimport sys\nfrom graphscale.cli import main\n"
    command = [sys.executable, "-c", code + "sys.exit(main(sys.argv[1:]))", *map(str, arguments)]
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, **options}
    return subprocess.run(command, preexec_fn=heed_signals, **options)


# --- standard streams -----------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "latin-1"])
def test_tables_in_other_encodings(target: Path, encoding: str) -> None:
    environment = os.environ | {"PYTHONIOENCODING": encoding}
    done = run("shrink", target, env=environment)
    assert done.returncode == 0
    assert done.stderr == ""
    assert "5x5 -> 3x3" in done.stdout
    assert done.stdout.isascii()


@pytest.mark.parametrize("arguments", [("train", "--help"), ("completion", "zsh")])
def test_texts_of_ours_are_ascii(arguments: tuple[str, str]) -> None:
    """Also where a name that is not UTF-8 would be printed as it is, as in the locale C."""
    locale = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    done = run(*arguments, env=os.environ | locale)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.isascii()
    assert "\\u" not in done.stdout


def test_names_that_the_encoding_lacks(target: Path) -> None:
    model = onnx.load(target)
    model.graph.node[0].name = "größe→"
    onnx.save(model, target)
    for options in ([], ["--json"]):
        environment = os.environ | {"PYTHONIOENCODING": "ascii:surrogateescape"}
        done = run("shrink", target, *options, env=environment)
        assert done.returncode == 0, done.stderr
        assert "gr\\" in done.stdout


def test_a_full_standard_output_is_said(target: Path) -> None:
    with open("/dev/full", "w") as full:
        done = run("shrink", target, stdout=full)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "No space left" in done.stderr
    assert "target.pretrain.onnx and" in done.stderr
    assert target.with_suffix(".pretrain.onnx").exists()


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_closed_streams_are_never_a_models_place(target: Path, closed: str) -> None:
    command = f'"$0" -m graphscale shrink "$1" {closed}'
    done = subprocess.run(
        ["sh", "-c", command, sys.executable, str(target)], capture_output=True, text=True
    )
    assert done.returncode == (1 if closed != "2>&-" else 0)
    onnx.checker.check_model(str(target.with_suffix(".pretrain.onnx")), full_check=True)
    json.loads(target.with_suffix(".pretrain.plan.json").read_text())


def test_a_reader_that_leaves_is_no_error(target: Path) -> None:
    command = f'"{sys.executable}" -m graphscale shrink "{target}"; echo $? >&2'
    done = subprocess.run(
        ["sh", "-c", f"({command}) | true"], capture_output=True, text=True, check=True
    )
    assert done.stderr == "0\n"


def test_quiet_says_nothing_but_errors(target: Path, capsys) -> None:
    assert main(["shrink", str(target), "--quiet", "--kernels", "5:3,41:30"]) == 0
    assert capsys.readouterr() == ("", "")
    assert main(["shrink", str(target), "--quiet", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["layers"]
    assert main(["grow", str(target), "--quiet"]) == 2
    assert "--plan" in capsys.readouterr().err


def test_verbose_says_each_step_and_where_an_error_comes_from(target: Path, capsys) -> None:
    assert main(["shrink", str(target), "--verbose"]) == 0
    steps = capsys.readouterr().err.splitlines()
    assert [step.split(": ")[-1].split()[-1] for step in steps] == ["read", "made", "written"]
    assert main(["grow", str(target), "--verbose"]) == 2
    assert "Traceback" in capsys.readouterr().err


def test_long_work_prints_lines_where_there_is_no_terminal(target: Path) -> None:
    before = """
        import time
        import graphscale.cli.progress
        import graphscale.core.model_files as files
        graphscale.cli.progress._SECONDS = 0.1
        load = files.load_model
        files.load_model = lambda path: (time.sleep(1), load(path))[1]
    """
    done = run("shrink", target, before=before)
    assert done.returncode == 0
    assert done.stderr.count("graphscale: shrinking, ") >= 3
    assert run("shrink", target, "--quiet", before=before).stderr == ""


# --- signals --------------------------------------------------------------------------------------

# The command sends itself a signal in the check, or while it shows its results.
IN_A_CALL = """
    import os, signal
    import graphscale.{module} as module
    signal.signal(signal.SIGINT, signal.default_int_handler)
    module.{function} = lambda *arguments: os.kill(os.getpid(), signal.{name})
"""
# While the model is written: its temporary file is there and has no name yet.
DURING_WRITING = """
    import os, signal
    import graphscale.core.model_files as files
    signal.signal(signal.SIGINT, signal.default_int_handler)
    write = files._write
    files._write = lambda *arguments: (write(*arguments), os.kill(os.getpid(), signal.{name}))
"""
STATUS = {"SIGINT": 130, "SIGTERM": 143, "SIGHUP": 129}
WORD = {"SIGINT": "interrupted", "SIGTERM": "terminated", "SIGHUP": "terminated"}


@pytest.mark.parametrize("name", STATUS)
def test_a_signal_in_the_check_leaves_no_file_and_one_after_it_a_complete_one(
    target: Path, name: str
) -> None:
    assert main(["shrink", str(target), "--quiet"]) == 0
    checkpoint = target.with_suffix(".pretrain.onnx")
    output = target.with_name("grown.onnx")
    before = IN_A_CALL.format(module="rescaling.fidelity", function="compare", name=name)
    done = run("grow", checkpoint, "-o", output, "--check", before=before)
    assert done.returncode == STATUS[name]
    assert done.stderr == f"graphscale: {WORD[name]}; nothing was written\n"
    assert not output.exists()
    before = IN_A_CALL.format(module="cli.tables", function="show_growth", name=name)
    done = run("grow", checkpoint, "-o", output, "--check", before=before)
    assert done.returncode == STATUS[name]
    assert done.stderr == f"graphscale: {WORD[name]}; {output} is written and complete\n"
    onnx.checker.check_model(str(output), full_check=True)


@pytest.mark.parametrize("name", STATUS)
def test_a_signal_while_writing_leaves_no_file(target: Path, name: str) -> None:
    files = sorted(target.parent.iterdir())
    done = run("shrink", target, before=DURING_WRITING.format(name=name))
    assert done.returncode == STATUS[name]
    assert done.stderr == f"graphscale: {WORD[name]}; nothing was written\n"
    assert sorted(target.parent.iterdir()) == files


# The same, where what the signal raises is lost: in a destructor, and in an import.
LOST = {
    "destructor": "pass",
    "import": "raise ImportError('initialization failed')",
}


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
@pytest.mark.parametrize("place", LOST)
def test_a_signal_that_a_library_swallows_counts(target: Path, place: str, name: str) -> None:
    assert main(["shrink", str(target), "--quiet"]) == 0
    output = target.with_name("grown.onnx")
    before = f"""
        import os, signal
        import graphscale.rescaling.fidelity as fidelity
        signal.signal(signal.SIGINT, signal.default_int_handler)
        def swallow(*arguments):
            try:
                os.kill(os.getpid(), signal.{name})
            except KeyboardInterrupt:
                {LOST[place]}
            return []
        fidelity.compare = swallow
    """
    done = run(
        *("grow", target.with_suffix(".pretrain.onnx"), "-o", output, "--check", "--quiet"),
        before=before,
    )
    assert done.returncode == STATUS[name]
    # A destructor's error is lost, so that the command goes on to its end.
    files = f"{output} is written and complete" if place == "destructor" else "nothing was written"
    assert done.stderr == f"graphscale: {WORD[name]}; {files}\n"


def test_ctrl_c_while_python_starts_or_ends_is_no_traceback() -> None:
    code = """if True:
        import os, signal
        import graphscale.__main__, graphscale.cli
        graphscale.cli.main = lambda: os.kill(os.getpid(), signal.SIGINT)
        graphscale.__main__.command()
    """
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, preexec_fn=heed_signals)
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, "", "")


def test_nohup_is_heeded(target: Path) -> None:
    before = "import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
    before += textwrap.dedent(DURING_WRITING.format(name="SIGHUP"))
    assert run("shrink", target, before=before).returncode == 0


def test_handlers_of_the_process_are_as_before(target: Path) -> None:
    before = signal.getsignal(signal.SIGTERM)
    assert main(["shrink", str(target), "--quiet"]) == 0
    assert signal.getsignal(signal.SIGTERM) is before


# --- faults of graphscale, and missing packages ---------------------------------------------------


def test_a_fault_of_ours_is_reported_as_such(target: Path, monkeypatch, capsys) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ZeroDivisionError("a mistake\nof ours")

    monkeypatch.setattr("graphscale.core.model_files.load_model", fail)
    assert main(["shrink", str(target)]) == 70
    out, err = capsys.readouterr()
    assert out == ""
    first, second = err.splitlines()
    assert "internal error: ZeroDivisionError: a mistake of ours (test_command_line.py" in first
    assert "report" in second
    assert "--verbose" in second
    assert main(["shrink", str(target), "--verbose"]) == 70
    assert "Traceback" in capsys.readouterr().err


def test_a_warning_of_ours_is_a_note(target: Path, monkeypatch, capsys) -> None:
    def fail(*_: object, **__: object) -> None:
        Tuner("runtime", target / "tuning.json").seconds("key", lambda: {"one": lambda: None})
        raise GraphScaleError("no more")

    monkeypatch.setattr("graphscale.core.model_files.load_model", fail)
    assert main(["shrink", str(target)]) == 2
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith(f"graphscale: note: {target}/tuning.json: measurements cannot be kept")
    assert second == "graphscale: no more"


def test_a_file_that_the_system_refuses_is_named(target: Path, monkeypatch, capsys) -> None:
    def fail(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", "there/it.onnx")

    monkeypatch.setattr("graphscale.core.model_files.load_model", fail)
    assert main(["shrink", str(target)]) == 2
    said = capsys.readouterr().err
    assert said.startswith("graphscale: there/it.onnx: cannot be used (Permission denied); give")


@pytest.mark.parametrize("package", ["onnxruntime", "torch"])
def test_a_missing_package_is_named_with_its_extra(target: Path, package: str) -> None:
    before = f"import sys; sys.modules[{package!r}] = None"  # as if it were not installed
    done = run("shrink", target, "--quiet", before=before)
    assert done.returncode == 0, done.stderr
    if package == "torch":
        code = "import graphscale; graphscale.load"
    else:
        code = f"import graphscale; graphscale.session({str(target)!r})"
    done = run("shrink", "none.onnx", before=f"{before}\n{code}")
    assert "MissingPackageError" in done.stderr.splitlines()[-1]
    assert "pip install 'graphscale[" in done.stderr


def test_memory_that_is_not_there(target: Path, monkeypatch, capsys) -> None:
    def fail(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr("graphscale.core.model_files.load_model", fail)
    assert main(["shrink", str(target)]) == 2
    said = "not enough memory for this model; close other programs, or use a larger machine"
    assert capsys.readouterr().err == f"graphscale: {said}\n"


# --- arguments ------------------------------------------------------------------------------------


def test_unknown_options_exit_with_2(target: Path, capsys) -> None:
    for arguments in (["shrink"], ["shrink", str(target), "--init", "zero"], ["melt", "x"], []):
        with pytest.raises(SystemExit) as error:
            main(arguments)
        assert error.value.code == 2
