"""Other libraries' samplers as `Sampler`s; a module imports the library of its name."""
