"""`python run.py ui`: the tab in a window of its own, on the bundled checkpoint."""

import contextlib
import inspect
import threading
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

import gradio as gr
import uvicorn
from fastapi import FastAPI, Response
from starlette.middleware.trustedhost import TrustedHostMiddleware

from ..api.routes import mount_api
from ..errors import UserError
from ..jobs.jobs import Studio
from ..shipped import ROOT
from ..ui.tab import build_tab
from .backend import StandaloneBackend

# Gradio's own API page would only confuse: ours is under /docs.
_OWN_STYLE = "footer .show-api, footer .show-api + div { display: none !important; }"
SCRIPT, STYLE = ROOT / "javascript" / "hyperdreambooth.js", ROOT / "style.css"
LOCAL = ("127.0.0.1", "localhost")
SCRIPT_URL = "/hyperdreambooth/hyperdreambooth.js"
# The WebUI loads the script and the style sheet by itself; here the page fetches them when it is built.
_LOAD_SCRIPT = f"""() => {{
    const script = document.createElement("script");
    script.src = "{SCRIPT_URL}";
    document.head.appendChild(script);
}}"""


def serve(args: Namespace) -> dict:
    """Serve the window until Ctrl-C; the summary of the command. Raises UserError when the port is taken."""
    backend = StandaloneBackend(args.out, args.checkpoint, args.device)
    app = create_app(backend, () if args.listen else LOCAL)
    host = "0.0.0.0" if args.listen else "127.0.0.1"
    # Ctrl-C does not wait for pages that are open.
    config = uvicorn.Config(app, host=host, port=args.port, log_level="warning", timeout_graceful_shutdown=1)
    try:
        socket = config.bind_socket()
    except SystemExit as error:
        raise UserError(f"The port {args.port} cannot be used: take another.", "port") from error
    print(f"HyperDreamBooth is at http://127.0.0.1:{args.port} (Ctrl-C ends it).", flush=True)
    # The page is there at once; the model is loaded meanwhile.
    threading.Thread(target=backend.warm, daemon=True).start()
    with contextlib.suppress(KeyboardInterrupt):
        uvicorn.Server(config).run(sockets=[socket])
    return {"port": args.port}


def create_app(backend: StandaloneBackend, names: Sequence[str] = ()) -> FastAPI:
    """The window and the API as one application, which answers to these host names only, or to any without some.

    Without that a page elsewhere could have its own name point at this machine, and so use the API.
    """
    studio = Studio(backend)
    app = FastAPI(title="HyperDreamBooth", docs_url="/docs", redoc_url=None)
    if names:
        app.add_middleware(TrustedHostMiddleware, allowed_hosts=list(names), www_redirect=False)
    mount_api(app, studio)

    @app.get(SCRIPT_URL, include_in_schema=False)
    def script() -> Response:
        return Response(SCRIPT.read_text(encoding="utf-8"), media_type="text/javascript")

    # No fonts from elsewhere: the window works offline.
    theme = gr.themes.Default(
        primary_hue="indigo", secondary_hue="indigo", font=["system-ui", "sans-serif"],
        font_mono=["ui-monospace", "monospace"],
    )  # fmt: skip
    # gradio 6 takes the theme here, gradio 3 to 5 with the Blocks.
    late = "theme" in inspect.signature(gr.mount_gradio_app).parameters
    window = _window(studio, backend, {} if late else {"theme": theme})
    return gr.mount_gradio_app(app, window, path="/", **({"theme": theme} if late else {}))


def _window(studio: Studio, backend: StandaloneBackend, look: dict) -> gr.Blocks:
    tab = build_tab(studio, backend.generate)
    with gr.Blocks(title="HyperDreamBooth", analytics_enabled=False, **look) as window:
        gr.HTML(f"<style>{STYLE.read_text(encoding='utf-8')}{_OWN_STYLE}</style>", elem_id="hdb_style")
        gr.HTML('<h1 class="hdb_title">HyperDreamBooth</h1>')
        tab.render()
        # gradio 3 calls the argument _js, gradio 4 and later js.
        javascript = {"_js" if gr.__version__.startswith("3.") else "js": _LOAD_SCRIPT}
        window.load(None, None, None, **javascript)
    # gradio 3 hands out every file of the folder that it was started from.
    window.blocked_paths = [str(Path.cwd())]
    # Many may look on at once; with gradio 3's single worker a running job would block every other click.
    workers = "concurrency_count" if gr.__version__.startswith("3.") else "default_concurrency_limit"
    return window.queue(**{workers: 16})
