"""ema-pytorch's averages: EMA with its warm-up, KarrasEMA and PostHocEMA of power profiles."""

from collections.abc import Callable, Iterator
from functools import partial
from importlib import import_module
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn

from diffusion_math.testing import assert_average
from experiments.audit.formula import Formula, formulas_of

UNTRIED = {"EMAModuleWrapper.forward": "it hands one network's outputs to another"}
"""What the library exports and is not audited, and why."""

STEPS = 1000


class Model(nn.Module):
    """A network whose one parameter is the vector that is averaged."""

    def __init__(self, weights: Tensor) -> None:
        super().__init__()
        self.w = nn.Parameter(weights.clone())


def averaged(make: Callable[..., Any], **options: Any) -> Callable[[Tensor], Any]:
    """The average of a model, or of a tree of tensors, and its update."""

    def start(weights: Tensor) -> Callable[[Tensor], Tensor]:
        tree = make.__name__ == "EMAPytree"
        online: Any = {"w": weights.clone()} if tree else Model(weights)
        average = make(online, **options)

        def update(weights: Tensor) -> Tensor:
            (online["w"] if tree else online.w.data).copy_(weights)
            average.update()
            found: Tensor = average.ema_model["w"] if tree else average.ema_model.w.data
            return found

        return update

    return start


def warm_up(every: int, after: int, power: float, n: int) -> float:
    """EMA's documented decay at the n-th update: of the training step that it is made at."""
    late = (n - 1) * every - after
    return min(1 - (1 + late) ** -power, 0.9) if late > 0 else 0.0


def power_profile(every: int, n: int) -> float:
    """(1 - dt / t)^(gamma + 1), dt the steps since the last update; gamma = 6.94."""
    return float((1 - every / ((n - 1) * every + 1)) ** 7.94) if n > 1 else 0.0


def handed_back(share: float) -> None:
    """`update_model_with_ema`: a share of the model stays, the rest is its average."""
    EMA = import_module("ema_pytorch").EMA
    average = EMA(Model(torch.tensor([1.0, 0.0])), update_model_with_ema_beta=share)
    average.ema_model.w.data.copy_(torch.tensor([0.0, 1.0]))
    average.update_model_with_ema()
    got = [round(value, 6) for value in average.model.w.tolist()]
    wanted = [share, 1 - share]
    assert got == wanted, f"weights of the model and of its average: got {got}, expected {wanted}"


def width(every: int, wanted: float, **options: Any) -> None:
    """sigma_rel of what PostHocEMA makes: the deviation of its weights by their step."""
    PostHocEMA = import_module("ema_pytorch").PostHocEMA
    model = Model(torch.zeros(STEPS))
    with TemporaryDirectory() as folder:
        options |= {"checkpoint_every_num_steps": STEPS // 10, "checkpoint_folder": folder}
        average = PostHocEMA(model, None, (0.05, 0.28), update_every=every, **options)
        for n in range(STEPS):
            model.w.data.zero_()[n] = 1
            average.update()
        made = average.synthesize_ema_model(sigma_rel=wanted).ema_model.w.detach().double()
    t = torch.arange(1, STEPS + 1) / STEPS
    mean = (made * t).sum() / made.sum()
    got = float(((made * (t - mean) ** 2).sum() / made.sum()).clamp(min=0).sqrt())
    assert abs(got / wanted - 1) < 0.05, f"sigma_rel: got {got:.3g}, expected {wanted:g}"


def subjects(quick: bool) -> Iterator[Formula]:
    """Averages, by the options that change their weights."""
    library = import_module("ema_pytorch")
    EMA, KarrasEMA = library.EMA, library.KarrasEMA
    given = partial(formulas_of, "ema-pytorch")
    checked = partial(assert_average, first=1, dtype=torch.float32)
    for every, after, power in ((1, 0, 2 / 3), (1, 5, 2 / 3), (3, 0, 2 / 3), (3, 6, 1.0)):
        options = {"update_every": every, "update_after_step": after, "power": power}
        decay = partial(warm_up, every, after, power)
        kinds: dict[str, Any] = {
            each.__name__: each for each in (EMA, library.EMAModuleWrapper, library.EMAPytree)
        }
        starts = {name: averaged(kind, beta=0.9, **options) for name, kind in kinds.items()}
        starts["EMA, use_foreach"] = averaged(EMA, beta=0.9, use_foreach=True, **options)
        runs = {
            (name, "average"): partial(checked, start, decay, every=every)
            for name, start in starts.items()
        }
        yield from given(
            f"update_every={every}, update_after_step={after}, power={power:.2g}", runs
        )
    back = {share: partial(handed_back, share) for share in (0.0, 0.25)}
    for share, run in back.items():
        name = f"update_model_with_ema_beta={share:g}"
        yield from given(name, {("EMA.update_model_with_ema", "average"): run})
    for every in (1, 10):
        start = averaged(KarrasEMA, update_every=every, gamma=6.94)
        runs = {
            ("KarrasEMA", "average"): partial(
                checked, start, partial(power_profile, every), every=every
            )
        }
        for wanted in (0.05, 0.15, 0.28):
            runs["PostHocEMA", f"sigma_rel {wanted:g}"] = partial(width, every, wanted)
        yield from given(f"update_every={every}", runs)
