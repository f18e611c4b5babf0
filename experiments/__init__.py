"""The lecture's experiments, one folder each: `Config` in `__init__`, `run(config)` in `run`.

`diffusion-math NAME` takes its flags from the Config; `output` writes the Result of `run`; `plots`
is the one place that draws figures. An experiment's `__init__` imports no heavy package, so that
`--help` answers at once.
"""
