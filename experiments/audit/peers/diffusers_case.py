"""One scheduler of diffusers at one setting, and its claims and known limitations."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from importlib import import_module
from importlib.metadata import version
from typing import Any, final

from diffusion_math.testing.conformance import crashed
from diffusion_math.testing.report import Check, Verdict
from diffusion_math.testing.sampler import Sampler, UnsupportedError
from diffusion_math.testing.verdicts import Origin
from experiments.audit.peers.prediction_types import disagreement
from experiments.audit.peers.scheduler_driver import (
    METHODS,
    Driven,
    announced,
    left,
    method_error,
    sampler,
)
from experiments.audit.subject import Subject

TABLE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
"""Stable Diffusion's."""
WALKED = 20
"""Numbers of steps at which the methods beside sampling are checked."""
SLOW = ("KDPM2DiscreteScheduler", "KDPM2AncestralDiscreteScheduler")
"""A tenth of a second a grid."""
CHECKS = (
    "levels",
    "image-to-image",
    "times told",
    "last noise",
    "order",
    "order of a step",
    "weak order",
    "predictions",
    "add_noise",
)
ROUNDED = "the network gets the nearest integer time, not the time of the noise level"


@final
@dataclass(frozen=True)
class Case:
    """One scheduler at one setting.

    Attributes:
        kind: the class's name. config: what it is constructed with, besides the table.
        order: what its paper or its own words claim at this setting.
        limits: check -> why a failure of it is no defect.
        main: whether it is of the quick audit.
        table: whether it takes Stable Diffusion's. ladder: numbers of steps of the order's ladder.
        home: the module of the class. peer: the one of `experiments.audit.peers` that has the case.
    """

    kind: str
    driven: Driven
    order: int
    config: dict[str, Any] = field(default_factory=dict)
    noisy: bool = False
    limits: dict[str, str] = field(default_factory=dict)
    main: bool = False
    table: bool = True
    ladder: tuple[int, ...] = (10, 20, 40, 80)
    home: str = "diffusers"
    peer: str = "diffusers"

    @property
    def setting(self) -> str:
        """The options that differ from the defaults, as they are written."""
        options = {**self.config, **self.driven.settle, **self.driven.step}
        return ", ".join(f"{k}={v!r}" for k, v in options.items()) or "defaults"

    def make(self) -> Any:
        """The scheduler."""
        return getattr(import_module(self.home), self.kind)(
            **(TABLE if self.table else {}), **self.config
        )

    def sampler(self) -> Sampler:
        """The case as a `Sampler`."""
        grouped = self.driven.reached is groups
        return sampler(self.kind, self.make, self.driven, self.order, self.noisy, grouped=grouped)

    def subject(self) -> Subject:
        """The case as the audit takes it."""
        limits = dict(self.limits)
        off = announced(self.make(), self.driven, WALKED)
        if 0.01 < off <= 0.5:
            limits = {**dict.fromkeys(CHECKS, ROUNDED), **limits}
        library = self.home.split(".")[0]
        who = Origin(library, version(library.replace("_", "-")), self.setting, limits)
        again = (
            f"from experiments.audit.peers.{self.peer} import cases\n\n"
            f"kind, setting = {self.kind!r}, {self.setting!r}\n"
            "[case] = [c for c in cases() if (c.kind, c.setting) == (kind, setting)]\n"
            "subject = case.subject()"
        )
        more: dict[str, Any] = {"ladder": self.ladder, "also": partial(self._methods, who)}
        if "timestep_spacing" in self.config and self.kind not in SLOW:
            more["sweep"] = tuple(range(1, 1001))
        return Subject(self.sampler(), who, again, **more)

    def _methods(self, who: Origin) -> Iterator[Check]:
        """Rows on what else the scheduler offers: times for the network, noise, velocity."""
        made = self.make()
        looks: list[tuple[str, Any, float, str]] = []
        if self.driven.by_sigmas and self.driven.space != "edm":
            looks.append(("announced times", announced, 0.5, "in steps of the table, at most 0.5"))
            looks.append(
                ("last level", left, 1.01, "the table's least or 0: in its steps, at most 1")
            )
        for method in METHODS:
            if hasattr(made, method):
                most = 1e-4 if method == "get_velocity" else 0.01
                for name, training in ((method, False), (f"{method}, in training", True)):
                    look = partial(method_error, method=method, training=training)
                    looks.append((name, look, most, f"at most {most:g}"))
        if "prediction_type" in made.config and self.driven.space != "flow":
            looks.append(("predictions", disagreement, 1e-3, "at most 0.001"))
        for check, look, most, expected in looks:
            where = (who.library, who.version, self.kind, who.setting, check, expected)
            try:
                value = look(made, self.driven, WALKED)
            except UnsupportedError:  # nothing to compare
                continue
            except Exception as crash:  # code that is audited may raise anything
                yield Check(*where, "crashed", "defect", crashed(crash))
                continue
            wrong = not value <= most
            rounded = ROUNDED if check == "announced times" and value > 0.01 else ""
            why = who.limits.get(check, "") if wrong else rounded
            verdict: Verdict = "limit" if why else "defect" if wrong else "sound"
            note = f"n = {WALKED}" + (f": {why}" if why else "")
            yield Check(*where, value, verdict, note)


def groups(scheduler: Any) -> list[int]:
    """DPM-Solver's single steps: the last call of each group."""
    orders = scheduler.order_list
    calls = len(scheduler.timesteps)
    return [k for k in range(calls) if k + 1 == calls or orders[k + 1] == 1]
