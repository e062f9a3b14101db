"""Token ids against open_clip and transformers on generated strings."""

import gzip
import json
import random

import ftfy
import pytest

from CLIP.tokenizer import VOCABULARY, encode, fix_unicode, ids, is_plain, ranks, tokenize
from errors import UserError
from prompt import ABNORMAL_STATES, NORMAL_STATES, TEMPLATES, sentences
from tests.parity import REFERENCE

COUNT = 10_000
ALPHABETS = (
    "abcdefghijklmnopqrstuvwxyz",
    "ABCDEFGHIJKLMNOPQRSTUVWXYZ",
    "0123456789",
    ".,;:!?'\"-_()[]{}/\\@#$%^*+=~`|",
    "äöüßéèêàçñøåæœ",
    "абвгдежзийклмн",
    "αβγδεζηθικλμ",
    "日本語中文漢字かなカナ",
    "한국어조선말",
    "עבריתשלום",
    "हिन्दी",
    "😀🧠🫀🩻",
)
WORDS = [
    "don't",
    "we'll",
    "X-ray",
    "OCT",
    "damaged",
    "retinal",
    "histopathological",
    "I'm",
    "they're",
    "it's",
    "photo",
]


def strings() -> list[str]:
    """Draw strings of words, digits, punctuation and many scripts that fit the context."""
    generator = random.Random(5)
    texts: list[str] = []
    while len(texts) < COUNT:
        parts = []
        for _ in range(generator.randint(1, 6)):
            if generator.random() < 0.3:
                parts.append(generator.choice(WORDS))
            else:
                alphabet = generator.choice(ALPHABETS)
                parts.append(
                    "".join(generator.choice(alphabet) for _ in range(generator.randint(1, 7)))
                )
        text = generator.choice([" ", "  ", "", "\t", "\n"]).join(parts)
        if len(text) < 60 and len(encode(text)) <= 75:
            texts.append(text)
    return texts


def ours(text: str) -> list[int]:
    return tokenize([text])[0].tolist()


def test_equal_open_clip():
    open_clip = pytest.importorskip("open_clip")
    theirs = open_clip.SimpleTokenizer()
    wrong = [
        text
        for text in strings()
        if [i for i in theirs([text])[0].tolist() if i] != [i for i in ours(text) if i]
    ]
    assert wrong == []


def test_equal_transformers(tmp_path):
    transformers = pytest.importorskip("transformers")
    (tmp_path / "vocab.json").write_text(json.dumps(ids()))
    merges = ["#version: 0.2", *(" ".join(pair) for pair in ranks())]
    (tmp_path / "merges.txt").write_text("\n".join(merges) + "\n")
    theirs = transformers.CLIPTokenizer.from_pretrained(tmp_path)
    # the published CLIP fixes broken Unicode first, transformers does not: give both the fixed text
    wrong = [text for text in strings() if theirs(ftfy.fix_text(text))["input_ids"] != ours(text)]
    assert wrong == []


def test_vocabulary():
    assert len(ids()) == 49_408
    assert ids()["<|startoftext|>"] == 49_406
    with gzip.open(VOCABULARY, "rt", encoding="utf-8") as table:
        assert table.readline().startswith('"bpe_simple_vocab_16e6.txt#version')


def test_cleaning():
    assert encode("a  photo\n") == encode("A photo")
    assert encode("&amp;amp;") == encode("&")


def test_rows_are_padded_to_the_longest():
    tokens = tokenize(["a", "a photo of a brain"])
    assert tokens.shape == (2, 7)
    assert tokens[0].tolist()[3:] == [0, 0, 0, 0]


def test_a_long_sentence_is_refused():
    with pytest.raises(UserError, match="at most 77 fit"):
        tokenize(["brain " * 100])


def test_prompts():
    reference = json.loads((REFERENCE / "prompts.json").read_text())
    assert list(NORMAL_STATES) == reference["normal_states"]
    assert list(ABNORMAL_STATES) == reference["abnormal_states"]
    assert list(TEMPLATES) == reference["templates"]
    assert len(sentences("Brain", NORMAL_STATES)) == 245
    assert len(sentences("Brain", ABNORMAL_STATES)) == 175
    assert sentences("Brain", ABNORMAL_STATES)[0] == "a bad photo of a damaged Brain."


def test_ftfy_changes_no_plain_text():
    """Characters alone and in pairs, and the project's sentences; without them ftfy is needed."""
    plain = [c for c in map(chr, range(128)) if is_plain(c)]
    assert plain == [chr(i) for i in range(32, 127) if chr(i) != "&"]
    texts = plain + [f"a{first}{second}b" for first in plain for second in plain]
    for noun in ("Brain", "Retina_OCT2017", "X-ray 2's"):
        texts += sentences(noun, (*NORMAL_STATES, *ABNORMAL_STATES))
    assert all(is_plain(text) for text in texts)
    assert [ftfy.fix_text(text) for text in texts] == texts


@pytest.mark.parametrize("text", ["&AMP; x", "\x1b[31mred", "a\x07b", "schÃ¶n", "a\r\nb"])
def test_ftfy_still_repairs_other_texts(text):
    assert not is_plain(text)
    assert fix_unicode(text) == ftfy.fix_text(text) != text
