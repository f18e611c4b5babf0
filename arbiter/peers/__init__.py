"""Other libraries' samplers as `arbiter.Sampler`s; a module imports the library of its name."""
