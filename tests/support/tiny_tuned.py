"""The experiment on tuned grids in small."""

from experiments.tuned import run as tuned

TINY = tuned.Config(
    counts=(4,),
    more=(5,),
    solvers=("unipc",),
    beside=("unipc", "plms"),
    train=16,
    fit=16,
    test=16,
    scales=(1.0,),
    rounds=3,
    moves=1,
    modes=1,
    descent=2,
    nodes=6,
)
