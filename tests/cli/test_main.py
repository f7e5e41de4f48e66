"""The command: verbs, help, and what a user sees when something is wrong."""

import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from cryohydra.cli import main as command
from cryohydra.cli.arguments import as_typed
from cryohydra.cli.main import VERBS, main
from cryohydra.errors import UserError


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_explains_itself(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main([verb, "--help"])
    assert caught.value.code == 0
    assert f"drgnai {verb}" in capsys.readouterr().out


def test_a_command_that_is_suggested_can_be_typed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a folder with a blank in its name, by a shell that finds the program and by one that does not."""
    monkeypatch.setenv("PATH", str(tmp_path))
    words = shlex.split(as_typed("export", tmp_path / "my run"))
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 2 and f"{tmp_path / 'my run'}" in done.stderr
    program = tmp_path / "drgnai"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    assert as_typed("explore", "OUT") == "drgnai explore OUT"


def test_without_a_verb_help_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "drgnai demo" in capsys.readouterr().out


def test_help_does_not_wait_for_torch() -> None:
    code = "import sys; from cryohydra.cli.main import VERBS, _parser; _parser(None); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.fixture
def with_verb(monkeypatch: pytest.MonkeyPatch) -> Callable[[Exception | type[BaseException]], None]:
    """Make `setup` raise."""

    def replace(error: Exception | type[BaseException]) -> None:
        def run(args: object) -> int:
            raise error

        module = SimpleNamespace(add_parser=lambda subparsers: subparsers.add_parser("setup"), run=run)
        monkeypatch.setattr(command.importlib, "import_module", lambda name: module)

    return replace


def test_user_errors_are_a_sentence(with_verb: Callable[[Exception], None], capsys: pytest.CaptureFixture[str]) -> None:
    with_verb(UserError("It rains; take an umbrella."))
    assert main(["setup"]) == 2
    assert capsys.readouterr().err == "drgnai: It rains; take an umbrella.\n"


def test_unwritable_folders_are_a_sentence(
    with_verb: Callable[[Exception], None], capsys: pytest.CaptureFixture[str]
) -> None:
    with_verb(PermissionError(13, "Permission denied", "/there"))
    assert main(["setup"]) == 2
    assert "/there: Permission denied" in capsys.readouterr().err


def test_our_own_bugs_are_not_hidden(with_verb: Callable[[Exception], None]) -> None:
    with_verb(AssertionError("a bug"))
    with pytest.raises(AssertionError):
        main(["setup"])


def test_stopping_is_not_an_error_message(
    with_verb: Callable[[type[BaseException]], None], capsys: pytest.CaptureFixture[str]
) -> None:
    with_verb(KeyboardInterrupt)
    assert main(["setup"]) == 130
    assert capsys.readouterr().err == "Stopped.\n"


def test_missing_run_folder_is_a_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for verb in ("train", "analyze", "checksum"):
        assert main([verb, str(tmp_path / "nothing")]) == 2
        assert capsys.readouterr().err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_reader_that_goes_away_is_no_error(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "cryohydra", "simulate", str(tmp_path / "out"), "--demo", "tric"]
    with subprocess.Popen(
        [*words, "--box", "16", "--apix", "27", "--n-images", "4"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()
        said = process.stderr.read().decode()
    assert process.returncode == 141, said
    assert "Traceback" not in said and "Exception" not in said
