"""Starts the playground: loads the model, and serves the page until Ctrl-C."""

import os
import signal
import socket
import tempfile
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from experiments.common.model import load
from experiments.output.result import Result
from experiments.play import Config
from sd.command_line.flags import refuse
from sd.command_line.terminal import say
from sd.digest import model_digest

HOST = "127.0.0.1"


def run(config: Config) -> Result:
    """Serve until Ctrl-C. Uploads and results lie in a temporary folder inside `config.out`.

    Raises ModuleNotFoundError without gradio, FlagError for a port in use.
    """
    place = config.out.absolute()
    with (
        _listening(config) as listener,
        tempfile.TemporaryDirectory(prefix="files-", dir=place) as folder,
        suppress(KeyboardInterrupt),
    ):
        os.environ |= {
            "GRADIO_ANALYTICS_ENABLED": "False",
            "GRADIO_TEMP_DIR": folder,
            "HF_HUB_DISABLE_TELEMETRY": "1",
        }
        from experiments.play.page import page
        from experiments.play.server import serve

        pipeline = load(config.model)
        pipeline = replace(pipeline, digest=model_digest(pipeline))  # it stays the same
        blocks = page(config, pipeline, Path(folder))
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # it ends as by Ctrl-C
        say(f"the playground is at http://{HOST}:{listener.getsockname()[1]} (Ctrl-C ends it)")
        serve(blocks, listener)
    return Result("play", "Playground", (), (), {})


def write(result: Result, folder: Path) -> list[Path]:
    """Nothing: the page's results are downloads."""
    return []


def _listening(config: Config) -> socket.socket:
    """A socket that listens on the port; FlagError where that is taken."""
    listener = socket.socket()
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((HOST, config.port))
        listener.listen()
    except OSError as error:
        listener.close()
        refuse(config, "port", f"a free port ({error.strerror})")
    return listener
