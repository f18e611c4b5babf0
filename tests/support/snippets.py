"""The Python code that a page shows."""

import json
import re
from pathlib import Path


def snippets(path: Path) -> list[str]:
    """The Python code of a page or a notebook, each block on its own."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".ipynb":
        cells = json.loads(text)["cells"]
        found = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
        return ["\n".join(re.sub(r"^[%!].*$", "", one, flags=re.M).splitlines()) for one in found]
    return re.findall(r"```python\n(.*?)```", text, re.S)
