"""Images from prompts; every PNG carries the settings that repeat it."""

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, TypeAlias

import torch
from PIL.Image import Image
from tqdm import tqdm

from experiments.common.model import load
from experiments.common.model_options import NAMED, Model
from experiments.generate import Config, control, png_metadata
from experiments.generate.jobs import Job, batches, listed, read
from experiments.generate.shared_work import claimed, finishing
from experiments.output.files import write_files
from experiments.output.result import Figure, Result
from sd import device as devices
from sd.checkpoint.network import EMBEDDED
from sd.command_line.flags import FlagError, refuse
from sd.command_line.terminal import say
from sd.control import Control
from sd.files import image_tensor
from sd.img2img import default_strength
from sd.inpaint import fitted_mask, require_mask
from sd.pipeline import TextToImage
from sd.processes import launched
from sd.text.conditioning import rows

Batch: TypeAlias = tuple[list[Job], dict[str, Any]]
"""Images of one batch, and the settings that they share."""

Sources: TypeAlias = Mapping[str, Image | None]
"""The image to start from and its mask, by those names."""

Given: TypeAlias = Mapping[str, Image | Sequence[Control] | None]
"""The sources and the controls, by the names of the pipeline's arguments."""


def run(
    config: Config, pipeline: TextToImage | None = None, hold: bool = False, **call_only: Any
) -> Result:
    """Generate, and write each batch as it is done; with `hold` the result has the images instead.

    call_only: keywords of the pipeline's call that replace those of the settings in the call alone,
    not in the PNGs; a caller that watches gives its own `solver` around the named one.

    Several processes of one launcher share the images of `--prompts`: see `shared_work`.
    Raises KeyboardInterrupt with the number of finished images where it is interrupted.
    """
    process = launched()
    if process.count > 1 and config.prompts is None:
        refuse(config, "prompts", f"a file with {process.count} processes, which share its images")
    if config.like is not None:
        return _repeat(config, pipeline)
    jobs = _jobs(config)
    paths = {"image": config.image, "mask": config.mask}
    sources = _each(paths, lambda name, path: image_tensor.read_image(path, name))
    _fitting(sources, "mask")
    hints = control.read(config.controls)
    if process.count > 1 and torch.cuda.is_available():
        torch.cuda.set_device(process.local % torch.cuda.device_count())
    pipeline = pipeline or load(config.model)
    size = _size(pipeline, config.width, config.height)
    fit = {"image": image_tensor.fit, "mask": fitted_mask}  # the settings hold what is used of them
    sources = _each(sources, lambda name, one: fit[name](one, *size))
    controls = control.opened(config.controls, hints, pipeline, size)
    strength = config.strength
    if strength is None and config.image is not None:
        strength = default_strength(pipeline.config, config.mask is not None)
    call = {
        **config.sampling.call(pipeline),
        "negative_prompt": config.negative_prompt,
        "do_cfg": config.do_cfg,
        "strength": strength,
        "height": config.height,
        "width": config.width,
    }
    for text in dict.fromkeys(text for job in jobs for text in (job.prompt, job.negative_prompt)):
        rows(pipeline.tokenizer, text, call["long_prompt"])  # ValueError for one it cannot read
    made = png_metadata.made_with(pipeline)
    kept = _each(sources, lambda _, one: png_metadata.embedded(one))
    common = {**kept, "model": config.model.kept(), "made_with": made}
    if controls:
        common["controls"] = control.kept(config.controls, controls)
    work = [(batch, _settings(batch, call, common)) for batch in batches(jobs, config.batch)]
    there = set() if config.prompts is None else _there(config.out, work)
    inputs = {**sources, "controls": controls, **call_only}
    if process.count > 1:
        _share(config, pipeline, work, inputs)
        there = {job.file for job in jobs}
    drawn = _figures(pipeline, work, inputs, there)
    figures = list(drawn) if hold else _written(config, drawn, len(there), len(jobs))
    return _result(figures, {"call": call, **made}, jobs)


def _size(pipeline: TextToImage, width: int | None, height: int | None) -> tuple[int, int]:
    """The width and height of the images."""
    side = pipeline.config.image_size
    return width or side, height or side


def _each(sources: Mapping[str, Any], change: Callable[[str, Any], Any]) -> dict[str, Any]:
    """`change(name, source)` of each source that is there."""
    return {name: None if one is None else change(name, one) for name, one in sources.items()}


