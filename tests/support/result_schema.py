"""What every result of an experiment owes."""

import json

from experiments.output.files import to_json
from experiments.output.result import Result

VERDICTS = ("holds", "does not hold", "inconclusive", "measured", "too few samples")


def check(result: Result, name: str) -> None:
    """What every result owes: rows of its name, JSON without loss, figures with captions."""
    rows = {row.name: row for row in result.rows}
    assert len(rows) == len(result.rows)
    assert name in rows
    record = json.loads(to_json({"rows": result.rows, **result.data}))
    for row in record["rows"]:
        assert set(row) == {"name", "claim", "measured", "interval", "verdict"}
        assert row["verdict"] in VERDICTS
        assert isinstance(row["measured"], float | int)
        if row["interval"] is not None and None not in row["interval"]:
            low, high = row["interval"]
            assert low - 1e-9 <= row["measured"] <= high + 1e-9
    for figure in result.figures:
        magic = {"png": b"\x89PNG", "gif": b"GIF89a"}[figure.name.rpartition(".")[2]]
        assert figure.image.startswith(magic)
        assert figure.caption.endswith(".")
        assert figure.alt.endswith(".")
