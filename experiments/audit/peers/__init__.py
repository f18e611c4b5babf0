"""Other libraries' samplers as `diffusion_math.testing.Sampler`s; a module imports the library of its name."""
