"""The page's server: for this machine alone, and without a request to any other."""

import socket
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, TypeAlias, final

__all__ = ["LocalOnly", "serve"]

MOST_BYTES = "8mb"
"""The largest upload."""

Scope: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Scope]]
Send: TypeAlias = Callable[[Scope], Awaitable[None]]
App: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]

POLICY = "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; frame-ancestors 'none'"
"""The browser loads nothing from elsewhere, and no other page frames this one."""


@final
class LocalOnly:
    """Refuses requests that name another host, or come from another site's page.

    A page of another site could otherwise reach this server through the user's browser: by a name
    that it resolves to 127.0.0.1, or by a request across sites.
    """

    def __init__(self, app: App, port: int) -> None:
        self.app = app
        self.hosts = {f"127.0.0.1:{port}", f"localhost:{port}"}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self.app(scope, receive, send)
            return
        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        host = headers.get(b"host", "")
        if host not in self.hosts or headers.get(b"origin", f"http://{host}") != f"http://{host}":
            await send({"type": "http.response.start", "status": 403, "headers": []})
            await send({"type": "http.response.body", "body": b"for this machine alone"})
            return

        async def answer(message: Scope) -> None:
            if message["type"] == "http.response.start":
                policy = (b"content-security-policy", POLICY.encode())
                message = {**message, "headers": [*message["headers"], policy]}
            await send(message)

        await self.app(scope, receive, answer)


def serve(blocks: Any, listener: socket.socket) -> None:
    """Serve a page of gradio on the socket until Ctrl-C."""
    import fastapi
    import gradio
    import uvicorn

    app = gradio.mount_gradio_app(
        fastapi.FastAPI(openapi_url=None),
        blocks,
        "/",
        server_name="127.0.0.1",
        server_port=listener.getsockname()[1],
        footer_links=[],
        run_history=False,
        allowed_paths=[],
        max_file_size=MOST_BYTES,
        ssr_mode=False,
        enable_monitoring=False,
        mcp_server=False,
        pwa=False,
        show_error=True,
        theme=gradio.themes.Base(
            font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]
        ),
        css=CSS,
    )
    gradio.processing_utils.async_ssrf_protected_download = _no_download
    # As `launch` does: a path in the data of an upload is checked only where these are set.
    blocks.has_launched = blocks.is_running = True
    local = LocalOnly(app, listener.getsockname()[1])
    settings = uvicorn.Config(local, log_level="warning", timeout_graceful_shutdown=2)
    uvicorn.Server(settings).run(sockets=[listener])


async def _no_download(url: str, cache_dir: str) -> str:
    """In the place of gradio's download of a URL that the data of an upload name."""
    raise ValueError("wanted an uploaded file, got a URL")


CSS = """
.message { padding: 8px 12px; border-radius: 6px; border-left: 4px solid; overflow-wrap: anywhere; }
.message.error { background: #fdecea; border-color: #b3261e; color: #410e0b; }
.message.warning { background: #fff4e0; border-color: #b26a00; color: #3d2500; }
.message.note { background: #eaf2fb; border-color: #0072b2; color: #06304a; }
figure.shown { margin: 0; }
figure.shown img { width: 100%; }
figure.shown img.pixels { image-rendering: pixelated; aspect-ratio: 1; object-fit: contain; }
figure.shown figcaption { font-size: 14px; padding: 4px 0; }
table.checks { width: 100%; border-collapse: collapse; font-size: 14px; }
table.checks td, table.checks th { text-align: left; padding: 4px 8px; border: 1px solid #ddd; }
table.checks tr.defect td { background: #fdecea; }
table.checks tr.limit td { background: #fff4e0; }
"""
