"""Plausible mistakes of a training, each of which a test rejects; the right version passes it."""

from pathlib import Path

import pytest

from sd.shapes import data
from sd.train import __main__ as program
from sd.train import clip, contrastive_pairs, evaluation, source, trainer, unet, vae
from tests.sd.train import test_evaluation, test_examples, test_program, test_step, test_vae_loss
from tests.sd.train.mistakes.mistake import Mistake

STEP = test_step.test_steps_and_averages_are_those_of_the_papers
SHIPS = test_program.test_what_is_judged_is_what_ships
CAPTION = test_examples.test_a_latents_caption_says_what_its_own_picture_shows
LATENT = test_examples.test_a_latent_is_its_mean_and_its_standard_deviation_times_a_draw
ENCODED = test_examples.test_encoded_latents_are_those_of_the_images_in_order
PAIRS = test_examples.test_a_pairs_caption_says_what_its_own_picture_shows
JUDGED = test_examples.test_nothing_is_judged_on_what_was_trained_on
FRESH = test_examples.test_clips_figures_are_on_none_of_its_batches


def accuracy() -> None:
    test_evaluation.test_accuracy_is_that_of_the_prompts_it_is_named_for(True, False, True)


def mean() -> None:
    test_evaluation.test_the_u_nets_loss_is_a_mean_over_all_numbers((8, 4, 2, 3))


def read() -> None:
    test_evaluation.test_reconstructions_are_read_beside_their_own_images(2)


def generator(tmp_path: Path) -> None:
    test_step.test_the_generator_is_that_of_the_seed_and_the_step(tmp_path)


def autocast(tmp_path: Path) -> None:
    test_step.test_products_are_in_bfloat16_where_asked_and_weights_never(True, tmp_path)


def m(name: str, where: str, right: str, wrong: str, check: object) -> Mistake:
    module, _, function = where.partition(":")
    modules = {
        "loop": trainer, "unet": unet, "vae": vae, "clip": clip, "pairs": contrastive_pairs,
        "data": data, "figures": evaluation, "program": program, "source": source,
    }  # fmt: skip
    return Mistake(name, modules[module], function, right, wrong, check)  # type: ignore[arg-type]


