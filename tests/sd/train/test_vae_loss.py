"""The autoencoder's loss (C31), and the standardised latent."""

import math
from pathlib import Path

import pytest
import torch
from scipy import stats

from sd import weights
from sd.config import VAEConfig, to_json
from sd.files.image_tensor import signed
from sd.networks.vae import VAE
from sd.shapes.data import example, fingerprint
from sd.train.source import images
from sd.train.vae import KL, VAETraining, context, psnr, standardise, train_vae, vae_loss
from tests.support.chance import Mean, rare, seeded
from tests.support.distribution import Law, independent, line, uniform

TINY = VAEConfig(channels=(8, 8), layers_per_block=1, groups=4, scaling_factor=0.5)


class Given(torch.nn.Module):
    """Stands where the VAE stands: given moments, a given reconstruction."""

    config = TINY

    def __init__(self, mean: torch.Tensor, log_variance: torch.Tensor, y: torch.Tensor) -> None:
        super().__init__()
        self.mean, self.log_variance, self.y = mean, log_variance, y

    def moments(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.mean, self.log_variance

    def decode(self, z: torch.Tensor) -> torch.Tensor:
        self.z = z
        return self.y


def test_the_loss_is_its_closed_form() -> None:
    """Backgrounds of 40, one with 5 pixels of 200 and one with 10; errors 0.1 there, else 0.02."""
    image = torch.full((2, 3, 8, 8), 40, dtype=torch.uint8)
    image[0, :, 3, 1:6] = 200
    image[1, :, 3:5, 1:6] = 200
    error = torch.where(image == 200, 0.1, 0.02)
    error[1] *= 2.0
    mean, log_variance = torch.full((2, 4, 4, 4), 0.7), torch.full((2, 4, 4, 4), -1.2)
    vae = Given(mean, log_variance, signed(image) + error)
    figures = vae_loss(vae, image, torch.Generator().manual_seed(0))
    kl = 0.5 * (0.7**2 + math.exp(-1.2) + 1.2 - 1.0)
    balanced = (1 + 4) / 2 * (0.1**2 + 0.02**2) / 2
    plain = (5 * 0.1**2 + 59 * 0.02**2 + 4 * (10 * 0.1**2 + 54 * 0.02**2)) / 128
    # float32 around 1 holds the differences 0.02 to 1e-5 of their size
    assert float(figures["kl"]) == pytest.approx(kl, rel=1e-6)
    assert float(figures["squared_error"]) == pytest.approx(plain, rel=1e-4)
    assert float(figures["loss"]) == pytest.approx(balanced + KL * kl, rel=1e-4)


def test_a_thing_of_one_pixel_counts_as_much_as_its_background() -> None:
    """Its colour shares two channels with the corner's: it is a thing all the same."""
    image = torch.full((1, 3, 2, 2), 250, dtype=torch.uint8)
    image[0, 2, 1, 1] = 40
    error = torch.full((1, 3, 2, 2), 0.1)
    error[:, :, 1, 1] = 0.5
    zero = torch.zeros(1, 4, 1, 1)
    figures = vae_loss(Given(zero, zero, signed(image) + error), image, seeded(0))
    assert float(figures["kl"]) == 0.0
    assert float(figures["loss"]) == pytest.approx((0.5**2 + 0.1**2) / 2, rel=1e-5)


class Asked(Given):
    """Keeps the images whose moments it gives."""

    def moments(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        self.x = x
        return super().moments(x)


def test_the_latent_is_drawn_with_the_generator() -> None:
    """mean + sqrt(variance + s^2) z, times the scale: first z is drawn, then s of each image."""
    image = torch.tensor([0, 255, 51], dtype=torch.uint8).expand(2, 2, 1, 3).permute(0, 3, 1, 2)
    mean, log_variance = torch.full((2, 4, 1, 1), 0.7), torch.full((2, 4, 1, 1), -1.2)
    vae = Asked(mean, log_variance, signed(image))
    vae_loss(vae, image, seeded(3), 0.6)
    generator = seeded(3)
    z = torch.randn(2, 4, 1, 1, generator=generator)
    s = 0.6 * torch.rand(2, 1, 1, 1, generator=generator)
    wanted = TINY.scaling_factor * (0.7 + (math.exp(-1.2) + s.square()).sqrt() * z)
    torch.testing.assert_close(vae.z, wanted, rtol=1e-6, atol=1e-6)
    color = torch.tensor([-1.0, 1.0, 51 / 127.5 - 1]).reshape(1, 3, 1, 1)
    torch.testing.assert_close(vae.x, color.expand(2, 3, 2, 1), rtol=0, atol=1e-6)


def test_the_draw_is_where_the_moments_are() -> None:
    """A device without numbers stands for a GPU; nothing after the decoder is looked at."""

    class DecodedError(Exception):
        pass

    class Elsewhere(Given):
        def decode(self, z: torch.Tensor) -> torch.Tensor:
            raise DecodedError(z.device.type)

    mean, image = torch.zeros(1, 4, 1, 1, device="meta"), torch.zeros(1, 3, 2, 2).byte()
    with pytest.raises(DecodedError, match="meta"):
        vae_loss(Elsewhere(mean, mean, signed(image)), image, seeded(0), 0.5)


@pytest.mark.chance(4e-9, "sigma for sigma^2, or twice the mean's scale")
def test_the_decoder_is_given_a_draw_of_the_latent() -> None:
    """z / scale ~ N(mean, variance): the mean and second moment of 65,536 draws."""
    count = 65_536
    shape = (1, 4, 128, 128)
    image = torch.zeros(1, 3, 256, 256, dtype=torch.uint8)
    vae = Given(torch.full(shape, 0.7), torch.full(shape, -1.2), signed(image))
    vae_loss(vae, image, seeded(3))
    z = vae.z.double() / TINY.scaling_factor
    law = line().of(lambda z: math.exp(-0.6) * z)
    first, second = Mean(law, count, 1e-9), Mean(law.of(torch.square), count, 1e-9)
    assert first.holds(z.mean() - 0.7) and second.holds((z - 0.7).square().mean())
    assert rare(first.misses(law.of(lambda z: z + 0.7)))
    assert rare(second.misses(line().of(lambda z: math.exp(-0.6) * z.square())))


@pytest.mark.chance(4e-9, "s of one size, the root of noise^2 / 3, or noise itself")
def test_noise_widens_each_images_draw_by_its_own_amount() -> None:
    """4,000 images of 256 numbers: s uniform on [0, noise], so E s^2 = noise^2 / 3.

    An image's sample variance is (e^-4 + s^2) chi^2 / 255, chi^2 of 255 degrees of freedom.
    """
    shape, noise = (4_000, 4, 8, 8), 0.6
    image = torch.zeros(4_000, 3, 1, 1, dtype=torch.uint8)
    vae = Given(torch.zeros(shape), torch.full(shape, -4.0), signed(image))
    vae_loss(vae, image, seeded(3), noise)
    each = (vae.z.double() / TINY.scaling_factor).flatten(1).var(dim=1)
    ratio = torch.linspace(0.3, 2.2, 800, dtype=torch.float64)
    chi_square = Law(ratio, torch.from_numpy(stats.chi2.pdf(255 * ratio.numpy(), 255)))

    def widened(s: Law) -> Law:
        return independent(s, chi_square, lambda s, ratio: (math.exp(-4.0) + s.square()) * ratio)

    law = widened(uniform(0, noise, 400))
    first, second = Mean(law, len(each), 1e-9), Mean(law.of(torch.square), len(each), 1e-9)
    assert first.holds(each.mean()) and second.holds(each.square().mean())
    one = Law(torch.tensor([1.0], dtype=torch.float64), torch.ones(1, dtype=torch.float64))
    same = widened(one.of(lambda s: s * noise / math.sqrt(3)))
    assert rare(second.misses(same.of(torch.square)))
    assert rare(first.misses(widened(one.of(lambda s: s * noise))))


@torch.no_grad()
def test_standardising_moves_the_latent_and_nothing_else() -> None:
    torch.manual_seed(0)
    vae = VAE(TINY).eval()
    for parameter in vae.quant_conv.parameters():
        parameter.mul_(3.0).add_(0.2)
    seen = images(0, range(24))
    before = vae.decode(vae.encode(signed(seen)).mean)
    standardise(vae, seen)
    latent = vae.encode(signed(seen))
    after = vae.decode(latent.mean)
    # Two more roundings of float32 per latent number, carried through some ten layers.
    torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-4)
    scale = TINY.scaling_factor
    assert torch.allclose(latent.mean.mean(dim=(0, 2, 3)) / scale, torch.zeros(4), atol=1e-4)
    total = latent.mean.var(dim=(0, 2, 3)) + latent.variance.mean(dim=(0, 2, 3))
    assert torch.allclose(total / scale**2, torch.ones(4), rtol=1e-3)


@torch.no_grad()
def test_psnr_of_a_known_error() -> None:
    """A reconstruction 10 bytes off everywhere has 20 log10(255 / 10) = 28.13 dB."""
    image = torch.full((2, 3, 8, 8), 100, dtype=torch.uint8)

    class Shifted(VAE):
        def decode(self, z: torch.Tensor) -> torch.Tensor:
            return signed(image) + 10 / 127.5

    found = psnr(Shifted(TINY), image)
    assert found.tolist() == pytest.approx([20 * math.log10(25.5)] * 2, rel=1e-6)


def test_more_training_of_the_decoder_leaves_the_latents_alone(tmp_path: Path) -> None:
    torch.manual_seed(1)
    vae, first = VAE(TINY), tmp_path / "vae.safetensors"
    weights.save_network(first, vae, TINY, dtype=torch.float32)
    training = VAETraining(
        steps=2, batch_size=2, out=tmp_path, warmup=1, initial=first, decoder_only=True, cpu=True
    )
    state = train_vae(training, TINY)
    frozen = {name for name in state if name.startswith(("encoder.", "quant_conv."))}
    before = vae.state_dict()
    assert frozen
    for name, value in state.items():
        assert torch.equal(value, before[name]) == (name in frozen), name


def test_a_decoder_alone_is_trained_with_a_given_encoder(tmp_path: Path) -> None:
    words = "^--vae.decoder-only: give the encoder by --vae.initial$"
    with pytest.raises(ValueError, match=words):
        VAETraining(decoder_only=True).check()
    first = tmp_path / "vae.safetensors"
    first.write_bytes(b"")
    VAETraining(decoder_only=True, initial=first).check()
    VAETraining(initial=first).check()


def test_held_out_images_are_asked_for() -> None:
    for held_out in (False, True):
        wanted = torch.from_numpy(example(3, 5, held_out).image).permute(2, 0, 1)
        assert torch.equal(images(3, range(5, 6), held_out)[0], wanted)


def test_what_changes_the_autoencoder_is_in_its_checkpoint() -> None:
    """Runs resume across versions of the program, so this is a format."""
    assert context(TINY) == {"config": to_json(TINY), "data": fingerprint()}
