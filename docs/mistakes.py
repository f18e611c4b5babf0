"""Writes docs/mistakes.md, and the table of names in docs/check-your-code.md: `python docs/mistakes.py`.

Each row of the page is a line of wrong code, run under its assertion: what it says is what the page shows.
"""

import re
from collections.abc import Iterator
from pathlib import Path

from gallery import GALLERY, Subject, diagnosis, program, recorded

from diffusion_math.testing.assertions.schedule_table import TABLES
from diffusion_math.testing.mistakes.catalogue import FACTORS, INDICES, QUANTITIES, TRANSFORMS
from diffusion_math.testing.objects.names import FUNCTIONS, SAMPLERS, TABLE_NAMES

__all__ = ["GALLERY", "diagnosis", "names", "page", "program", "recorded", "with_names"]

HERE = Path(__file__).resolve().parent
NAMES = re.compile(r"(<!-- names -->\n).*?(<!-- end of names -->)", re.S)

HEAD = """# Mistakes that have a name

For authors of diffusion code. On this page you find what people write in the place of a formula, the right code, and where the formula is stated.

`python docs/mistakes.py` writes this page: it runs each line of wrong code under its assertion, and shows the diagnosis that the assertion gives. [Check your own code](check-your-code.md)
says how to run them on yours.

## Generated mistakes

A value that differs from the formula is first compared with the mistakes of its subject, below. Then it is compared with every combination of one entry of each column, for each value that
is measured: {count} of them for a value. The last combination is a product of powers of the noise levels and of $\\\\sqrt{{1 - \\\\alpha_{{t|s}}^2}}$, found by least squares.

| the quantity is | it is altered to | with the factor | and read |
| --- | --- | --- | --- |
"""


def code(text: str) -> str:
    """Code in a cell of a table."""
    return "`" + text.replace("|", "\\|") + "`"


def generated() -> Iterator[str]:
    """The columns of the generated mistakes, side by side."""
    columns = [
        ["its right value", *QUANTITIES],
        [one.format("x") for one in TRANSFORMS],
        [one.format("x") for one in FACTORS],
        [one.strip(" ,") or "at its own index" for one in INDICES],
    ]
    for k in range(max(map(len, columns))):
        cells = [column[k] if k < len(column) else "" for column in columns]
        yield f"| {' | '.join(cells)} |"


def section(subject: Subject) -> Iterator[str]:
    """A subject: its right code, and a row for each wrong line."""
    yield from ("", f"## {subject.title}", "", f"{subject.about} `{subject.assertion}`; right:", "")
    yield from ("```python", *subject.right, "```", "", "| wrong | diagnosis | source |", "| --- | --- | --- |")
    for wrong in subject.wrong:
        mistake = diagnosis(subject, wrong)
        source = re.sub(r"^((?:github\.com|pytorch\.org)/[^\s,]+)", r"<https://\1>", mistake.source)
        yield f"| {code(wrong)} | {mistake.name.replace('|', '&#124;')} | {source} |"


def page() -> str:
    """docs/mistakes.md."""
    count = (len(QUANTITIES) + 1) * len(TRANSFORMS) * len(FACTORS) * len(INDICES)
    lines = [HEAD.format(count=count).rstrip("\n").replace("\\\\", "\\"), *generated()]
    for subject in GALLERY:
        lines += section(subject)
    return "\n".join(lines) + "\n"


def names() -> str:
    """The table of the names that `of` knows."""
    lines = ["| table | holds |", "| --- | --- |"]
    for quantity, known in TABLE_NAMES.items():
        lines.append(f"| {', '.join(map(code, known))} | {TABLES[quantity].formula} |")
    lines += ["| `sigmas` with `timesteps` | the noise levels of diffusers' schedulers |", ""]
    lines += ["| method | returns |", "| --- | --- |"]
    for function in FUNCTIONS:
        lines.append(f"| {', '.join(map(code, function.names))} | {function.formula.replace('|', '&#124;')} |")
    lines.append(f"| {', '.join(map(code, SAMPLERS))} | a sample: `audit` checks it |")
    return "\n".join(lines) + "\n"


def with_names(text: str) -> str:
    """docs/check-your-code.md with today's table of names."""
    return NAMES.sub(lambda found: f"{found[1]}{names()}{found[2]}", text)


def main() -> None:
    (HERE / "mistakes.md").write_text(page(), encoding="utf-8")
    how_to = HERE / "check-your-code.md"
    how_to.write_text(with_names(how_to.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
