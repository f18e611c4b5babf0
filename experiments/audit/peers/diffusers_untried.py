"""Schedulers of diffusers that are not audited, and why."""

TOKENS = "tokens, not numbers, are noised"
ONE_NETWORK = "made for one distilled network's outputs, which no exact denoiser has"
UPWARD = "runs from data to noise; docs/audit.md has a finding on DDIM's"
UNTRIED = {
    **dict.fromkeys(
        (
            "AmusedScheduler",
            "BlockRefinementScheduler",
            "DiscreteDDIMScheduler",
            "EntropyBoundScheduler",
            "VQDiffusionScheduler",
        ),
        TOKENS,
    ),
    **dict.fromkeys(
        (
            "CMStochasticIterativeScheduler",
            "HeliosDMDScheduler",
            "PiflowScheduler",
            "SCMScheduler",
        ),
        ONE_NETWORK,
    ),
    **dict.fromkeys(("DDIMInverseScheduler", "DPMSolverMultistepInverseScheduler"), UPWARD),
    "DDPMWuerstchenScheduler": "its levels are those of a cosine with an offset, on no table",
    "HeliosScheduler": "changes the resolution between its stages",
    "KarrasVeScheduler": "deprecated; its two halves of a step are called by the pipeline",
    "RFD4ProteinaScheduler": "samples at a lowered temperature, not the data",
    "RePaintScheduler": "goes back and forth around a mask",
    "ScoreSdeVeScheduler": "its predictor and corrector are called by the pipeline",
}
"""What diffusers exports and `diffusers.cases` leaves out: why."""
