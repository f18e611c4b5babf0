"""Prompts to pictures; every PNG carries the settings that repeat it."""

import warnings
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from experiments import prompts, settings
from experiments.model import BATCH, NAMED, PROMPT, Model
from experiments.prompts import Job
from experiments.results import Figure, Result, write_files
from experiments.sampling import Sampling
from sd.flags import File, FlagError, Range, Several, Words, check, refuse, unused
from sd.terminal import say

if TYPE_CHECKING:
    from PIL.Image import Image

    from sd.pipeline import TextToImage


@dataclass(frozen=True)
class Config:
    """Turn prompts into pictures, or redraw a picture after a prompt.

    Each PNG keeps its settings in its text metadata: `--like file.png` repeats it bit for bit
    on the same machine and versions. A PNG is there, whole, as soon as its batch is drawn.
    """

    prompt: Annotated[tuple[str, ...], Words(), Several(distinct=False)] = (PROMPT,)
    """What to draw; several prompts give several pictures."""
    prompts: Annotated[Path, File()] | None = None
    """A file of prompts, one a line, in place of `--prompt`: the n-th gives 0000n.png, and those
    that are there already are kept, so that the same command goes on after a stop. Blank lines and
    lines that start with # are left out; a line may be
    {"prompt": "...", "seed": 1, "negative_prompt": "..."}."""
    negative_prompt: Annotated[str, Words(empty=True)] = ""
    """What guidance leads away from."""
    do_cfg: bool = True
    """Classifier-free guidance on or off."""
    seed: Annotated[tuple[int, ...], Range(0, 2**64 - 1), Several(distinct=False)] = (0,)
    """One seed for the first picture (the next ones count up), or one for each picture; several
    seeds with one prompt give a picture a seed."""
    batch: Annotated[int, Range(1, settings.MOST)] = BATCH
    """Pictures drawn at once; fewer take less memory, and are on the disk sooner."""
    image: Annotated[Path, File()] | None = None
    """An image of yours to redraw, with `--strength`: PNG, JPEG, WebP, GIF, BMP, TIFF, PPM or AVIF,
    up to 10,000 x 10,000 pixels."""
    strength: Annotated[float, Range(0, 1, above=True)] | None = None
    """How much of `--image` to redraw, in (0, 1]: 1 all of it (default: 0.8)."""
    height: settings.Side | None = None
    """Of the pictures, in pixels (default: the model's own)."""
    width: settings.Side | None = None
    """Of the pictures, in pixels (default: the model's own)."""
    like: Annotated[Path, File()] | None = None
    """Repeat this PNG, made by this command; all other settings are then its own, but
    `--low-memory`, and the files that you name yourself."""
    like_files: bool = False
    """With `--like`: read the files, and models of the hub, that the PNG names: weights, tokenizer,
    vae, config, lora, embedding. Without it they are shown and none is read."""
    out: Path = Path("out/generate")
    """Folder for the PNGs, generate.json and generate.md."""
    model: Model = field(default_factory=Model)
    """Which model, and where it runs."""
    sampling: Sampling = field(default_factory=Sampling)
    """How the model samples."""

    def __post_init__(self) -> None:
        check(self)
        if self.image is None:
            unused(self, ["strength"], "without --image")
        off = "" if self.do_cfg else "with --no-do-cfg"
        if off:
            unused(self.sampling, ["guidance_scale", "guidance_interval"], off)
        if off or self.sampling.guidance_scale == 1:
            unused(self, ["negative_prompt"], off or "with --guidance-scale 1")
        if self.like is None:
            unused(self, ["like_files"], "without --like")
        if self.prompts is not None:
            unused(self, ["prompt"], "beside --prompts")
            if len(self.seed) != 1:
                refuse(self, "seed", "one with --prompts, whose lines may have their own")


Batch = tuple[list[Job], dict[str, Any]]
"""Pictures to be drawn at once, and the settings that they share."""