MISTAKES = [
    m("a caption of another image, latents sorted", "unet:captioned_latents",
      "x0 = latent.mean[chosen] +", "x0 = latent.mean[np.sort(chosen)] +", CAPTION),
    m("a caption of another image, captions sorted", "unet:captioned_latents",
      "for i in some]", "for i in sorted(some)]", CAPTION),
    m("a caption of the next image", "unet:captioned_latents",
      "source.caption(i, rng)", "source.caption(i - 1, rng)", CAPTION),
    m("captions of another seed", "source:scenes",
      "described(seed, index)", "described(seed + 1, index)", CAPTION),
    m("latents one image on", "unet:encode",
      "range(first, min(first + batch, source.count))",
      "range(first + 1, min(first + batch, source.count) + 1)",
      ENCODED),
    m("a pair's captions in another order", "pairs:contrastive_pairs",
      "return Pairs(np.stack(images), captions[own],",
      "return Pairs(np.stack(images), captions[own][::-1],", PAIRS),
    m("the variance for the deviation", "unet:captioned_latents",
      "latent.variance[chosen].sqrt()", "latent.variance[chosen]", LATENT),
    m("the latent's mean alone", "unet:captioned_latents",
      " + latent.variance[chosen].sqrt() * z", "", LATENT),
    m("a loss that is a sum over the numbers", "unet:unet_loss",
      "squared.mean() / x0[0].numel()", "squared.mean()", mean),
    m("a loss that is a sum over the batch", "unet:unet_loss", "squared.mean()", "squared.sum()",
      mean),
    m("a loss that is a sum over the images", "vae:vae_loss",
      "0.5 * means.mean()", "0.5 * means.sum()",
      test_vae_loss.test_the_loss_is_its_closed_form),
    m("a divergence that is a sum", "vae:vae_loss",
      "- log_variance - 1.0).mean()", "- log_variance - 1.0).sum()",
      test_vae_loss.test_the_loss_is_its_closed_form),
    m("gradients are not clipped", "loop:fit",
      "accelerator.clip_grad_norm_(learned, NORM)", "pass", STEP),
    m("gradients are clipped number by number", "loop:fit",
      "accelerator.clip_grad_norm_(", "accelerator.clip_grad_value_(", STEP),
    m("the weight decay is not passed on", "loop:fit",
      "        weight_decay=training.weight_decay,\n", "", STEP),
    m("Adam with the decay in the gradient", "loop:fit", "torch.optim.AdamW", "torch.optim.Adam",
      STEP),
    m("gradients add up over the steps", "loop:fit",
      "optimizer.zero_grad(set_to_none=True)", "pass", STEP),
    m("the learning rate one step late", "loop:fit",
      "figures = update(examples, step - 1)", "figures = update(examples, step)", STEP),
    m("a warm-up from zero", "loop:learning_rate", "(step + 1) / training.warmup",
      "step / training.warmup", STEP),
    m("a cosine over the warm-up too", "loop:learning_rate",
      "(step - training.warmup) / max(training.steps - training.warmup, 1)",
      "step / training.steps", STEP),
    m("a learning rate that stays at its peak", "loop:learning_rate",
      "* 0.5 * (1.0 + math.cos(math.pi * progress))", "", STEP),
    m("an average without its warm-up", "loop:fit",
      "min(training.ema, step / (step + 10.0))", "training.ema", STEP),
    m("an average one step behind", "loop:fit",
      "min(training.ema, step / (step + 10.0))", "min(training.ema, (step - 1) / (step + 9.0))",
      STEP),
    m("an average with its shares swapped", "loop:fit", "1.0 - keep)", "keep)", STEP),
    m("the weights are returned, not their average", "loop:fit",
      "return {k: v.cpu() for k, v in average.items()}",
      "return {k: v.cpu() for k, v in module.state_dict().items()}", STEP),
    m("raw weights are judged", "loop:_of_the_average",
      "module.load_state_dict(average)", "pass", STEP),
    m("the average is left in place", "loop:_of_the_average",
      "module.load_state_dict(trained)", "pass", STEP),
    m("the weights are put aside without a copy", "loop:_of_the_average",
      "{k: v.clone() for k, v in module.state_dict().items()}", "module.state_dict()", STEP),
    m("every step draws the same", "loop:fit", "training.seed * 1_000_003 + step",
      "training.seed * 1_000_003", generator),
    m("every seed draws the same", "loop:fit", "training.seed * 1_000_003 + step", "step",
      generator),
    m("no bfloat16", "loop:fit", "enabled=training.bfloat16", "enabled=False", autocast),
    m("CLIP's scale is not clamped", "clip:CLIP.forward", ".clamp(max=100.0)", "",
      test_evaluation.test_the_temperature_of_clip_is_at_most_a_hundred),
    m("CLIP's log scale is clamped for the scale", "clip:CLIP.forward",
      "self.log_scale.exp().clamp(max=100.0)", "self.log_scale.clamp(max=100.0).exp()",
      test_evaluation.test_the_temperature_of_clip_is_at_most_a_hundred),
    m("CLIP is judged on training batches", "source:Shapes.judged",
      "Shapes(FRESH).pairs", "self.pairs", FRESH),
    m("the autoencoder is judged on training images", "source:Shapes.fresh",
      "images(FRESH, range(count))", "images(self.seed, range(count))",
      test_examples.test_the_autoencoders_figures_are_of_fresh_images),
    m("reconstructions of training images", "figures:reconstruction",
      "original = images(FRESH, indices)", "original = images(0, indices)", JUDGED),
    m("seen and held-out accuracy swapped", "figures:accuracy",
      'held_out=pairs == "held_out"', 'held_out=pairs == "seen"', accuracy),
    m("guided and unguided accuracy swapped", "figures:accuracy",
      "do_cfg=guided", "do_cfg=not guided", accuracy),
    m("guidance everywhere", "figures:accuracy",
      '"_unguided": False', '"_unguided": True', accuracy),
    m("reconstructions read beside other images", "figures:reconstruction",
      "describe(example(FRESH, index).scene)", "describe(example(FRESH, index + 1).scene)", read),
    m("the text encoder is judged unrounded", "clip:train_clip",
      "rounded(module.cpu(), state)", "module.cpu().load_state_dict(state)", SHIPS),
    m("the autoencoder is judged unrounded", "program:_train",
      "trained = rounded(trained, trained.state_dict())", "trained = trained.eval()", SHIPS),
    m("the U-Net is judged unrounded", "program:_train",
      "network = rounded(UNet(config.unet), state)",
      "network = UNet(config.unet); network.load_state_dict(state)", SHIPS),
    m("the autoencoder is judged before its latents are standardised", "program:_train",
      "        trained = rounded(trained, trained.state_dict())\n",
      "        trained = rounded(trained, vae.train_vae(options.vae, config.vae))\n"
      "        judged = evaluation.reconstruction(trained, 2)\n"
      "        vae.standardise(trained, source.images(0, range(4)))\n"
      "        evaluation.reconstruction = lambda *_: judged\n", SHIPS),
    m("the encoder is trained with the decoder", "vae:train_vae",
      "part.requires_grad_(False)", "part.requires_grad_(True)",
      test_vae_loss.test_more_training_of_the_decoder_leaves_the_latents_alone),
    m("captions are kept where they are to be dropped", "unet:captioned_latents",
      "rng.random() < training.drop", "rng.random() > training.drop",
      test_examples.test_all_or_no_captions_are_dropped_at_the_ends),
    m("one thing for two", "source:Shapes.chosen", "one, two = self", "two, one = self",
      test_examples.test_images_of_two_things_alone_or_none_at_the_ends),
]  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake.name)
def test_the_mistake_is_rejected(mistake: Mistake, tmp_path: Path) -> None:
    with mistake.made(), pytest.raises((AssertionError, pytest.fail.Exception)):
        mistake.run(tmp_path / "wrong")


@pytest.mark.slow
@pytest.mark.parametrize("check", sorted({one.check for one in MISTAKES}, key=lambda f: f.__name__))
def test_what_rejects_them_passes_the_right_version(check: object, tmp_path: Path) -> None:
    (mistake, *_) = (one for one in MISTAKES if one.check is check)
    mistake.run(tmp_path / "right")


def test_the_mistakes_are_told_apart() -> None:
    assert len({one.name for one in MISTAKES}) == len(MISTAKES) >= 40
