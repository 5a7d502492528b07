"""The tab: one photo, one name, one quality, and everything else under "Advanced".

The same in the WebUI and in our own window. Runs on gradio 3.41.2 (AUTOMATIC1111), 4.40 (Forge) and newer.
"""

from typing import Any

import gradio as gr

from ..jobs.jobs import Studio
from ..personalize.options import QUALITIES
from . import html
from .advanced import Advanced
from .building import BuildPanel
from .handlers import Generate, Handlers
from .page import AT_ONCE, FOLLOWED, Page, updates
from .people import PeoplePanel


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
                        inputs = _Inputs(_usable(studio), studio.backend.can_try())
                    with gr.Column(scale=3, min_width=320):
                        outputs = _Outputs(generate is not None)
                people = PeoplePanel(studio, generate is not None)
            with gr.Tab("Build hypernetwork", elem_id="hdb_build_tab") as building:
                panel = BuildPanel(studio.builder)
        do = Handlers(studio, inputs.advanced.values, generate)
        _wire(do, inputs, outputs, people)
        building.select(panel.follow, None, panel.shown, **FOLLOWED)
        advanced = inputs.advanced
        # A build may be done, or a file have been put into the folder.
        personalizing.select(lambda: advanced.offer(_usable(studio)), None, [advanced.hypernetwork], **AT_ONCE)
        personalizing.select(do.forecast, inputs.options, [inputs.forecast], **AT_ONCE)
    return tab


def _usable(studio: Studio) -> list[str]:
    """Names of the hypernetworks that can be chosen; of two files of one name the first is taken."""
    return list(dict.fromkeys(found.path.name for found in studio.builder.hypernetworks() if not found.problem))


class _Inputs:
    """The left column."""

    def __init__(self, hypernetworks: list[str], can_try: bool) -> None:
        self.file = gr.File(label="Photo", file_count="single", elem_id="hdb_photo")
        self.try_now = gr.Button("Try it now with the sample photo", visible=can_try, elem_id="hdb_try")
        self.faces = gr.HTML("", elem_id="hdb_faces")
        self.photos = gr.State(None)
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
        self.forecast = gr.HTML("", elem_id="hdb_forecast")
        self.personalize = gr.Button("Personalize", variant="primary", elem_id="hdb_personalize")
        self.refusal = gr.HTML("", elem_id="hdb_refusal")
        self.replace = gr.Button("Replace", visible=False, elem_id="hdb_replace")

    @property
    def options(self) -> list:
        """What the forecast depends on."""
        return [self.quality, *self.advanced.components]

    @property
    def asked(self) -> list:
        """Everything that a job is begun with."""
        return [self.photos, self.face, self.name, *self.options]


class _Outputs:
    """The right column."""

    def __init__(self, own_generate: bool) -> None:
        self.progress = gr.HTML(html.welcome(), elem_id="hdb_progress")
        self.so_far = gr.HTML("", elem_id="hdb_so_far")
        with gr.Row(visible=False, elem_id="hdb_stop") as self.stop:
            self.interrupt = gr.Button("Interrupt", visible=False, elem_id="hdb_interrupt")
            self.resume = gr.Button("Continue", variant="primary", visible=False, elem_id="hdb_continue")
            self.keep = gr.Button("Keep what we have", visible=False, elem_id="hdb_keep")
        self.result = gr.HTML("", elem_id="hdb_result")
        with gr.Column(visible=False, elem_id="hdb_actions") as self.actions:
            with gr.Row():
                if own_generate:
                    self.generate = gr.Button("Generate", variant="primary", elem_id="hdb_generate")
                else:
                    gr.Button("Send to txt2img", variant="primary", elem_id="hdb_send")
                self.export = gr.Button("Export as LoRA", elem_id="hdb_export")
                self.folder = gr.Button("Open folder", visible=False, elem_id="hdb_folder")
            with gr.Row():
                self.prompt = gr.Textbox(
                    label="Prompt", lines=2, interactive=True, scale=4, min_width=200, elem_id="hdb_prompt"
                )  # fmt: skip
                if own_generate:
                    self.seed = gr.Number(
                        1, label="Seed", precision=0, scale=1, min_width=80, elem_id="hdb_generate_seed"
                    )  # fmt: skip
            self.note = gr.HTML("", elem_id="hdb_note")
            if own_generate:
                self.picture = gr.HTML("", elem_id="hdb_generated")
        self.facts = gr.HTML("", elem_id="hdb_facts")
        # The script writes the id of the job that it remembers here and presses the button: see Handlers.follow.
        with gr.Column(elem_classes=["hdb_hidden"]):
            self.job = gr.Textbox("", label="Job", elem_id="hdb_job")
            self.job.do_not_save_to_config = True
            self.reconnect = gr.Button("Reconnect", elem_id="hdb_reconnect")


