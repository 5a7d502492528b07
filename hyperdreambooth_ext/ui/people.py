"""The list "My people": every LiDB that is there, to be sent, learned again, exported, renamed and deleted."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gradio as gr

from ..errors import UserError
from ..jobs.jobs import Studio
from ..jobs.library import delete, entries, rename, undelete
from . import html
from .handlers import exported
from .page import AT_ONCE


class PeoplePanel:
    """The list's components and what their buttons do. Made within a gradio layout."""

    def __init__(self, studio: Studio, own_generate: bool) -> None:
        self.studio = studio
        gr.HTML('<h3 class="hdb_heading">My people</h3>', elem_id="hdb_people_heading")
        self.list = gr.HTML("", elem_id="hdb_people")
        with gr.Column(visible=False, elem_id="hdb_person_actions") as self.actions:
            with gr.Row():
                # The script does this one in the WebUI, as it does the result's.
                words = "Use in the prompt" if own_generate else "Send to txt2img"
                self.use = gr.Button(words, variant="primary", min_width=140, elem_id="hdb_person_send")
                self.again = gr.Button("Learn again", min_width=140, elem_id="hdb_person_again")
                self.export = gr.Button("Export as LoRA", min_width=140, elem_id="hdb_person_export")
            with gr.Row():
                self.name = gr.Textbox(
                    "", show_label=False, placeholder="New name", max_lines=1, min_width=140, elem_id="hdb_person_name"
                )  # fmt: skip
                self.name.do_not_save_to_config = True
                self.rename = gr.Button("Rename", min_width=140, elem_id="hdb_person_rename")
                self.delete = gr.Button("Delete", variant="stop", min_width=140, elem_id="hdb_person_delete")
        self.note = gr.HTML("", elem_id="hdb_people_note")
        self.undo = gr.Button("Undo", visible=False, elem_id="hdb_person_undo")
        # A click on a card sets it, by the script; it would be kept as a default in ui-config.json.
        with gr.Column(elem_classes=["hdb_hidden"]):
            self.person = gr.Textbox("", label="Person", elem_id="hdb_person")
            self.person.do_not_save_to_config = True
        shown = [self.list, self.person, self.actions, self.note, self.undo]
        self.person.change(self.choose, [self.person], [self.list, self.actions], **AT_ONCE)
        self.export.click(self.export_one, [self.person], [self.note], **AT_ONCE)
        self.rename.click(self.rename_one, [self.person, self.name], shown, **AT_ONCE)
        self.delete.click(self.delete_one, [self.person], shown, **AT_ONCE)
        self.undo.click(self.undo_delete, None, shown, **AT_ONCE)

    def refresh(self, person: str = "") -> str:
        """The people who are there now."""
        return html.people(entries(self._folder()), person, self.studio.backend.peek())

    def choose(self, person: str) -> tuple[str, Any]:
        """The list with one of them chosen, and the buttons for that one."""
        return self.refresh(person), gr.update(visible=bool(person))

    def prompt_of(self, person: str) -> tuple[Any, Any]:
        """The prompt that shows a person, and the column that it stands in."""
        found = next((entry for entry in entries(self._folder()) if entry.name == person), None)
        return (html.prompt_of(found), gr.update(visible=True)) if found else (gr.update(), gr.update())

    def learn_again(self, person: str) -> tuple[str, str]:
        """The form's name, and what to do."""
        return person, html.note("Photos are not kept: drop one of the same person, press Personalize, then Replace.")

    def export_one(self, person: str) -> str:
        """Write the person's LoRA."""
        try:
            return exported(self.studio, self._folder(), person)
        except UserError as error:
            return html.note(str(error), "error")

    def rename_one(self, person: str, name: str) -> tuple:
        """Give the person another name."""
        return self._changed(lambda: f"{rename(self._folder(), person, name or '').stem} was {person}.")

    def delete_one(self, person: str) -> tuple:
        """Take the person away."""

        def change() -> str:
            delete(self._folder(), person)
            return f"{person} was deleted."

        return self._changed(change, undo=True)

    def undo_delete(self) -> tuple:
        """Bring back who was deleted last."""
        return self._changed(lambda: f"{undelete(self._folder()).stem} is back.")

    def _changed(self, change: Callable[[], str], undo: bool = False) -> tuple:
        """The list, nobody chosen, no buttons, what was done, and whether it can be undone."""
        try:
            said = html.note(change())
        except UserError as error:
            same = gr.update()
            return same, same, same, html.note(str(error), "error"), same
        return self.refresh(), "", gr.update(visible=False), said, gr.update(visible=undo)

    def _folder(self) -> Path:
        return self.studio.backend.lidb_dir()
