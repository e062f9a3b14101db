"""Files that are no weights, or damaged, end with one line, quickly, and without much memory."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.odd_weights import KINDS, write_all

ROOT = Path(__file__).parent.parent
SECONDS = 5
MEMORY = 1e9  # bytes, torch included
WORDS = {  # what a message says was found
    "empty": "it is empty",
    "web page": "it is a web page",
    "LFS pointer": "it is a pointer of Git LFS",
    "torch before 1.6": "a bare pickle",
    "cut off": "its ZIP archive is cut off",
    "changed number": "differs from its checksum",
    "compressed bomb": "its tensors are compressed",
    "huge tensor": "has another size than stated",
    "shared numbers": "its tensors state 8388608000 bytes",
    "system call": "it holds posix.system",
    "a module": "it holds torch.nn.modules.linear.Linear",
    "NaN": "not finite",
    "infinite": "not finite",
    "NaN of half precision": "not finite",
    "int8": "holds int8 numbers as visual.proj",
    "complex": "holds complex64 numbers as visual.proj",
    "sparse": "it holds sparse tensors",
    "quantised": "QInt8",
    "other shape": "visual.proj has shape [63, 64], allowed is [64, 64]",
    "many blocks": "5000 and 2 blocks",
    "odd width": "widths 64 and 32",
    "safetensors, header of 2^60 bytes": "it states a header of 1152921504606846976 bytes",
    "safetensors, overlapping": "overlap",
    "safetensors, int8": "holds int8 numbers",
}


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    """Read a file of each kind in a process of its own; return the answers, and its memory."""
    folder = tmp_path_factory.mktemp("odd")
    write_all(folder)
    done = subprocess.run(
        [sys.executable, "-m", "tests.odd_weights", str(folder)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    return dict(zip(KINDS, lines[:-1], strict=True)), lines[-1]["bytes"]


@pytest.mark.parametrize("kind", KINDS)
def test_one_line_says_what_was_found(answers, kind):
    answer = answers[0][kind]
    assert answer["message"] is not None, "it was taken for weights"
    assert answer["name"] in answer["message"]
    assert "\n" not in answer["message"]
    assert WORDS.get(kind, "") in answer["message"]
    assert answer["seconds"] < SECONDS
    assert not Path("/tmp/odd-weights-were-run").exists()


def test_no_file_takes_much_memory(answers):
    assert answers[1] < MEMORY


def test_there_are_no_words_for_kinds_that_do_not_exist():
    assert set(WORDS) <= set(KINDS)
