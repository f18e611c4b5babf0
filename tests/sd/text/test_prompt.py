"""Prompts: the grammar of weights, rows of tokens, and what the U-Net attends to."""

import time

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from sd.text.clip_vocabulary import rules_of_merges
from sd.text.conditioning import context, rows
from sd.text.prompt import (
    Piece,
    foreign_marks,
    literal,
    marked,
    paired,
    parse,
    require_text,
    words,
)
from sd.text.tokenizer import Tokenizer, word_level

WORDS = ("cat", "dog", "red", "blue", "a", ",")
tokenizer = Tokenizer(word_level(WORDS), 6)  # four words to a row


def pieces(prompt: str) -> list[tuple[str, float]]:
    (stretch,) = parse(prompt)
    return [(piece.text, pytest.approx(piece.weight)) for piece in stretch]


@pytest.mark.parametrize(
    ("prompt", "wanted"),
    [
        ("a cat", [("a cat", 1)]),
        ("a (cat)", [("a ", 1), ("cat", 1.1)]),
        ("((cat)) [dog]", [("cat", 1.21), ("dog", 1 / 1.1)]),
        ("a (cat:1.3), red", [("a ", 1), ("cat", 1.3), (", red", 1)]),
        ("(cat : 2 )", [("cat ", 2)]),
        ("(cat:.5)(dog:-1)", [("cat", 0.5), ("dog", -1)]),
        ("(a [cat] dog:2)", [("a ", 2), ("cat", 2 / 1.1), (" dog", 2)]),
        (r"\(cat\) \[x\] \\", [(r"(cat) [x] \ ".strip(), 1)]),
        ("cat) a (dog", [("cat) a (dog", 1)]),
        ("(cat:1.3", [("(cat:1.3", 1)]),
        ("cat:1.3)", [("cat:1.3)", 1)]),
        ("[cat)", [("[cat)", 1)]),
        ("a ratio of 1:2", [("a ratio of 1:2", 1)]),
        ("BREAKFAST", [("BREAKFAST", 1)]),
        ("", []),
    ],
)
def test_the_grammar(prompt: str, wanted: list[tuple[str, float]]) -> None:
    assert pieces(prompt) == wanted


@pytest.mark.parametrize(
    ("prompt", "marks"),
    [
        ("a [cat:dog:0.5] b", ["[cat:dog:0.5]"]),
        ("[dog:0.5] [cat::10]", ["[dog:0.5]", "[cat::10]"]),
        ("[a:(b:1.2):0.5]", ["[a:(b):0.5]"]),
        ("[cat|dog]", ["[cat|dog]"]),
        ("[(cat:1.2)|dog]", ["[(cat)|dog]"]),
        ("a cat AND a dog:1.2", ["AND"]),
        (
            "<lora:style:0.8> <lyco:x> <hypernet:y:1>",
            ["<lora:style:0.8>", "<lyco:x>", "<hypernet:y:1>"],
        ),
        ("<LORA:x:1> < wlr:y > <random:a,b>", ["<LORA:x:1>", "< wlr:y >", "<random:a,b>"]),
        ("a cat ADDCOL a dog AND_SALT fog", ["ADDCOL", "AND_SALT"]),
        ("[cat:dog:5e-1] [cat:dog:50%]", ["[cat:dog:5e-1]", "[cat:dog:50%]"]),
        ("(cat:1e2) (dog:nan) (cow:120%)", [":1e2)", ":nan)", ":120%)"]),
        ("（cat:1.2） (dog：1.3)", [":1.2）", "：1.3)"]),
        ("embedding:bad-hands", ["embedding:bad-hands"]),
        ("a {red|blue} cat", ["{red|blue}"]),
        ("{{masterpiece}}", ["{masterpiece}"]),
        ("an __animal__ and __deep/*__", ["__animal__", "__deep/*__"]),
        ("(cat:1,3)", [":1,3)"]),
        ("(cat:1.2.3)", [":1.2.3)"]),
        ("(a cat)++ dog-- (red)1.3", [")++", "dog--", ")1.3"]),
        ('("a", "b").blend(0.5, 1)', [").blend("]),
        ("a cat --ar 16:9", ["--ar 16:9"]),
        ("(a cat", ["("]),
        ("(a [b) c]", ["("]),
        ("[a", ["["]),
    ],
)
def test_marks_of_other_interfaces_are_found(prompt: str, marks: list[str]) -> None:
    assert list(foreign_marks(prompt)) == marks


@pytest.mark.parametrize(
    "prompt",
    [
        "a (cat:1.2), ((dog)), [red] (blue : 2 )",
        r"\[cat\|dog\] \(a\) \{b\|c\} \<lora:x\>",
        "a ratio of 1:2 at 16:9, well-known, 50%, $5 | x",
        "Andy and Anna, BRAND new, sand",
        "smile :) c++ a -- b (a) - c (60s)",
        "snake_case_word __init a|b <toy-cat> x > y < z",
        "BREAK",
        "",
    ],
)
def test_plain_words_and_the_own_marks_are_none(prompt: str) -> None:
    assert foreign_marks(prompt) == {}