def run(config: Config, pipeline: "TextToImage | None" = None, hold: bool = False) -> Result:
    """Draw, and write each batch as it is done; with `hold` the result has the pictures instead.

    Raises KeyboardInterrupt, saying how much is done, where it is stopped.
    """
    if config.like is not None:
        return _repeat(config, pipeline)
    from sd import picture

    jobs = _jobs(config)
    image = None if config.image is None else picture.read(config.image)
    pipeline = pipeline or config.model.load()
    if image is not None:  # fitted now, so that the settings can hold all that is used of it
        size = pipeline.config.image_size
        image = picture.fit(image, config.width or size, config.height or size)
    call = {
        **config.sampling.call(pipeline),
        "negative_prompt": config.negative_prompt,
        "do_cfg": config.do_cfg,
        "strength": 0.8 if image is not None and config.strength is None else config.strength,
        "height": config.height,
        "width": config.width,
    }
    _legible(pipeline, jobs, call["long_prompt"])
    made = settings.made_with(pipeline)
    common = {
        "image": None if image is None else settings.embedded(image),
        "model": config.model.kept(),
        "made_with": made,
    }
    some = prompts.batches(jobs, config.batch)
    batches = [(batch, _settings(batch, call, common)) for batch in some]
    there = set() if config.prompts is None else _there(config.out, batches)
    drawn = _figures(pipeline, batches, image, there)
    figures = list(drawn) if hold else _written(config, drawn, len(there), len(jobs))
    return _result(figures, {"call": call, **made}, jobs)


def _jobs(config: Config) -> list[Job]:
    """The pictures that are asked for; FlagError for what their lines say without effect."""
    if config.prompts is None:
        jobs = prompts.listed(config.prompt, config.seed, config.negative_prompt)
        if len({(job.prompt, job.seed) for job in jobs}) < len(jobs):
            refuse(config, "seed", "no seed twice for one prompt: that is the same image")
        return jobs
    jobs = prompts.read(config.prompts, config.seed[0], config.negative_prompt)
    off = "--no-do-cfg" if not config.do_cfg else "--guidance-scale 1"
    guided = config.do_cfg and config.sampling.guidance_scale != 1
    for job in jobs if not guided else ():
        if job.negative_prompt:
            told = f"negative_prompt {job.negative_prompt!r} has no effect with {off}"
            raise FlagError(f"--prompts: {config.prompts}: {told}")
    return jobs


def _legible(pipeline: "TextToImage", jobs: Sequence[Job], long: Any) -> None:
    """ValueError where the model can't read a prompt, before the first is drawn."""
    from sd.conditioning import rows

    for text in dict.fromkeys(text for job in jobs for text in (job.prompt, job.negative_prompt)):
        rows(pipeline.tokenizer, text, long)


def _settings(
    batch: Sequence[Job], call: Mapping[str, Any], common: Mapping[str, Any]
) -> dict[str, Any]:
    """What the pictures of a batch keep, but for their place in it."""
    own = {**call, "negative_prompt": batch[0].negative_prompt}
    return {"batch": [(job.prompt, job.seed) for job in batch], "call": own, **common}


def _there(folder: Path, batches: Sequence[Batch]) -> set[str]:
    """The files that are there with the settings that they would get; ValueError for others.

    A batch is drawn as a whole for one that is missing, so that the missing one gets the same bits
    as it would have in a run that is not stopped.
    """
    found: set[str] = set()
    changed: dict[str, None] = {}
    for batch, shared in batches:
        for index, job in enumerate(batch):
            path = folder / job.file
            if not path.exists():
                continue
            kept = settings.read(path, "--out")
            other = settings.differing(kept, {**shared, "index": index})
            if other:
                what = f"{path} was made with other {', '.join(other)}"
                raise ValueError(f"--out: {what}; take another folder, or remove it")
            now = shared["made_with"]
            changed |= {name: None for name in now if now[name] != kept["made_with"][name]}
            found.add(job.file)
    if changed:
        told = f"the pictures that are in {folder} were made with other {', '.join(changed)}"
        warnings.warn(told, stacklevel=2)
    return found