def _wire(do: Handlers, inputs: _Inputs, outputs: _Outputs, people: PeoplePanel) -> None:
    page = [getattr(outputs, name, None) or getattr(inputs, name) for name in Page._fields]
    # Not `change`: newer releases of gradio send it twice, and the first time the upload is read and deleted.
    seen = [inputs.file, inputs.photos, inputs.faces, inputs.face, inputs.refusal, inputs.replace]
    inputs.file.upload(do.look, [inputs.file], seen, **AT_ONCE)
    inputs.face.change(do.choose, [inputs.photos, inputs.face], [inputs.faces], **AT_ONCE)
    for option in inputs.options:
        option.change(do.forecast, inputs.options, [inputs.forecast], **AT_ONCE)
    # A name that was refused is not the one that is typed now.
    renamed = [inputs.refusal, inputs.replace]
    inputs.name.input(lambda: ("", gr.update(visible=False)), None, renamed, **AT_ONCE)
    tried = [inputs.photos, inputs.faces, inputs.face, inputs.name, inputs.quality, outputs.progress]
    begin, job_id = updates(do.personalize), [outputs.job]
    jobs = (
        inputs.try_now.click(do.try_now, None, tried, **FOLLOWED).success(begin, inputs.asked, page, **FOLLOWED),
        inputs.personalize.click(begin, inputs.asked, page, **FOLLOWED),
        inputs.replace.click(updates(do.replace), inputs.asked, page, **FOLLOWED),
        outputs.keep.click(updates(do.keep), job_id, page, **FOLLOWED),
        outputs.resume.click(updates(do.resume), job_id, page, **FOLLOWED),
        outputs.reconnect.click(updates(do.follow), job_id, page, **FOLLOWED),
    )

    def news(person: str, *options: Any) -> tuple:
        return people.refresh(person), do.forecast(*options)

    def arrived(request: gr.Request, person: str, *options: Any) -> tuple:
        return *news(person, *options), do.can_open(request), do.can_try()

    known, told = [people.person, *inputs.options], [people.list, inputs.forecast]
    for job in jobs:
        job.then(news, known, told, **AT_ONCE)
    # In one event: each costs a connection, and a busy server drops some.
    outputs.reconnect.click(arrived, known, [*told, outputs.folder, inputs.try_now], **AT_ONCE)
    outputs.interrupt.click(do.interrupt, [outputs.job], None, **AT_ONCE)
    outputs.export.click(do.export, [outputs.job, inputs.advanced.overwrite], [outputs.note], **AT_ONCE)
    outputs.folder.click(do.open_folder, None, [outputs.note], **AT_ONCE)
    people.again.click(people.learn_again, [people.person], [inputs.name, inputs.refusal], **AT_ONCE)
    if do.generate is not None:
        outputs.generate.click(do.sample, [outputs.prompt, outputs.seed], [outputs.picture])
        people.use.click(people.prompt_of, [people.person], [outputs.prompt, outputs.actions], **AT_ONCE)