MARKS = st.sampled_from(["BREAK", *"ab ()[]:\\.0123456789|{}_<>", "AND"])


@given(st.lists(MARKS, max_size=30).map("".join))
def test_what_is_escaped_is_typed_as_it_stands(text: str) -> None:
    """`literal` is undone by `parse`: one piece of weight 1."""
    wanted = (Piece(text),) if text.strip() else ()
    assert parse(literal(text)) == (wanted,)


@given(st.lists(MARKS, max_size=30).map("".join))
def test_an_escaped_text_has_the_tokens_of_the_text(text: str) -> None:
    """Also where it is cut: a caption is trained and sampled as the same row."""
    letters = Tokenizer(rules_of_merges([("a", "b"), ("b", "a")]), 8)
    (trained,) = letters.encode([text], truncate=True)
    sampled = rows(letters, literal(text), "truncate")
    assert torch.equal(sampled.tokens, trained[None]) and bool((sampled.weights == 1).all())


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("a (b)", True),
        ("[a]", True),
        (r"a \(b", True),
        ("a BREAK b", True),
        ("(a:" + "9" * 400 + ")", True),
        ("smile :) 1) first", False),
        ("a {b} AND c", False),
        (r"a \ b", False),
    ],
)
def test_marks_that_act_are_found(text: str, wanted: bool) -> None:
    assert marked(text) == wanted


@pytest.mark.parametrize("text", ["caf\udce9", "\ud83d", "a\0b", None, 3, b"cat"])
def test_what_is_no_text_is_refused(text: object) -> None:
    with pytest.raises(ValueError, match=r"^prompt: wanted text"):
        require_text("prompt", text)
    if isinstance(text, str):
        with pytest.raises(ValueError, match=r"^prompt: wanted text"):
            parse(text)


