"""Byte-pair tokenizer of CLIP (SPEC section 2): lower-cased text to token ids.

The vocabulary `bpe_simple_vocab_16e6.txt.gz` is CLIP's own, unchanged.
"""

import gzip
import html
from collections.abc import Sequence
from functools import cache
from itertools import pairwise
from pathlib import Path

import regex
import torch
from torch import Tensor

from errors import UserError

VOCABULARY = Path(__file__).with_name("bpe_simple_vocab_16e6.txt.gz")
START = "<|startoftext|>"
END = "<|endoftext|>"
MERGES = 48_894  # CLIP uses only the first lines of the vocabulary
END_OF_WORD = "</w>"
WORDS = regex.compile(
    r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+",
    regex.IGNORECASE,
)


@cache
def byte_symbols() -> dict[int, str]:
    """Return a printable character for each byte, in the order of the vocabulary's numbers.

    Bytes that print in Latin-1 stand for themselves; the others get code points from 256 on.
    """
    printable = [b for b in range(256) if chr(b).isprintable() and not chr(b).isspace()]
    others = [b for b in range(256) if b not in printable]
    return {b: chr(b) for b in printable} | {b: chr(256 + i) for i, b in enumerate(others)}


@cache
def ranks() -> dict[tuple[str, str], int]:
    """Return the rank of every pair of symbols that merges; the lowest merges first."""
    with gzip.open(VOCABULARY, "rt", encoding="utf-8") as table:
        lines = table.read().split("\n")[1 : MERGES + 1]  # the first line names the version
    pairs = (line.split() for line in lines)
    return {(first, second): i for i, (first, second) in enumerate(pairs)}


@cache
def ids() -> dict[str, int]:
    """Return the id of every symbol: bytes, bytes that end a word, merges, start, end."""
    symbols = list(byte_symbols().values())
    words = [
        *symbols,
        *(s + END_OF_WORD for s in symbols),
        *("".join(pair) for pair in ranks()),
        START,
        END,
    ]
    return {word: i for i, word in enumerate(words)}


def is_plain(text: str) -> bool:
    """Return whether a text is printable ASCII without "&", of which ftfy changes nothing."""
    return text.isascii() and text.isprintable() and "&" not in text


def fix_unicode(text: str) -> str:
    """Return what ftfy makes of a text: broken encodings, entities and control codes repaired."""
    if is_plain(text):
        return text
    import ftfy  # not installed everywhere, and sentences of this project are plain

    return ftfy.fix_text(text)


def clean(text: str) -> str:
    """Fix Unicode, resolve HTML entities (twice, as CLIP does), collapse spaces, lower the case."""
    fixed = html.unescape(html.unescape(fix_unicode(text)))
    return " ".join(fixed.split()).lower()


@cache
def merge(word: str) -> tuple[int, ...]:
    """Return the token ids of one word, given as characters of `byte_symbols`."""
    parts = [*word[:-1], word[-1] + END_OF_WORD]
    while len(parts) > 1:
        best = min(pairwise(parts), key=lambda pair: ranks().get(pair, MERGES))
        if best not in ranks():
            break
        merged = []
        i = 0
        while i < len(parts):
            step = 2 if tuple(parts[i : i + 2]) == best else 1
            merged.append("".join(parts[i : i + step]))
            i += step
        parts = merged
    return tuple(ids()[part] for part in parts)


def encode(text: str) -> list[int]:
    """Return the token ids of a text, without start and end."""
    tokens: list[int] = []
    for word in WORDS.findall(clean(text)):
        if word in (START, END):
            tokens.append(ids()[word])
        else:
            tokens.extend(merge("".join(byte_symbols()[b] for b in word.encode())))
    return tokens


def tokenize(texts: Sequence[str], context_length: int = 77) -> Tensor:
    """Return the token ids of sentences, [B, T] int64: start, text, end, zeros.

    T is the length of the longest sentence. Raises UserError if one has more than
    `context_length` tokens.
    """
    rows = [[ids()[START], *encode(text), ids()[END]] for text in texts]
    for text, row in zip(texts, rows, strict=True):
        if len(row) > context_length:
            raise UserError(
                f"the sentence {text[:60]!r}... has {len(row)} tokens; at most {context_length} "
                "fit, so shorten the noun (--noun)"
            )
    tokens = torch.zeros(len(rows), max(map(len, rows)), dtype=torch.int64)
    for i, row in enumerate(rows):
        tokens[i, : len(row)] = torch.tensor(row)
    return tokens
