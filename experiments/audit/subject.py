"""The subject of an audit: a sampler, its origin, and Python that builds it again."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from typing import Any, final

from torch import Tensor

from diffusion_math.testing.order import COUNTS
from diffusion_math.testing.report import Check, Report
from diffusion_math.testing.sampler import Sampler
from diffusion_math.testing.verdicts import CHECKS, Origin, audit


@final
@dataclass(frozen=True)
class Subject:
    """A sampler and its circumstances.

    Attributes:
        again: lines of Python that make the name `subject`, of this kind, anew.
        counts: numbers of steps to sample with. sweep: numbers of steps whose grids are checked.
        ladder: numbers of steps of the order's ladder.
        also: rows on what else its library offers.
    """

    sampler: Sampler
    who: Origin
    again: str = ""
    counts: tuple[int, ...] = (1, 2, 3, 7, 10, 20)
    sweep: tuple[int, ...] = field(default=(*range(1, 33), 50, 61, 77, 100, 103, 1000))
    ladder: tuple[int, ...] = COUNTS
    also: Callable[[], Iterable[Check]] = tuple

    @property
    def name(self) -> str:
        """The sampler's."""
        return self.sampler.name

    def brief(self) -> "Subject":
        """The same, with fewer numbers of steps to look at."""
        return replace(self, counts=(1, 2, 10), sweep=(1, 2, 3, 10, 50))

    def audit(self) -> Report:
        """`diffusion_math.testing.audit` of it."""
        limits = {name: why for name, why in self.who.limits.items() if name in CHECKS}
        who = replace(self.who, limits=limits)  # others are of the rows beside
        found = audit(self.sampler, who, self.counts, self.sweep, self.ladder)
        return found + Report(tuple(self.also()))


def again(module: str, *arguments: object, **options: object) -> str:
    """Python that makes `sampler(...)` of one of these modules anew, as `subject`."""
    given = [repr(one) for one in arguments]
    given += [f"{name}={value!r}" for name, value in options.items()]
    return (
        "from diffusion_math.testing import Origin\n"
        f"from experiments.audit.peers.{module} import sampler\n"
        "from experiments.audit.subject import Subject\n\n"
        f"subject = Subject(sampler({', '.join(given)}), Origin())"
    )


def subjects_of(
    library: str,
    make: Callable[..., Sampler],
    cases: Iterable[tuple[str, int, bool, dict[str, Any]]],
) -> Iterator[Subject]:
    """A library's samplers, each a name, an order, whether it is noisy, and options."""
    for *case, options in cases:
        setting = ", ".join(f"{name}={value!r}" for name, value in options.items())
        who = Origin(library, version(library), setting or "defaults")
        made = again(library.replace("-", "_"), *case, **options)
        yield Subject(make(*case, **options), who, made)


def along(grid: Tensor, seen: Mapping[float, Tensor], end: Tensor) -> Tensor | list[Tensor]:
    """The states at grid[1:] if the denoiser was evaluated at each inner node; else the end.

    `seen`: time -> the last x that the denoiser was evaluated at, at that time.
    """
    inner = [float(t) for t in grid[1:-1]]
    return [*(seen[t] for t in inner), end] if all(t in seen for t in inner) else end