def _fitting(sources: Sources, name: str) -> None:
    """Raise ValueError, with the name, for a mask that does not fit its image."""
    image, mask = sources["image"], sources["mask"]
    if image is not None and mask is not None:
        require_mask(mask, image, name)


def _jobs(config: Config) -> list[Job]:
    """The jobs; FlagError for a negative prompt that has no effect."""
    if config.prompts is None:
        short = [repr(one) for one in config.prompt if len(one.split()) == 1]
        if short and len(config.prompt) > 1:
            said = f"{len(config.prompt)} prompts were read, of one word: {', '.join(short)}"
            warnings.warn(f"prompt: {said}; quote a prompt of several words", stacklevel=2)
        jobs = listed(config.prompt, config.seed, config.negative_prompt)
        if len({(job.prompt, job.seed) for job in jobs}) < len(jobs):
            refuse(config, "seed", "no seed twice for one prompt: that is the same image")
        return jobs
    jobs = read(config.prompts, config.seed[0], config.negative_prompt)
    off = "--no-do-cfg" if not config.do_cfg else "--guidance-scale 1"
    guided = config.do_cfg and config.sampling.guidance_scale != 1
    for job in jobs if not guided else ():
        if job.negative_prompt:
            fault = f"negative_prompt {job.negative_prompt!r} has no effect with {off}"
            raise FlagError(f"--prompts: {config.prompts}: {fault}")
    return jobs


def _settings(
    batch: Sequence[Job], call: Mapping[str, Any], common: Mapping[str, Any]
) -> dict[str, Any]:
    """The stored settings of the images of a batch, except their index in it."""
    own = {**call, "negative_prompt": batch[0].negative_prompt}
    return {"batch": [(job.prompt, job.seed) for job in batch], "call": own, **common}


def _there(folder: Path, batches: Sequence[Batch]) -> set[str]:
    """The files that exist with the same settings; ValueError for other settings.

    A batch with a missing image is sampled as a whole, so that the image has the same bits as in
    an uninterrupted run.
    """
    found: set[str] = set()
    changed: dict[str, None] = {}
    for batch, shared in batches:
        for index, job in enumerate(batch):
            path = folder / job.file
            if not path.exists():
                continue
            kept = png_metadata.read(path, "--out")
            other = png_metadata.differing(kept, {**shared, "index": index})
            if other:
                what = f"{path} was made with other {', '.join(other)}"
                raise ValueError(f"--out: {what}; take another folder, or remove it")
            now = shared["made_with"]
            changed |= {name: None for name in now if now[name] != kept["made_with"][name]}
            found.add(job.file)
    if changed:
        message = f"the images in {folder} were made with other {', '.join(changed)}"
        warnings.warn(message, stacklevel=2)
    return found


def _share(config: Config, pipeline: TextToImage, work: Sequence[Batch], given: Given) -> None:
    """Write the missing images, batch by batch, together with the other processes."""

    def missing(one: Batch) -> list[Job]:
        return [job for job in one[0] if not (config.out / job.file).exists()]

    total = sum(len(batch) for batch, _ in work)
    try:
        with finishing() as check:
            for one in claimed(config.out, work, lambda one: not missing(one)):
                there = {job.file for job in one[0]} - {job.file for job in missing(one)}
                for figure in _drawn(pipeline, one, given, there, False):
                    _write(config.out, figure)
                check()
    except KeyboardInterrupt:
        there = total - sum(len(missing(one)) for one in work)
        message = f"{there} of {total} images are in {config.out}; the same command resumes"
        raise KeyboardInterrupt(message) from None


def _figures(
    pipeline: TextToImage, batches: Sequence[Batch], given: Given, there: Set[str]
) -> Iterator[Figure]:
    """The images in order, sampled batch by batch; empty for those that exist.

    The progress bar counts images, or steps if there is one batch.
    """
    alone = len(batches) == 1
    total = sum(len(batch) for batch, _ in batches)
    with tqdm(total=total, unit="image", disable=True if alone else None) as bar:
        for one in batches:
            yield from _drawn(pipeline, one, given, there, alone)
            bar.update(len(one[0]))


