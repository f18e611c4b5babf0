"""TODO: experiments/output."""
