"""The page: three tabs."""

from pathlib import Path
from typing import Any

from experiments.play import Config, check_tab, image_tab, plane_tab
from sd.pipeline import TextToImage

__all__ = ["page"]

USERS = 4
"""Jobs of one kind that are worked on at once; others wait in line, their place is shown."""

WAITING = 16
"""Jobs in the line."""


def page(config: Config, pipeline: TextToImage, folder: Path) -> Any:
    """The page as `gradio.Blocks`. folder: where results lie until they are served."""
    import gradio as gr

    with gr.Blocks(title="diffusion-math", delete_cache=(3600, 86400)) as blocks:
        gr.Markdown("# diffusion-math playground")
        with gr.Tab("Image"):
            image_tab.tab(gr, config, pipeline, folder)
        with gr.Tab("Plane"):
            plane_tab.tab(gr)
        with gr.Tab("Check"):
            check_tab.tab(gr, config, folder)
    blocks.queue(max_size=WAITING, default_concurrency_limit=USERS, api_open=False)
    return blocks
