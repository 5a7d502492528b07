"""The tab: one photo, one name, one quality, and everything else under "Advanced".

The same in the WebUI and in our own window. Runs on gradio 3.41.2 (AUTOMATIC1111), 4.40 (Forge) and newer.
"""

import gradio as gr

from ..jobs.jobs import Studio
from ..personalize.options import QUALITIES
from . import html
from .advanced import Advanced
from .building import BuildPanel
from .handlers import Generate, Handlers

_QUIET = {"show_progress": "hidden"}


def build_tab(studio: Studio, generate: Generate | None = None) -> gr.Blocks:
    """The whole tab as gradio Blocks.

    `generate(prompt, seed)` samples a picture (RGB uint8), and the tab then has its own Generate. Without it, as in
    the WebUI, there is "Send to txt2img" instead, which javascript/hyperdreambooth.js does.
    """
    with gr.Blocks(analytics_enabled=False, title="HyperDreamBooth") as tab:
        with gr.Tabs(elem_id="hdb_tab"):
            with gr.Tab("Personalize", elem_id="hdb_personalize_tab") as personalizing:
                with gr.Row():
                    with gr.Column(scale=2, min_width=280):
                        inputs = _Inputs(_usable(studio))
                    with gr.Column(scale=3, min_width=320):
                        outputs = _Outputs(generate is not None)
            with gr.Tab("Build hypernetwork", elem_id="hdb_build_tab") as building:
                panel = BuildPanel(studio.builder)
        _wire(Handlers(studio, inputs.advanced.values, generate), inputs, outputs)
        building.select(panel.follow, None, [panel.status, panel.shelf], **_QUIET)
        advanced = inputs.advanced
        # A build may be done, or a file have been put into the folder.
        personalizing.select(lambda: advanced.offer(_usable(studio)), None, [advanced.hypernetwork], **_QUIET)
    return tab


def _usable(studio: Studio) -> list[str]:
    """Names of the hypernetworks that can be chosen; of two files of one name the first is taken."""
    return list(dict.fromkeys(found.path.name for found in studio.builder.hypernetworks() if not found.problem))


class _Inputs:
    """The left column."""

    def __init__(self, hypernetworks: list[str]) -> None:
        self.file = gr.File(label="Photo", file_count="single", elem_id="hdb_photo")
        self.faces = gr.HTML("", elem_id="hdb_faces")
        self.photo = gr.State(None)
        # Which face: a click on its picture sets it, by the script. Not under "Advanced", whose closed lid newer gradio
        # keeps out of the page.
        with gr.Column(elem_classes=["hdb_hidden"]):
            self.face = gr.Number(1, label="Face", precision=0, elem_id="hdb_face")
            # The WebUI would keep it as a default in ui-config.json.
            self.face.do_not_save_to_config = True
        self.name = gr.Textbox(label="Name", placeholder="anna", max_lines=1, elem_id="hdb_name")
        qualities = [(quality.capitalize(), quality) for quality in QUALITIES]
        self.quality = gr.Radio(qualities, value="balanced", label="Quality", elem_id="hdb_quality")
        self.advanced = Advanced(hypernetworks)
        self.personalize = gr.Button("Personalize", variant="primary", elem_id="hdb_personalize")


class _Outputs:
    """The right column."""

    def __init__(self, own_generate: bool) -> None:
        self.progress = gr.HTML(html.welcome(), elem_id="hdb_progress")
        with gr.Row(visible=False, elem_id="hdb_stop") as self.stop:
            self.interrupt = gr.Button("Interrupt", visible=False, elem_id="hdb_interrupt")
            self.keep = gr.Button("Keep what we have", variant="primary", visible=False, elem_id="hdb_keep")
        self.result = gr.HTML("", elem_id="hdb_result")
        with gr.Column(visible=False, elem_id="hdb_actions") as self.actions:
            with gr.Row():
                self.prompt = gr.Textbox(
                    label="Prompt", lines=2, interactive=True, scale=4, min_width=200, elem_id="hdb_prompt"
                )  # fmt: skip
                if own_generate:
                    self.seed = gr.Number(
                        1, label="Seed", precision=0, scale=1, min_width=80, elem_id="hdb_generate_seed"
                    )  # fmt: skip
            with gr.Row():
                if own_generate:
                    self.generate = gr.Button("Generate", variant="primary", elem_id="hdb_generate")
                else:
                    gr.Button("Send to txt2img", variant="primary", elem_id="hdb_send")
                self.export = gr.Button("Export as LoRA", elem_id="hdb_export")
                self.folder = gr.Button("Open folder", visible=False, elem_id="hdb_folder")
            self.note = gr.HTML("", elem_id="hdb_note")
            if own_generate:
                self.picture = gr.HTML("", elem_id="hdb_generated")
        # The script writes the id of the job that it remembers here and presses the button: see Handlers.follow.
        with gr.Column(elem_classes=["hdb_hidden"]):
            self.job = gr.Textbox("", label="Job", elem_id="hdb_job")
            self.job.do_not_save_to_config = True
            self.reconnect = gr.Button("Reconnect", elem_id="hdb_reconnect")


def _wire(do: Handlers, inputs: _Inputs, outputs: _Outputs) -> None:
    shown = [
        outputs.job, outputs.progress, outputs.result, inputs.personalize, outputs.stop, outputs.interrupt,
        outputs.keep, outputs.actions, outputs.prompt,
    ]  # fmt: skip
    # Not `change`: newer releases of gradio send it twice, and the first time the upload is read and deleted.
    for event in (inputs.file.upload, inputs.file.clear):
        event(do.look, [inputs.file], [inputs.photo, inputs.faces, inputs.face])
    inputs.face.change(do.choose, [inputs.photo, inputs.face], [inputs.faces], **_QUIET)
    asked = [inputs.photo, inputs.face, inputs.name, inputs.quality, *inputs.advanced.components]
    inputs.personalize.click(do.personalize, asked, shown, **_QUIET)
    outputs.reconnect.click(do.follow, [outputs.job], shown, **_QUIET)
    outputs.reconnect.click(do.can_open, None, [outputs.folder], **_QUIET)
    outputs.keep.click(do.keep, [outputs.job], shown, **_QUIET)
    # Not through gradio's queue: it must act while the queue is busy.
    outputs.interrupt.click(do.interrupt, [outputs.job], None, queue=False)
    outputs.export.click(do.export, [outputs.job, inputs.advanced.overwrite], [outputs.note], **_QUIET)
    outputs.folder.click(do.open_folder, None, [outputs.note], **_QUIET)
    if do.generate is not None:
        outputs.generate.click(do.sample, [outputs.prompt, outputs.seed], [outputs.picture])