@pytest.mark.slow
@pytest.mark.parametrize(
    "mark", ["(", "(a)", "((a)", "[a:", "(a:" + "9" * 200, ": " * 9, "{a|", "__"]
)
def test_a_long_prompt_takes_linear_time(mark: str) -> None:
    """128 KiB of marks, which would take minutes if each looked at all others."""
    prompt = mark * (2**16 // len(mark)) + ")" * 2**16
    start = time.process_time()
    parse(prompt)
    foreign_marks(prompt)
    assert time.process_time() - start < 5


def test_weights_multiply_from_the_outside_in() -> None:
    (stretch,) = parse("(a [b (c:3)] d:2)")
    assert [piece.text.strip() for piece in stretch] == ["a", "b", "c", "d"]
    wanted = [2, 2 / 1.1, 2 / 1.1 * 3, 2]
    assert [piece.weight for piece in stretch] == pytest.approx(wanted)


def test_breaks_part_stretches() -> None:
    assert parse("a BREAK (cat:2) BREAK") == ((Piece("a "),), (Piece("cat", 2.0),), ())
    assert words("a BREAK (cat:2)").split() == ["a", "cat"]


def test_a_weight_is_finite() -> None:
    with pytest.raises(ValueError, match=r"prompt: wanted a finite weight, got ':9{400}\)'"):
        parse("(cat:" + "9" * 400 + ")")


@given(st.text(alphabet="ab ()[]:\\.0123456789", max_size=30))
def test_every_text_is_a_prompt_and_loses_no_letter(prompt: str) -> None:
    """Whatever the brackets, letters stay in their order."""
    kept = "".join(piece.text for stretch in parse(prompt) for piece in stretch)
    assert [c for c in kept if c in "ab"] == [c for c in prompt if c in "ab"]


def names(found: Tensor) -> list[list[str]]:
    vocabulary = ["?", *WORDS, "<", ">"]
    return [[vocabulary[i] for i in row] for row in found.tolist()]


def test_rows_hold_whole_words_and_their_weights() -> None:
    found = rows(tokenizer, "a red cat , (dog:2) BREAK blue")
    assert names(found.tokens) == [
        ["<", "a", "red", "cat", ",", ">"],
        ["<", "dog", ">", ">", ">", ">"],
        ["<", "blue", ">", ">", ">", ">"],
    ]
    assert found.weights.tolist() == [[1] * 6, [1, 2, 1, 1, 1, 1], [1] * 6]
    assert names(rows(tokenizer, "").tokens) == [["<", *">>>>>"]]
    padded = Tokenizer(word_level(WORDS), 6, pad=0)
    assert names(rows(padded, "cat").tokens) == [["<", "cat", ">", "?", "?", "?"]]


def test_a_word_of_several_tokens_is_not_split_unless_it_must(byte_level: Tokenizer) -> None:
    """Six tokens a row: after four letters a word of three goes to the next row; one of 8 fills."""
    letters = [len(ids) for _, ids in byte_level.words_of("abcd xyz")]
    assert letters == [4, 3]
    first, second = rows(byte_level, "abcd xyz").tokens.tolist()
    end = byte_level.end_token
    assert [first.index(end), second.index(end)] == [5, 4]
    assert len(rows(byte_level, "abcdefgh").tokens) == 2


@pytest.fixture
def byte_level() -> Tokenizer:
    """A token for each letter, words parted by spaces, as a BPE without merges has it."""
    from tokenizers import Tokenizer as Rules
    from tokenizers import models, normalizers, pre_tokenizers

    letters = "abcdefghijklmnopqrstuvwxyz"
    vocabulary = {name: i for i, name in enumerate([*letters, "<|startoftext|>", "<|endoftext|>"])}
    rules = Rules(models.BPE(vocabulary, []))
    rules.normalizer = normalizers.Lowercase()
    rules.pre_tokenizer = pre_tokenizers.Whitespace()
    return Tokenizer(rules, 8)


def test_too_many_words_are_cut_with_a_warning_or_refused() -> None:
    found = rows(tokenizer, "a red cat , blue dog", "truncate")
    assert names(found.tokens) == [["<", "a", "red", "cat", ",", ">"]]
    assert found.cut == "blue dog"
    with pytest.raises(ValueError, match=r"has 6 tokens; this model reads at most 4"):
        rows(tokenizer, "a red cat , blue dog", "refuse")
    assert rows(tokenizer, "a red cat ,", "refuse").cut == ""
    with pytest.warns(UserWarning, match="cut off the prompt 'a red cat , blue dog'.*: 'blue dog'"):
        context(encoder, tokenizer, ["a red cat , blue dog"], "truncate")


def test_a_break_where_one_row_is_read_is_named() -> None:
    with pytest.raises(ValueError, match=r"'cat BREAK dog' has a BREAK, .* one row of 4 tokens"):
        rows(tokenizer, "cat BREAK dog", "refuse")


def encoder(tokens: Tensor) -> Tensor:
    """A state that tells the token and its place."""
    place = torch.arange(tokens.shape[1]).expand_as(tokens)
    return torch.stack([tokens, place], dim=2).double()


@pytest.mark.parametrize("length", [59, 60, 61])
def test_a_refused_prompt_is_quoted_up_to_sixty_letters(length: int) -> None:
    prompt = ("red " * 20)[: length - 1] + "x"
    shown = prompt if length <= 60 else prompt[:57] + "..."
    with pytest.raises(ValueError, match=f"^the prompt '{shown}' has "):
        rows(tokenizer, prompt, "refuse")


def test_a_cut_prompt_is_quoted_up_to_forty_letters() -> None:
    prompt = "red " * 20
    with pytest.warns(UserWarning, match=f"^cut off the prompt '{prompt[:40]}'...: "):
        context(encoder, tokenizer, [prompt], "truncate")


def test_a_break_is_named_where_the_words_would_just_fit() -> None:
    with pytest.raises(ValueError, match="has a BREAK"):
        rows(tokenizer, "a red BREAK cat dog", "refuse")


def test_what_fills_up_is_the_empty_prompt(byte_level: Tokenizer) -> None:
    short, _ = context(encoder, byte_level, ["a", "a BREAK b"])
    start, end = byte_level.start_token, byte_level.end_token
    assert short[8:, 0].tolist() == [start, *[end] * 7]


def test_a_prompt_without_weights_is_encoded_once() -> None:
    seen = []

    def counted(tokens: Tensor) -> Tensor:
        seen.append(len(tokens))
        return encoder(tokens)

    context(counted, tokenizer, ["cat", "dog"])
    assert seen == [2]


def test_rows_lie_end_to_end_and_prompts_have_equally_many() -> None:
    both = context(encoder, tokenizer, ["cat", "a red cat , dog"])
    assert both.shape == (2, 12, 2)
    nothing = context(encoder, tokenizer, [""])
    assert torch.equal(both[0, 6:], nothing[0])
    assert torch.equal(both[1, :6], context(encoder, tokenizer, ["a red cat ,"])[0])
    assert context(encoder, tokenizer, ["cat"], least=3).shape == (1, 18, 2)


def test_a_weight_leads_away_from_the_empty_prompt() -> None:
    """e_0 + w (e - e_0), token by token; 0 is the empty prompt's state, 1 is the token's own."""
    plain, nothing = (context(encoder, tokenizer, [text])[0] for text in ("a cat", ""))
    for w in (0.0, 0.5, 1.0, 2.0, -1.0):
        heavy = context(encoder, tokenizer, [f"a (cat:{w})"])[0]
        wanted = plain.clone()
        wanted[2] = nothing[2] + w * (plain[2] - nothing[2])
        torch.testing.assert_close(heavy, wanted)


def test_open_brackets_and_escaped_marks() -> None:
    assert foreign_marks("([cat") == {"([": "a weight of all that follows"}
    assert foreign_marks(r"\:++") == {}
    assert [piece.text for piece in parse("a (cat")[0]] == ["a (cat"]


def test_prompts_and_seeds_in_pairs() -> None:
    assert paired("cat", 10**6) == (["cat"], (10**6,))
    assert paired("cat", [5]) == (["cat"], (5,))
    assert paired(["cat", "dog"], 2**64 - 2) == (["cat", "dog"], (2**64 - 2, 2**64 - 1))
