"""TODO: experiments/common."""
