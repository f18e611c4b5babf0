"""Files of prompts: what is a prompt, what is left out, and one line for what is neither."""

import os
import time
from pathlib import Path

import pytest

from experiments.generate.jobs import LARGEST, Job, batches, listed, read


def write(folder: Path, text: str | bytes) -> Path:
    path = folder / "prompts.txt"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_a_line_is_a_prompt(tmp_path: Path) -> None:
    text = "\ufeffa red ring\r\n\n  # a comment\n \t\na blue star  \r{a|b} #1\na red ring"
    found = read(write(tmp_path, text), 7, "green")
    assert [(job.prompt, job.seed) for job in found] == [
        ("a red ring", 7), ("a blue star", 8), ("{a|b} #1", 9), ("a red ring", 10)
    ]  # fmt: skip
    assert [job.file for job in found] == [f"0000{n}.png" for n in (1, 2, 3, 4)]
    assert {job.negative_prompt for job in found} == {"green"}


def test_a_line_is_an_object(tmp_path: Path) -> None:
    text = (
        '{"prompt": "a", "seed": 18446744073709551615}\nb\n{"prompt": "c", "negative_prompt": ""}'
    )
    assert read(write(tmp_path, text), 3, "green") == [
        Job("a", 2**64 - 1, "green", "00001.png"),
        Job("b", 4, "green", "00002.png"),
        Job("c", 5, "", "00003.png"),
    ]


BAD: list[tuple[str | bytes, str]] = [
    ("", r"prompts\.txt names no prompt"),
    ("\n# only this\n \n", r"prompts\.txt names no prompt"),
    (b"a red\x00ring", "is no text: it holds zeros"),
    (b"\x89PNG\r\n\x1a\n", "is no text: byte 0 not UTF-8"),
    ("a red ring".encode("utf-16"), "is no text: byte 0 not UTF-8"),
    ('a\n{"prompt": "b"', "line 2, not valid JSON"),
    ('a\n{ "prompt" : "b"', "line 2, not valid JSON"),
    ('{"prompt": "a", "prompt": "b"}', "line 1, not valid JSON .*repeated"),
    ('{"prompt": ' + "[" * 100_000 + "}", "line 1, not valid JSON"),
    ('{"prompt": ' + "[" * 60 + "]" * 60 + "}", "line 1, JSON of more than 50 levels"),
    ('{"prompt": "a", "seed": ' + "1" * 5000 + "}", "line 1, not valid JSON .*5000 digits"),
    ('{"prompt": "a red ring \\ud83d"}', r"line 1, prompt: .* in UTF-8, got 'a red ring \\ud83d'"),
    ('{"prompt": "a", "negative_prompt": "\\ude00"}', "line 1, negative_prompt: wanted words, in"),
    ('{"prompt": "a", "negative_prompt": "\\u0000"}', "line 1, negative_prompt: wanted words, in"),
    ('a\n#\nb\n{"prompt": "a", "seed": 0}', "line 4, gives the same image as line 1"),
    ('{"prompt": "a", "seed": 3}\n\n{ "seed": 3, "prompt": "a"}', "line 3, .* as line 1"),
    ("a\n" * 100_000, "names more than 99999 prompts"),
    ('{"prompt": "a", "steps": 3}', "line 1, wanted prompt, seed, negative_prompt, got steps"),
    ('{"seed": 1}', "line 1, prompt: wanted at least one word, in UTF-8, got None"),
    ('{"prompt": " "}', "line 1, prompt: wanted at least one word, in UTF-8, got ' '"),
    ('{"prompt": "a", "seed": 1.5}', "line 1, seed: wanted a whole number of at least 0"),
    ('{"prompt": "a", "seed": true}', "line 1, seed: wanted a whole number"),
    ('{"prompt": "a", "seed": -1}', "line 1, seed: wanted a whole number"),
    (
        '{"prompt": "a", "negative_prompt": 2}',
        "line 1, negative_prompt: wanted words, in UTF-8, got 2",
    ),
]


@pytest.mark.parametrize(("text", "message"), BAD)
def test_what_is_no_file_of_prompts_is_named(
    text: str | bytes, message: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        read(write(tmp_path, text), 0, "")
    assert str(caught.value).startswith("--prompts: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("case", ["folder", "FIFO", "/dev/zero", "/dev/full", "large", "no name"])
def test_what_is_no_file_is_refused_at_once(case: str, tmp_path: Path) -> None:
    path = Path(case) if case.startswith("/") else tmp_path / "prompts.txt"
    if case == "folder":
        path.mkdir()
    elif case == "FIFO":
        os.mkfifo(path)
    elif case == "large":
        path.write_bytes(b"a red ring\n")
        os.truncate(path, LARGEST + 1)
    elif case == "no name":
        path = tmp_path / ("x" * 300)
    with pytest.raises(ValueError, match=r"^--prompts: .* (can't be read: |has 16777217 bytes)"):
        read(path, 0, "")
    with pytest.raises(FileNotFoundError, match=r"^--prompts: .*none\.txt is missing"):
        read(tmp_path / "none.txt", 0, "")


def test_the_same_words_twice_are_two_images(tmp_path: Path) -> None:
    """They have seeds of their own; one with another negative prompt is another image too."""
    text = 'a\na\n{"prompt": "a", "seed": 0, "negative_prompt": "b"}'
    assert [(job.seed, job.negative_prompt) for job in read(write(tmp_path, text), 0, "")] == [
        (0, ""), (1, ""), (0, "b")
    ]  # fmt: skip


@pytest.mark.slow
def test_time_is_linear_in_the_file(tmp_path: Path) -> None:
    """The most that is read, in lines and in one line: a quadratic reading would take hours."""
    before = time.process_time()
    assert len(read(write(tmp_path, "a" + "\n" * (LARGEST - 1)), 0, "")) == 1
    assert len(read(write(tmp_path, "a " * (LARGEST // 2)), 0, "")) == 1
    assert time.process_time() - before < 10


def test_a_flag_s_words_are_text() -> None:
    for words in (os.fsdecode(b"caf\xe9"), "\ud83d", "a\0b"):
        with pytest.raises(ValueError, match="--prompt: wanted at least one word, in UTF-8"):
            listed([words], [0], "")
        with pytest.raises(ValueError, match="--negative_prompt: wanted words, in UTF-8"):
            listed(["a"], [0], words)


def test_prompts_of_the_flags() -> None:
    assert [job.seed for job in listed(["a", "b"], [4], "")] == [4, 5]
    assert [(job.prompt, job.seed) for job in listed(["a"], [4, 2], "")] == [("a", 4), ("a", 2)]
    assert [job.file for job in listed(["A b!", "?"], [1], "")] == [
        "00-a-b-seed1.png", "01-picture-seed2.png"
    ]  # fmt: skip
    with pytest.raises(ValueError, match="seed: wanted 2 seeds"):
        listed(["a", "b"], [1, 2, 3], "")
    with pytest.raises(ValueError, match="--seed: wanted a whole number"):
        listed(["a"], [1, -2], "")


def test_batches_are_neighbours_of_one_negative_prompt() -> None:
    jobs = [Job(f"p{i}", i, "x" if i in (3, 4) else "", f"{i}") for i in range(8)]
    sizes = [[job.seed for job in batch] for batch in batches(jobs, 2)]
    assert sizes == [[0, 1], [2], [3, 4], [5, 6], [7]]
    # What comes after a batch is full does not change it.
    assert batches(jobs, 2)[:4] == batches(jobs[:7], 2)