def _drawn(
    pipeline: TextToImage, one: Batch, given: Given, there: Set[str], progress: bool
) -> Iterator[Figure]:
    """The images of a batch, sampled as a whole if one is missing; empty for those that exist."""
    batch, shared = one
    missing = {job.file for job in batch} - there
    texts, seeds = zip(*shared["batch"], strict=True)
    call = {**shared["call"], "progress": progress, **given}
    images = pipeline(list(texts), seed=list(seeds), **call) if missing else []
    for index, job in enumerate(batch):
        png = b""
        if job.file in missing:
            png = png_metadata.png(images[index], job.prompt, {**shared, "index": index})
        yield Figure(job.file, png, f"{job.prompt} (seed {job.seed})", job.prompt)


def _written(config: Config, figures: Iterator[Figure], there: int, total: int) -> list[Figure]:
    """Write the missing images one by one, and release their bytes."""
    written: list[Figure] = []
    try:
        for figure in figures:
            there += _write(config.out, figure)
            written.append(replace(figure, image=b""))
    except KeyboardInterrupt:
        again = "" if config.prompts is None else "; the same command resumes"
        message = f"{there} of {total} images are in {config.out}{again}"
        raise KeyboardInterrupt(message if there else "") from None
    return written


def _write(folder: Path, figure: Figure) -> bool:
    """Write the image, unless it is empty since its file exists; whether it was written."""
    if figure.image:
        say(*write_files(folder, {figure.name: figure.image}))
    return bool(figure.image)


def _repeat(config: Config, pipeline: TextToImage | None) -> Result:
    """Sample the batch of the PNG again, and keep its image."""
    assert config.like is not None
    own = {name: getattr(config.model, name) for name in config.model.named()}
    device = config.model.device
    given = Model(low_memory=config.model.low_memory, device=device, **own)
    allowed = {"like": None, "like_files": False, "out": Config.out}
    if replace(config, **allowed) != Config(model=given):
        kinds = ", ".join(f"--{name}" for name in NAMED)
        others = f"leave out all but --out, --low-memory, --device, --like-files, {kinds}"
        raise ValueError(f"--like repeats an image with its own settings: {others}")
    kept = png_metadata.read(config.like)
    checked = png_metadata.checked(kept)
    if device == "auto" and devices.exists(checked.model.device):
        device = checked.model.device
    model = replace(checked.model, low_memory=given.low_memory, device=device, **own)
    kept["model"] |= {name: given.kept()[name] for name in own}
    unasked = {name: kept["model"][name] for name in checked.model.named() if name not in own}
    nets = [one.control for one in checked.controls if one.control != EMBEDDED]
    named = [*unasked.items(), *(("control", one) for one in nets)]
    if named and not config.like_files:
        files = "; ".join(f"{name} {value}" for name, value in named)
        own_too = f", or name your own (--{next(iter(unasked))} ...)" if unasked else ""
        raise ValueError(
            f"--like: {config.like} names files or models of the hub: {files}. They are read only "
            f"with --like-files{own_too}"
        )
    against = checked.call.negative_prompt
    names = ["" if k != checked.index else config.like.name for k in range(len(checked.batch))]
    jobs = [Job(*one, against, name) for one, name in zip(checked.batch, names, strict=True)]
    within = f"in the settings of {config.like}"
    texts = {"image": checked.image, "mask": checked.mask}
    told = "--like: the {} " + within
    sources = _each(texts, lambda name, text: png_metadata.opened(text, told.format(name)))
    _fitting(sources, f"--like: the mask {within}")
    pipeline = pipeline or load(model)
    now = png_metadata.made_with(pipeline)
    changed = [name for name in now if now[name] != kept["made_with"][name]]
    size = _size(pipeline, checked.call.width, checked.call.height)
    controls = control.repeated(checked.controls, pipeline, within, size)
    if any(control.digest(a) != b.weights for a, b in zip(controls, checked.controls, strict=True)):
        changed.append("ControlNet weights")
    if changed:
        warnings.warn(f"{config.like} was made with other {', '.join(changed)}", stacklevel=2)
    drawn = _drawn(pipeline, (jobs, kept), {**sources, "controls": controls}, {""}, True)
    own_figure = [figure for figure in drawn if figure.image]
    return _result(own_figure, {"call": kept["call"], **now}, [jobs[checked.index]])


def _result(figures: Sequence[Figure], made: Mapping[str, Any], jobs: Sequence[Job]) -> Result:
    files = [asdict(job) for job in jobs]
    return Result("generate", "Prompts and images", (), tuple(figures), {**made, "files": files})
