"""The page of `fclm app` and its HTTP API, made with Gradio."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from .engine import IDLE_SECONDS, Engine
from .pictures import OUTPUTS, ResultFolder, encode_url
from .session import Session


os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # Gradio reads it when it is imported

try:
    import gradio as gr
except ImportError as error:
    raise ImportError('The app needs Gradio, of the extra app: pip install "fclm-hf[app]".') from error

from .handlers import TARGETS, Handlers, describe


ASSETS = Path(__file__).parent / "assets"
EXAMPLES = (ASSETS / "coffee.jpg", ASSETS / "cat.jpg")
UPLOADS = ["image", ".heic", ".heif"]
TITLE = """<h1>Cut out anything</h1>
<p>Click it, box it, name it, or take what stands out. Photos are deleted after about an hour.</p>"""
_CLEANING_SECONDS = 600
_MAX_WAITING = 64
_MAX_SESSIONS = 256
# one computation at a time, whoever asks for it
_QUEUE: dict[str, Any] = {"concurrency_id": "model", "concurrency_limit": 1}
_PAGE: dict[str, Any] = {**_QUEUE, "api_visibility": "private", "show_progress": "minimal"}
_START_DOWNLOAD = "() => setTimeout(() => document.querySelector('#fclm-file').closest('a, button').click(), 60)"


def build_app(engine: Engine, examples: Sequence[Path] = EXAMPLES) -> gr.Blocks:
    """Return the app: a page for visitors, and the API endpoints `/matte`, `/cut_out` and `/batch`.

    Args:
        engine: The engine, which decides about models, limits and memory.
        examples: Photos that the page offers to start with.
    """
    results = ResultFolder(gr.utils.get_upload_folder(), IDLE_SECONDS)
    handlers = Handlers(engine, results, examples)
    cleaning = (_CLEANING_SECONDS, int(IDLE_SECONDS))
    with gr.Blocks(title="fclm", analytics_enabled=False, delete_cache=cleaning, fill_width=True) as app:
        session = gr.State(Session(), time_to_live=IDLE_SECONDS, delete_callback=handlers.forget)
        with gr.Row(equal_height=True):
            gr.HTML(TITLE, elem_id="fclm-head")
            model = _add_models(engine, "Model", engine.models[0], scale=0, min_width=330)
        with gr.Tab("Photo"):
            _add_photo_page(handlers, session, model)
        with gr.Tab("Many photos"):
            _add_batch_page(handlers, model)
        with gr.Tab("Compare models"):
            _add_comparison_page(handlers, session)
        _add_api(handlers)
    app.queue(max_size=_MAX_WAITING, default_concurrency_limit=1)
    return app


def launch_app(
    app: gr.Blocks,
    engine: Engine,
    host: str = "127.0.0.1",
    port: int | None = None,
    share: bool = False,
    **kwargs: Any,
) -> str:
    """Serve the app.

    Args:
        app: The app.
        engine: Its engine.
        host: Address to listen on; "0.0.0.0" for all networks.
        port: Port to listen on. Defaults to the first free one from 7860.
        share: Whether to ask Gradio for a public address, for which it runs a program that it downloads.
        kwargs: Further arguments of `gradio.Blocks.launch`.

    Returns:
        The address.
    """
    theme = gr.themes.Base(
        primary_hue="indigo",
        neutral_hue="slate",
        radius_size="lg",
        font=["system-ui", "sans-serif"],
        font_mono=["ui-monospace", "monospace"],
    )
    _, url, public_url = app.launch(
        server_name=host,
        server_port=port,
        share=share,
        max_file_size=engine.max_bytes,
        state_session_capacity=_MAX_SESSIONS,
        theme=theme,
        css=_read("app.css"),
        footer_links=["api"],
        run_history=False,
        ssr_mode=False,
        show_error=True,
        quiet=True,
        **kwargs,
    )
    return public_url or url


def _add_photo_page(handlers: Handlers, session: gr.State, model: gr.Dropdown) -> None:
    """Add the page where one photo is prompted."""
    thumbnails = [{"url": _make_thumbnail(each), "name": each.stem} for each in handlers.examples]
    with gr.Row():
        with gr.Column(scale=6, min_width=420):
            canvas = _add_element("canvas", value=describe(Session()), photo={}, examples=thumbnails)
            with gr.Row(elem_classes=["fclm-tight"]):
                name = gr.Textbox(
                    placeholder="Or name it: cat, coffee cup, ...",
                    show_label=False,
                    container=False,
                    max_length=200,
                    min_width=180,
                )
                find = gr.Button("Find it", size="md", scale=0, min_width=80)
                salient = gr.Button("What stands out", size="md", scale=0, min_width=140)
                mask = gr.UploadButton("Rough mask", size="md", file_types=UPLOADS, scale=0, min_width=110)
        with gr.Column(scale=5, min_width=360):
            output, color, picture = _add_outputs()
            result = _add_element("result", value={})
            with gr.Row(elem_classes=["fclm-tight"]):
                target = gr.Radio(list(TARGETS), value=TARGETS[0], show_label=False, container=False, min_width=260)
                download = gr.Button("Download PNG", variant="primary", size="md", scale=0, min_width=150)
    with gr.Row(elem_id="fclm-hidden"):  # the canvas and the button of the result use them
        upload = gr.UploadButton("Photo", file_types=UPLOADS, elem_id="fclm-upload")
        file = gr.DownloadButton("File", elem_id="fclm-file")

    settings = [target, output, color, picture, model]
    outputs = [session, canvas, result]
    page = {**_PAGE, "outputs": outputs, "show_progress_on": [canvas, result]}
    upload.upload(handlers.open_photo, [session, upload, *settings], **page)
    canvas.act(_take_event(handlers), [session, *settings], trigger_mode="multiple", **page)
    gr.on([name.submit, find.click], handlers.set_text, [session, name, *settings], **page)
    salient.click(handlers.take_what_stands_out, [session, *settings], **page)
    mask.upload(handlers.set_mask, [session, mask, *settings], **page)
    gr.on([each.input for each in (target, output, color, model)], handlers.refresh, [session, *settings], **page)
    picture.upload(handlers.refresh, [session, *settings], **page)
    download.click(handlers.download, [session, *settings], file, **_PAGE, show_progress_on=result).success(
        None, js=_START_DOWNLOAD, api_visibility="private"
    )


def _add_batch_page(handlers: Handlers, model: gr.Dropdown) -> None:
    """Add the page for many photos; its event is an endpoint of the API, too."""
    with gr.Row():
        with gr.Column():
            files = gr.File(label="Photos", file_count="multiple", file_types=UPLOADS, height=260, elem_id="fclm-batch")
            text = gr.Textbox(label="Object", placeholder="Leave empty for what stands out", max_length=200)
            output, color, picture = _add_outputs()
            start = gr.Button("Cut out all", variant="primary")
        with gr.Column():
            archive = gr.File(label="Results, one zip archive", interactive=False, elem_id="fclm-archive")
            report = gr.Markdown()
    start.click(
        handlers.run_batch, [files, text, output, color, picture, model], [archive, report], api_name="batch", **_QUEUE
    )


def _add_comparison_page(handlers: Handlers, session: gr.State) -> None:
    """Add the page where two models answer the same prompts."""
    engine = handlers.engine
    gr.Markdown("The prompts of the page *Photo*, answered by two checkpoints: your own of `fclm train`, for example.")
    with gr.Row():
        sides = []
        for label, value in (("Left", engine.models[0]), ("Right", engine.models[-1])):
            with gr.Column():
                choice = _add_models(engine, label, value)
                sides.append((choice, _add_element("result", value={})))
    compare = gr.Button("Compare", variant="primary")
    compare.click(handlers.compare, [session, *(each for each, _ in sides)], [each for _, each in sides], **_PAGE)


def _add_api(handlers: Handlers) -> None:
    """Add the endpoints that have no place on the page."""
    with gr.Row(visible=False):
        image, mask, background = (gr.File(label=label) for label in ("Photo", "Rough mask", "Background"))
        prompts = gr.JSON({}, label="Prompts")
        color, model = gr.Textbox("", label="Color"), gr.Textbox("", label="Model")
        files = gr.File(label="Files", file_count="multiple")
        matte, cut_out = gr.Button(), gr.Button()
    matte.click(handlers.write_mattes, [image, prompts, mask, model], files, api_name="matte", **_QUEUE)
    cut_out.click(
        handlers.write_cutouts, [image, prompts, mask, color, background, model], files, api_name="cut_out", **_QUEUE
    )


def _add_outputs() -> tuple[gr.Radio, gr.ColorPicker, gr.File]:
    """Add the choice of what to make of a matte, with a color and a picture that are there when they are needed."""
    with gr.Row(elem_classes=["fclm-tight"]):
        output = gr.Radio(list(OUTPUTS), value=OUTPUTS[0], show_label=False, container=False, min_width=300)
    color = gr.ColorPicker("#4a90d9", label="Background color", visible=False, min_width=120)
    picture = gr.File(label="Background picture", file_types=UPLOADS, height=110, visible=False, min_width=200)
    output.input(
        lambda chosen: (gr.ColorPicker(visible=chosen == "Color"), gr.File(visible=chosen == "Picture")),
        output,
        [color, picture],
        api_visibility="private",
        queue=False,
    )
    return output, color, picture


def _add_models(engine: Engine, label: str, value: str, **kwargs: Any) -> gr.Dropdown:
    """Add a choice of checkpoints, where others can be typed if the engine takes them."""
    others = engine.allow_other_models
    label = f"{label} (or type a folder or Hub repository)" if others else label
    return gr.Dropdown(engine.models, value=value, label=label, allow_custom_value=others, **kwargs)


def _add_element(name: str, **kwargs: Any) -> gr.HTML:
    """Add an element whose HTML, CSS and JavaScript are files of `assets`."""
    return gr.HTML(
        html_template=_read(f"{name}.html"),
        css_template=_read(f"{name}.css"),
        js_on_load=_read(f"{name}.js"),
        apply_default_css=False,
        elem_classes=["fclm-pane"],
        **kwargs,
    )


def _take_event(handlers: Handlers) -> Any:
    """Return the handler of the canvas with an argument for the event, which Gradio finds by its type."""

    def act(
        session: Session, target: str, output: str, color: str, picture: str, model: str, event: gr.EventData
    ) -> Any:
        yield from handlers.act(session, target, output, color, picture, model, event)

    return act


def _make_thumbnail(photo: Path) -> str:
    with Image.open(photo) as image:
        image.thumbnail((240, 240))
        return encode_url(image.convert("RGB"), quality=80)


def _read(name: str) -> str:
    return (ASSETS / name).read_text(encoding="utf-8")


__all__ = ["build_app", "launch_app"]
