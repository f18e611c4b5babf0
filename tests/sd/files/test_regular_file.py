"""Paths and JSON at their boundary: whatever is wrong is one ValueError, at once."""

import os
import stat
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from sd.files.regular_file import (
    DEEPEST,
    LONGEST_INTEGER,
    parse_json,
    path_kind,
    read_bytes,
    require_regular,
)

CALLS: dict[str, Callable[[Path], object]] = {
    "kind": lambda path: path_kind(path, "thing"),
    "regular": lambda path: require_regular(path, "thing", 10),
    "content": lambda path: read_bytes(path, "thing", 10),
}


def fifo(folder: Path) -> Path:
    os.mkfifo(folder / "pipe")
    return folder / "pipe"


BAD: dict[str, Callable[[Path], Path]] = {
    "a device": lambda folder: Path("/dev/zero"),
    "a pipe": fifo,
    "a long name": lambda folder: folder / ("a" * 300),
    "a long path": lambda folder: Path("a/" * 5000),
    "a zero byte": lambda folder: folder / "a\0b",
}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("name", BAD)
def test_what_is_no_file_is_refused_at_once(name: str, call: str, tmp_path: Path) -> None:
    path = BAD[name](tmp_path)
    start = time.perf_counter()
    with pytest.raises(ValueError, match=r"^thing [\s\S]* can't be read: [^\n]+$"):
        CALLS[call](path)
    assert time.perf_counter() - start < 1


@pytest.mark.parametrize("call", CALLS)
def test_a_place_that_one_may_not_enter(
    call: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The superuser may enter any, so that the system's answer is played."""

    def refuse(path: Path, **_: object) -> SimpleNamespace:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "stat", refuse)
    with pytest.raises(ValueError, match=r"^thing .* can't be read: Permission denied$"):
        CALLS[call](tmp_path)


def test_a_file_that_one_may_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, mode: str) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    (tmp_path / "a").touch()
    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(ValueError, match=r"^thing .* can't be read: Permission denied$"):
        read_bytes(tmp_path / "a", "thing", 10)


def test_a_name_that_is_no_text_can_be_printed(tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"\xff\x1b")
    with pytest.raises(FileNotFoundError) as caught:
        require_regular(path, "thing", 1)
    assert str(caught.value).encode().endswith(rb"\udcff\x1b is missing")


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="reads /proc")
def test_a_file_whose_size_is_not_known() -> None:
    """It says that it has 0 bytes."""
    with pytest.raises(ValueError, match="has more than 10 bytes"):
        read_bytes("/proc/self/maps", "thing", 10)


def test_files_folders_and_nothing(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"0123456789")
    assert read_bytes(tmp_path / "a", "thing", 10) == b"0123456789"
    with pytest.raises(ValueError, match="has 10 bytes, more than 9"):
        read_bytes(tmp_path / "a", "thing", 9)
    absent = (tmp_path / "b", tmp_path / "a" / "b")  # the second below a file
    assert [path_kind(path, "thing") for path in (tmp_path / "a", tmp_path, *absent)] == [
        "file", "folder", None, None
    ]  # fmt: skip
    for path in absent:
        with pytest.raises(FileNotFoundError, match=r"^thing .* is missing$"):
            read_bytes(path, "thing", 10)
    assert stat.S_ISDIR(tmp_path.stat().st_mode)
    with pytest.raises(ValueError, match="not a regular file"):
        read_bytes(tmp_path, "thing", 10)


def test_json_within_bounds() -> None:
    deep = "[" * DEEPEST + "]" * DEEPEST
    assert parse_json(b'\xef\xbb\xbf{"a": [1, 2.5, null]}') == {"a": [1, 2.5, None]}
    assert parse_json("9" * LONGEST_INTEGER) == int("9" * LONGEST_INTEGER)
    assert parse_json(deep)[0] != []
    assert parse_json('{"a": 1, "a": 2}') == {"a": 2}


@pytest.mark.parametrize(
    "text",
    [
        "", "{", "{'a': 1}", "\x00", b"\xff", b"\xff\xfe{", "9" * (LONGEST_INTEGER + 1),
        "9" * 10**6, "[" * (DEEPEST + 1) + "]" * (DEEPEST + 1), "[" * 10**6, '{"a":' * 10**5,
        '[{"a":' * 500,
    ],
    ids=lambda text: f"{text[:9]!r} of {len(text)}",
)  # fmt: skip
def test_json_beyond_them_is_one_error(text: str | bytes) -> None:
    start = time.perf_counter()
    with pytest.raises(ValueError, match="JSON"):
        parse_json(text)
    assert time.perf_counter() - start < 2


def test_a_name_that_stands_twice() -> None:
    with pytest.raises(ValueError, match="a repeated name"):
        parse_json('{"b": {"a": 1, "a": 2}}', once=True)
