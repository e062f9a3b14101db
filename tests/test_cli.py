"""Scripts end with one line for a mistake, and with a status that says what happened."""

import pytest

from errors import LostProcessError, UserError
from mvfa.cli import command
from tests.script_runs import start


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--obj", "../Lung"], "'../Lung'"),
        (["--obj", "Brain", "--shots", "4"], "unrecognized arguments: --shots 4"),
        (["--obj", "Brain", "--shot", "0"], "0 is not at least 1"),
        (["--obj", "Brain", "--img_size", "abc"], "invalid int value: 'abc'"),
        (["--obj", "Brain", "--learning_rate", "-1"], "-1 is not at least 0"),
        (["--obj", "Brain", "--seed", "5000000000"], "5000000000 is not at most"),
        (["--obj", "Brain", "--cache_gb", "inf"], "inf is not finite"),
        ([], "the following arguments are required: --obj"),
        (["--obj", "Brain", "--clip_path", "nowhere.pt"], "no weights at nowhere.pt"),
        (["--obj", "Brain", "--model_name", "ViT-X"], "unknown model 'ViT-X'"),
    ],
)
def test_mistakes_are_one_line_and_status_2(arguments, message):
    ended = start("train_few.py", *arguments)
    assert ended.returncode == 2
    assert ended.stderr.startswith("error: ")
    assert len(ended.stderr.strip().splitlines()) == 1
    assert message in ended.stderr


@pytest.mark.parametrize("script", ["train_few", "test_few", "train_zero", "test_zero"])
def test_help_runs(script):
    ended = start(f"{script}.py", "--help")
    assert ended.returncode == 0
    assert "--obj" in ended.stdout


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (UserError("no such file"), 2, "error: no such file\n"),
        (
            LostProcessError("closed"),
            1,
            "error: another process was lost (closed); files written so far are whole\n",
        ),
        (KeyboardInterrupt(), 130, "\nstopped; files written so far are whole\n"),
    ],
)
def test_an_end_has_its_status(capsys, error, status, message):
    def main() -> None:
        raise error

    with pytest.raises(SystemExit) as ended:
        command(main)
    assert ended.value.code == status
    assert capsys.readouterr().err == message


def test_a_bug_is_not_hidden():
    def main() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        command(main)
