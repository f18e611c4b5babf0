"""What the tabs share: updates of the page while work goes on, numbers, images as HTML."""

import base64
import html
import io
from collections.abc import Callable, Iterator
from typing import Any, get_args

from PIL import Image

from experiments.common.sampling_options import Deterministic, Grid, Stochastic
from experiments.play import messages
from experiments.play.jobs import Failure, Notice, Tell, live

__all__ = ["GRIDS", "SOLVERS", "answers", "figure", "number", "png"]

SOLVERS = [*get_args(Deterministic), *get_args(Stochastic)]
GRIDS = list(get_args(Grid))


def answers(
    ask: Callable[[], Callable[[Tell], None]], show: Callable[[Any], dict[Any, Any]], said: Any
) -> Iterator[dict[Any, Any]]:
    """Updates of the page while what is asked for is worked on; errors and warnings in `said`."""
    notices: list[str] = []
    yield {said: messages.note("started")}
    try:
        work = ask()
    except ValueError as error:
        yield {said: messages.error(messages.on_page(str(error)))}
        return
    for report in live(work):
        if isinstance(report, Failure):
            yield {said: messages.error(report.text)}
        elif isinstance(report, Notice):
            notices.append(report.text)
            yield {said: messages.warning(notices)}
        elif isinstance(report, str):
            yield {said: messages.note(report)}
        else:
            yield {said: messages.warning(notices), **show(report)}


def number(value: Any) -> Any:
    """A whole number as int; any other value as it is."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def png(drawn: Image.Image) -> bytes:
    buffer = io.BytesIO()
    drawn.save(buffer, "PNG")
    return buffer.getvalue()


def figure(image: bytes, text: str, style: str, kind: str = "png") -> str:
    """An image with its caption, as HTML that holds both."""
    data, words = base64.b64encode(image).decode("ascii"), html.escape(text)
    picture = f'<img class="{style}" src="data:image/{kind};base64,{data}" alt="{words}">'
    return f'<figure class="shown">{picture}<figcaption>{words}</figcaption></figure>'
