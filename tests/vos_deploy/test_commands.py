import logging
import os
import subprocess
import sys

import pytest

import vos_deploy
from vos_deploy.commands import Parser, progress, run_command, setup_logging
from vos_deploy.errors import InputError, VosDeployError


@pytest.fixture
def logger():
    """The package's logger, put back afterwards."""
    logger = logging.getLogger("vos_deploy")
    before = logger.handlers, logger.level
    yield logger
    logger.handlers, logger.level = before


def run_script(script):
    return subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=30
    )


@pytest.mark.parametrize(("returned", "code"), [(None, 0), (0, 0), (1, 1)])
def test_run_command_returns_what_main_returns(returned, code):
    assert run_command(lambda argv: returned, []) == code


def test_run_command_hands_over_the_arguments(monkeypatch):
    seen = []
    run_command(seen.extend, ["--a", "b"])
    monkeypatch.setattr(sys, "argv", ["program", "c"])
    run_command(seen.extend)
    assert seen == ["--a", "b", "c"]


@pytest.mark.parametrize(("error", "code"), [(VosDeployError, 1), (InputError, 2)])
def test_errors_become_one_line_and_their_code(error, code, capsys):
    def main(argv):
        raise error("expected this, found that: do so")

    assert run_command(main, []) == code
    assert capsys.readouterr() == ("", "error: expected this, found that: do so\n")


def test_other_exceptions_keep_their_traceback():
    with pytest.raises(ZeroDivisionError):
        run_command(lambda argv: 1 // 0, [])


def test_ctrl_c_becomes_130(capsys):
    def main(argv):
        raise KeyboardInterrupt

    assert run_command(main, []) == 130
    assert capsys.readouterr().err == "interrupted\n"


def test_a_closed_pipe_ends_quietly():
    script = (
        "import sys; from vos_deploy.commands import run_command\n"
        "def main(argv):\n"
        "    for i in range(100_000): print(i)\n"
        "sys.exit(run_command(main, []))"
    )
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-c", script], stdout=writer, stderr=subprocess.PIPE, timeout=30
    )
    os.close(writer)
    assert done.returncode == 141
    assert done.stderr == b""


@pytest.mark.parametrize(
    ("verbosity", "shown"),
    [
        (-1, ["error: e"]),
        (0, ["error: e", "warning: w"]),
        (1, ["error: e", "warning: w", "info: i"]),
        (2, ["error: e", "warning: w", "info: i", "debug: d"]),
        (9, ["error: e", "warning: w", "info: i", "debug: d"]),
    ],
)
def test_verbosity_chooses_what_is_logged(logger, capsys, verbosity, shown):
    setup_logging(0)
    setup_logging(verbosity)
    child = logging.getLogger("vos_deploy.runtime")
    child.error("e")
    child.warning("w")
    child.info("i")
    child.debug("d")
    assert capsys.readouterr() == ("", "".join(f"{line}\n" for line in shown))


def test_progress_is_silent_without_a_terminal(capsys):
    assert list(progress(range(3), total=3, description="frames")) == [0, 1, 2]
    assert capsys.readouterr() == ("", "")


def test_help_shows_defaults_that_mean_something_and_the_example(capsys):
    parser = Parser("vos-deploy-x", "[options]", "Does x.", "vos-deploy-x --size 480")
    parser.add_argument("--size", type=int, default=480, help="shorter side")
    parser.add_argument("--output", help="a folder")
    parser.add_argument("--json", action="store_true", help="for machines")
    parser.add_argument("--range", action="append", default=[], help="several")
    text = parser.format_help()
    assert "shorter side (default: 480)" in text
    assert "None" not in text
    assert "False" not in text
    assert "[]" not in text
    assert text.startswith("usage: vos-deploy-x [options]\n")
    assert text.endswith("example:\n  vos-deploy-x --size 480\n")


def test_version(capsys):
    parser = Parser("vos-deploy-x", "[options]", "Does x.", "vos-deploy-x")
    with pytest.raises(SystemExit) as stop:
        parser.parse_args(["--version"])
    assert stop.value.code == 0
    assert capsys.readouterr().out == f"vos_deploy {vos_deploy.__version__}\n"


@pytest.mark.parametrize(
    ("typed", "line"),
    [
        (["--sise", "5"], "unknown option --sise; did you mean --size?; see vos-deploy-x --help"),
        (["--zzz"], "unknown option --zzz; see vos-deploy-x --help"),
        (["--siz", "5"], "unknown option --siz; did you mean --size?; see vos-deploy-x --help"),
        (["--size", "x"], "argument --size: invalid int value: 'x'; see vos-deploy-x --help"),
        (["more"], "unexpected argument 'more'; see vos-deploy-x --help"),
    ],
)
def test_a_wrong_command_line_is_one_line(typed, line):
    parser = Parser("vos-deploy-x", "[options]", "Does x.", "vos-deploy-x --size 480")
    parser.add_argument("--size", type=int)
    with pytest.raises(InputError) as error:
        parser.parse_args(typed)
    assert str(error.value) == line


def test_shared_modules_import_no_engine():
    script = (
        "import sys\n"
        "import vos_deploy.commands, vos_deploy.frames, vos_deploy.masks, vos_deploy.writers\n"
        "print({'torch', 'onnxruntime', 'tensorrt'} & set(sys.modules))"
    )
    assert run_script(script).stdout == "set()\n"


def test_file_that_cannot_be_written_is_named(tmp_path, capsys):
    (tmp_path / "file").write_text("not a folder")

    def main(argv):
        (tmp_path / "file" / "below").mkdir(parents=True)

    assert run_command(main, []) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ") and "file" in error and error.count("\n") == 1
