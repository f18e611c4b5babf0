"""Results of an earlier run: checked before the work, and written whole after it."""

from pathlib import Path

import pytest

from benchmarks.output import BEGIN, END, beside, is_timed, require_page, write_results

PAGE = f"# Title\n\n{BEGIN}\nold\n{END}\n\nAfter.\n"
NOW = {"machine": "one", "versions": {"torch": "2", "jax": "1"}}


def test_a_page_gets_the_new_table_and_keeps_its_text(tmp_path: Path) -> None:
    page = tmp_path / "it.md"
    page.write_text(PAGE, encoding="utf-8")
    for body in (["first"], ["second", "line"]):
        assert write_results(tmp_path, "it", {"a": 1}, body).read_text("utf-8") == '{\n "a": 1\n}\n'
    wanted = f"# Title\n\n{BEGIN}\nsecond\nline\n{END}\n\nAfter.\n"
    assert page.read_text(encoding="utf-8") == wanted
    assert sorted(one.name for one in tmp_path.iterdir()) == ["it.json", "it.md"]


@pytest.mark.parametrize(
    "text",
    ["hello", BEGIN, END, f"{END} {BEGIN}", PAGE + PAGE, PAGE + BEGIN, PAGE + END, BEGIN + PAGE],
)
def test_a_page_without_a_place_for_the_table_is_named(tmp_path: Path, text: str) -> None:
    page = tmp_path / "it.md"
    require_page(page)
    page.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=r"it\.md: wanted one <!-- table: begin -->"):
        require_page(page)


def test_parts_are_told_by_name() -> None:
    for name in ("v1.5: VAE decoder, float32", "v1.5 U-Net, 64 x 64, batch 2"):
        assert is_timed(name, small=False, full_size=True)
        assert not is_timed(name, small=True, full_size=False)
    assert is_timed("a step", small=True, full_size=False)
    assert not is_timed("a step", small=False, full_size=True)


@pytest.mark.parametrize(
    ("last", "said"),
    [
        ({"machine": "two"}, "machine was two, is one"),
        ({"versions": {"torch": "1", "jax": "1"}}, "torch was 1, is 2"),
        ({"versions": {"torch": "2"}}, "jax was none, is 1"),
        ({"versions": {**NOW["versions"], "nncf": "3"}}, "nncf was 3, is none"),
    ],
)
def test_rows_of_another_machine_are_kept_from_the_new_ones(last: dict, said: str) -> None:
    path, last = Path("a.json"), {**NOW, **last}
    assert beside(path, [1, 2], NOW, NOW, drop=False) == [1, 2]
    assert beside(path, [1, 2], NOW, NOW, drop=True) == [1, 2]
    assert beside(path, [], last, NOW, drop=False) == []
    assert beside(path, [1, 2], last, NOW, drop=True) == []
    with pytest.raises(ValueError, match=rf"^--out: 2 rows of a\.json .*: {said}\. .* --replace$"):
        beside(path, [1, 2], last, NOW, drop=False)
