"""The lecture's experiments, one module each: a frozen `Config` and `run(config) -> Result`.

`python -m experiments NAME` takes its flags from the Config; `results` writes what `run` returns;
`plots` is the one place that draws figures. Heavy packages are imported by the functions that
need them, so that `--help` answers at once.
"""
