"""Code of other shapes as the callables that the assertions and `Sampler` take.

Each turns one thing into another and checks nothing; none imports another library.

    from diffusion_math.testing import Sampler, adaptors
    mine = Sampler("mine", dm.VE(), adaptors.of_edm(my_sampler), lambda n: dm.karras(dm.VE(), n))
"""

from diffusion_math.testing.adaptors.functions import arrays, shaped, with_network
from diffusion_math.testing.adaptors.samplers import of_edm, of_scheduler, of_velocity
from diffusion_math.testing.adaptors.sde import levels_of_marginal, rates_of_sde

__all__ = [
    "arrays",
    "levels_of_marginal",
    "of_edm",
    "of_scheduler",
    "of_velocity",
    "rates_of_sde",
    "shaped",
    "with_network",
]