def _figures(
    pipeline: "TextToImage",
    batches: Sequence[Batch],
    image: "Image | None",
    there: Set[str] = frozenset(),
) -> Iterator[Figure]:
    """The pictures in order, a batch drawn when its first is asked for; empty ones for those there.

    The bar counts pictures, or the steps of a batch that is alone.
    """
    from tqdm import tqdm

    alone = len(batches) == 1
    total = sum(len(batch) for batch, _ in batches)
    with tqdm(total=total, unit="picture", disable=True if alone else None) as bar:
        for batch, shared in batches:
            files = {job.file for job in batch}
            drawn = [] if files <= there else _draw(pipeline, shared, image, alone)
            for index, job in enumerate(batch):
                own = {**shared, "index": index}
                png = b"" if job.file in there else settings.png(drawn[index], job.prompt, own)
                yield _figure(job, png)
            bar.update(len(batch))


def _draw(
    pipeline: "TextToImage", shared: Mapping[str, Any], image: "Image | None", progress: bool
) -> "list[Image]":
    """The pictures of a batch."""
    texts, seeds = zip(*shared["batch"], strict=True)
    call = {**shared["call"], "image": image, "progress": progress}
    return pipeline(list(texts), seed=list(seeds), **call)


def _figure(job: Job, png: bytes) -> Figure:
    return Figure(job.file, png, f"{job.prompt} (seed {job.seed})", job.prompt)


def _written(config: Config, figures: Iterator[Figure], there: int, total: int) -> list[Figure]:
    """Write the pictures that are not there as they come, and let go of their bytes."""
    written: list[Figure] = []
    try:
        for figure in figures:
            if figure.image:
                say(*write_files(config.out, {figure.name: figure.image}))
                there += 1
            written.append(replace(figure, image=b""))
    except KeyboardInterrupt:
        again = "" if config.prompts is None else "; the same command goes on"
        told = f"{there} of {total} pictures are in {config.out}{again}"
        raise KeyboardInterrupt(told if there else "") from None
    return written


def _repeat(config: Config, pipeline: "TextToImage | None") -> Result:
    """Draw the batch that the picture came from, and keep the one."""
    assert config.like is not None
    own = {name: getattr(config.model, name) for name in config.model.named()}
    given = Model(low_memory=config.model.low_memory, **own)
    allowed = {"like": None, "like_files": False, "out": Config.out}
    if replace(config, **allowed) != Config(model=given):
        kinds = ", ".join(f"--{name}" for name in NAMED)
        others = f"leave out all but --out, --low-memory, --like-files, {kinds}"
        raise ValueError(f"--like repeats a picture with its own settings: {others}")
    kept = settings.read(config.like)
    checked = settings.checked(kept)
    model = replace(checked.model, low_memory=given.low_memory, **own)
    kept["model"] |= {name: given.kept()[name] for name in own}
    unasked = {name: kept["model"][name] for name in checked.model.named() if name not in own}
    if unasked and not config.like_files:
        told = "; ".join(f"{name} {value}" for name, value in unasked.items())
        raise ValueError(
            f"--like: {config.like} names files or models of the hub, which are not read unasked: "
            f"{told}; add --like-files to read them, or name your own (--{next(iter(unasked))} ...)"
        )
    prompt, seed = checked.batch[checked.index]
    job = Job(prompt, seed, checked.call.negative_prompt, config.like.name)
    within = f"--like: the image in the settings of {config.like}"
    image = None if checked.image is None else settings.opened(checked.image, within)
    pipeline = pipeline or model.load()
    now = settings.made_with(pipeline)
    changed = [name for name in now if now[name] != kept["made_with"][name]]
    if changed:
        warnings.warn(f"{config.like} was made with other {', '.join(changed)}", stacklevel=2)
    drawn = _draw(pipeline, kept, image, True)[checked.index]
    figure = _figure(job, settings.png(drawn, job.prompt, kept))
    return _result([figure], {"call": kept["call"], **now}, [job])


def _result(figures: Sequence[Figure], made: Mapping[str, Any], jobs: Sequence[Job]) -> Result:
    files = [asdict(job) for job in jobs]
    return Result("generate", "Prompts and pictures", (), tuple(figures), {**made, "files": files})
