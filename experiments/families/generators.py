"""Three ways to learn a map from normal noise to points of the plane, and one that fails to.

Each is trained from nothing on fresh samples of a density, by the same budget (claims C01, C31).
"""

from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter

import torch
from torch import Generator, Tensor, nn
from torch.nn.functional import softplus

from diffusion_math.denoiser import from_v
from diffusion_math.densities.toy import Density
from diffusion_math.grid import uniform_log_snr
from diffusion_math.loss import training_loss, uniform_times
from diffusion_math.sample import final
from diffusion_math.schedule import VPCosine
from diffusion_math.solvers.one_step import heun
from experiments.common.networks import FREQUENCIES, Timed, fit, mlp, parameters
from experiments.common.statistics import seeded


@dataclass(frozen=True)
class Budget:
    """What every family may use: updates, examples in each, learned numbers in all its networks."""

    steps: int
    batch: int
    parameters: int
    seed: int


@dataclass(frozen=True)
class Trained:
    """A family after training: `sample(z, generator)` maps z to points; `code` points to latents.

    The generator is for what a family draws beside z: the VAE's noise about f(z), and its code's.
    """

    sample: Callable[[Tensor, Generator], Tensor]
    parameters: int
    seconds: float
    code: Callable[[Tensor, Generator], Tensor] | None = None


def vae(budget: Budget, data: Density) -> Trained:
    """x = f(z) + s e: maximises E log N(x; f(z), s^2) - KL(q(z | x), N(0, I)), s learned too."""
    generator = seeded(budget.seed)
    width = _width(budget, 2, 2, 3)
    encoder, decoder = mlp(2, width, 4, generator), mlp(2, width, 2, generator)
    log_s = nn.Parameter(torch.tensor(-1.0))
    networks = nn.ModuleDict({"encoder": encoder, "decoder": decoder})
    networks.register_parameter("log_s", log_s)

    def posterior(x: Tensor, generator: Generator) -> tuple[Tensor, Tensor, Tensor]:
        mean, log_std = encoder(x).chunk(2, dim=1)
        return mean, log_std, mean + log_std.exp() * torch.randn(mean.shape, generator=generator)

    def loss(x: Tensor, generator: Generator) -> Tensor:
        mean, log_std, z = posterior(x, generator)
        misfit = (decoder(z) - x).square().sum(1) / (2 * (2 * log_s).exp()) + 2 * log_s
        kl = (mean.square() + (2 * log_std).exp() - 1 - 2 * log_std).sum(1) / 2
        return (misfit + kl).mean()

    def sample(z: Tensor, generator: Generator) -> Tensor:
        x = decoder(z)
        return x + log_s.exp() * torch.randn(x.shape, generator=generator)

    seconds = _train(budget, networks, loss, data)
    return Trained(sample, parameters(networks), seconds, lambda x, g: posterior(x, g)[2])


def autoencoder(budget: Budget, data: Density) -> Trained:
    """A code and its way back, by the squared error alone; `sample` decodes z like a code."""
    generator = seeded(budget.seed)
    width = _width(budget, 2, 2, 3)
    encoder, decoder = mlp(2, width, 2, generator), mlp(2, width, 2, generator)
    networks = nn.ModuleList([encoder, decoder])

    def loss(x: Tensor, generator: Generator) -> Tensor:
        return (decoder(encoder(x)) - x).square().sum(1).mean()

    seconds = _train(budget, networks, loss, data)
    # A fair draw: z has the codes' own mean and covariance.
    with torch.no_grad():
        codes = encoder(data.sample(seeded(budget.seed), 4096).float())
        root = torch.linalg.cholesky(torch.cov(codes.mT))

    def sample(z: Tensor, generator: Generator) -> Tensor:
        return decoder(codes.mean(0) + z @ root.mT)

    def code(x: Tensor, generator: Generator) -> Tensor:
        return torch.linalg.solve_triangular(root, (encoder(x) - codes.mean(0)).mT, upper=False).mT

    return Trained(sample, parameters(networks), seconds, code)


def gan(budget: Budget, data: Density) -> Trained:
    """x = f(z) against a critic D: max_f E log D(f(z)), max_D E log D(x) + E log(1 - D(f(z))).

    With R1, a penalty on the critic's slope at the data, without which training need not converge
    (Mescheder et al., arXiv:1801.04406). An update moves both networks once.
    """
    generator = seeded(budget.seed)
    width = _width(budget, 2, 2, 2)
    maker, critic = mlp(2, width, 2, generator), mlp(2, width, 1, generator)

    def loss(x: Tensor, generator: Generator) -> Tensor:
        fake: Tensor = maker(torch.randn(x.shape, generator=generator))
        x = x.requires_grad_()
        real = critic(x)
        (slope,) = torch.autograd.grad(real.sum(), x, create_graph=True)
        of_critic = softplus(-real).mean() + softplus(critic(fake.detach())).mean()
        of_critic = of_critic + 0.1 * slope.square().sum(1).mean()
        # The maker's loss must not move the critic, whose weights are constants there.
        fixed = {name: one.detach() for name, one in critic.named_parameters()}
        of_maker: Tensor = softplus(-torch.func.functional_call(critic, fixed, (fake,))).mean()
        return of_critic + of_maker

    networks = nn.ModuleList([maker, critic])
    seconds = _train(budget, networks, loss, data)
    return Trained(lambda z, _: maker(z), parameters(networks), seconds)


def diffusion(budget: Budget, data: Density) -> Trained:
    """x = the end of the probability flow that starts at z; the network learns v (C19)."""
    schedule = VPCosine()
    generator = seeded(budget.seed)
    network = Timed(schedule, _width(budget, 1, 3 + 2 * FREQUENCIES, 2), generator)

    def loss(x: Tensor, generator: Generator) -> Tensor:
        t = uniform_times(schedule, generator, len(x))
        eps = torch.randn(x.shape, generator=generator)
        return training_loss(schedule, network, "v", x, eps, t).mean()

    def sample(z: Tensor, generator: Generator) -> Tensor:
        grid = uniform_log_snr(schedule, 25)
        return final(heun(schedule), from_v(network, schedule), z, grid)

    return Trained(sample, parameters(network), _train(budget, network, loss, data, 4e-3))


FAMILIES = {"VAE": vae, "GAN": gan, "diffusion": diffusion}
"""The three families of claim C01."""


def _width(budget: Budget, networks: int, inputs: int, outputs: int) -> int:
    """The largest width at which so many networks of `mlp` keep to the budget, at least 4."""
    width = 4
    while (
        networks * ((width + 1) * (inputs + outputs + 2 * width + 5) + outputs) <= budget.parameters
    ):
        width += 1
    return width


def _train(
    budget: Budget,
    network: nn.Module,
    loss: Callable[[Tensor, Generator], Tensor],
    data: Density,
    rate: float = 2e-3,
) -> float:
    """Fit to fresh batches of the density; the seconds that took."""
    started = perf_counter()
    fit(
        network,
        lambda generator: loss(data.sample(generator, budget.batch).float(), generator),
        seeded(budget.seed),
        budget.steps,
        rate,
    )
    return perf_counter() - started
