"""The tokenizer: rows of ids as v1.x lays them out, unknown words, files it cannot read."""

import json
from pathlib import Path

import numpy as np
import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st

from sd.config import SHAPES_CONFIG
from sd.shapes.caption import VOCABULARY, caption
from sd.shapes.scene import sample_scene
from sd.text.tokenizer import END, START, UNKNOWN, Tokenizer, word_level

embedded = Tokenizer.embedded()
words = st.lists(st.sampled_from(VOCABULARY), max_size=22)


def decode(row: list[int]) -> list[str]:
    """The row's tokens as text, by the public vocabulary only."""
    names = dict(enumerate([UNKNOWN, *VOCABULARY, START, END]))
    return [names[i] for i in row]


@given(words)
def test_a_row_is_start_words_end_and_end_again(prompt: list[str]) -> None:
    (row,) = embedded.encode([" ".join(prompt)]).tolist()
    assert decode(row) == [START, *prompt, *[END] * (23 - len(prompt))]


@given(words, st.integers(0, 2**32))
def test_case_spacing_and_punctuation_do_not_matter(prompt: list[str], seed: int) -> None:
    rng = np.random.default_rng(seed)
    marks = [" ", "  ", ", ", "\t", " - ", "\n", "."]
    spelled = "".join(
        (w.upper() if rng.random() < 0.5 else w.title()) + marks[int(rng.integers(len(marks)))]
        for w in prompt
    )
    assert embedded.encode([spelled]).equal(embedded.encode([" ".join(prompt)]))
    assert embedded.unknown_words(spelled) == []


@given(st.integers(0, 2**32), st.booleans())
def test_every_caption_is_known_and_fits(seed: int, held_out: bool) -> None:
    rng = np.random.default_rng(seed)
    text = caption(sample_scene(rng, held_out), rng)
    (row,) = embedded.encode([text]).tolist()
    assert embedded.unknown_words(text) == []
    assert [w for w in decode(row) if w not in (START, END)] == text.split()


def test_unknown_words_are_named_in_order_and_left_out() -> None:
    prompt = "A Big, red Café circle (big) x2 left-of!"
    assert embedded.unknown_words(prompt) == ["Big", "Café", "big", "x2"]
    assert embedded.encode([prompt]).equal(embedded.encode(["a red circle left of"]))


@settings(max_examples=200)
@given(st.text(max_size=12))
def test_any_text_gives_a_legal_row(prompt: str) -> None:
    tokens = embedded.encode([prompt], truncate=True)
    assert tokens.shape == (1, 24)
    assert tokens[0, 0] == embedded.start_token
    assert tokens[0, -1] == embedded.end_token
    assert int(tokens.min()) >= 1  # the unknown word's id never reaches the network
    assert int(tokens.max()) < SHAPES_CONFIG.text.vocab_size


def test_shapes_of_batches() -> None:
    assert embedded.encode([]).shape == (0, 24)
    both = embedded.encode(["red", ""])
    assert both[1].tolist() == [embedded.start_token, *[embedded.end_token] * 23]
    assert both[:1].equal(embedded.encode(["red"]))


def test_a_long_prompt_is_refused_or_cut() -> None:
    fits, over = " ".join(["red"] * 22), " ".join(["red"] * 23)
    assert embedded.encode([fits])[0, -1] == embedded.end_token
    with pytest.raises(ValueError, match="has 23 tokens; this model reads at most 22"):
        embedded.encode(["red", over])
    assert embedded.encode([over], truncate=True).equal(embedded.encode([fits]))


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("prompts", ["red circle", [None], [3]])
def test_what_is_no_list_of_strings_is_refused(prompts: object) -> None:
    with pytest.raises(ValueError, match="string"):
        embedded.encode(prompts)  # type: ignore[arg-type]


def test_the_embedded_file_is_what_the_code_makes() -> None:
    made = json.loads(word_level(VOCABULARY).to_str())
    path = Path(__file__).parents[3] / "sd" / "assets" / "tokenizer.json"
    assert json.loads(path.read_text(encoding="utf-8")) == made


def test_ids_agree_with_the_configuration() -> None:
    config = SHAPES_CONFIG.text
    assert embedded.vocab_size == config.vocab_size
    assert embedded.start_token == config.start_token
    assert embedded.end_token == config.end_token
    assert embedded.context_length == config.context_length
    assert embedded.words == list(VOCABULARY)


def test_a_byte_pair_file_in_the_manner_of_clip_reads_too(tmp_path: Path) -> None:
    """CLIP's file: BPE with `</w>`, lower case, start and end put on by the post-processor."""
    pieces = ["r", "e", "d</w>", "re", "red</w>", "o</w>", START, END]
    rules = tokenizers.Tokenizer(
        tokenizers.models.BPE(
            {piece: i for i, piece in enumerate(pieces)},
            [("r", "e"), ("re", "d</w>")],
            unk_token=END,
            end_of_word_suffix="</w>",
        )
    )
    rules.normalizer = tokenizers.normalizers.Lowercase()
    rules.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    rules.post_processor = tokenizers.processors.RobertaProcessing((END, 7), (START, 6))
    rules.enable_truncation(3)  # what a file says of lengths must not add to the row's rules
    path = tmp_path / "tokenizer.json"
    rules.save(str(path))
    found = Tokenizer.from_file(path, context_length=6)
    assert found.encode(["Red red o"]).tolist() == [[6, 4, 4, 5, 7, 7]]
    assert found.unknown_words("Red zebra") == []


def test_bad_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"absent\.json"):
        Tokenizer.from_file(tmp_path / "absent.json")
    corrupt = tmp_path / "corrupt.json"
    corrupt.write_bytes(b"\xff\xfe{")
    with pytest.raises(ValueError, match=r"corrupt\.json"):
        Tokenizer.from_file(corrupt)
    corrupt.write_text("{}")
    with pytest.raises(ValueError, match=r"corrupt\.json is not a tokenizer\.json"):
        Tokenizer.from_file(corrupt)
    other = tmp_path / "other.json"
    tokenizers.Tokenizer(tokenizers.models.WordLevel({"red": 0}, unk_token="red")).save(str(other))
    with pytest.raises(ValueError, match="must know the tokens"):
        Tokenizer.from_file(other)
    with pytest.raises(ValueError, match="context_length: wanted at least 2, got 1"):
        Tokenizer.embedded(1)


def test_words_must_not_repeat() -> None:
    for bad in (["red", "red"], ["red", END]):
        with pytest.raises(ValueError, match="wanted different words"):
            word_level(bad)
