"""Everything that few people need, under one lid."""

from collections.abc import Sequence
from typing import Any

import gradio as gr

_AUTOMATIC = "Automatic"
# gradio 3.41 shows a choice's value, not its label: they are the same words.
_STARTS = [_AUTOMATIC, "Hypernetwork", "Gradient", "Zero"]
_OPTIONAL = ("steps", "rank", "lr", "size")


class Advanced:
    """The accordion's inputs. `components` go into an event's inputs, `values` makes Task's arguments of them."""

    def __init__(self, hypernetworks: Sequence[str] = ()) -> None:
        """Called within a gradio layout. `hypernetworks`: names of the files that are there."""
        with gr.Accordion("Advanced", open=False, elem_id="hdb_advanced"):
            with gr.Row():
                steps = gr.Number(
                    0, label="Iterations", info="0: the quality's", precision=0, elem_id="hdb_steps"
                )  # fmt: skip
                rank = gr.Number(0, label="Rank", info="0: the quality's", precision=0, elem_id="hdb_rank")
            with gr.Row():
                lr = gr.Number(0, label="Learning rate", info="0: the quality's", elem_id="hdb_lr")
                size = gr.Number(
                    0, label="Size in pixels", info="0: the checkpoint's", precision=0, elem_id="hdb_size"
                )  # fmt: skip
            seed = gr.Number(
                0, label="Seed", info="Of the training and of the pictures.", precision=0, elem_id="hdb_seed"
            )  # fmt: skip
            start = gr.Dropdown(
                _STARTS, value=_AUTOMATIC, label="Start", elem_id="hdb_start",
                info="Automatic takes the hypernetwork that fits the checkpoint, else the gradient.",
            )  # fmt: skip
            self.hypernetwork = gr.Dropdown(
                _offered(hypernetworks), value=_AUTOMATIC, label="Hypernetwork", elem_id="hdb_hypernetwork",
                info="Automatic takes one made for this checkpoint, of several the newest.",
            )  # fmt: skip
            # The WebUI would keep it as a default in ui-config.json, and the file may go.
            self.hypernetwork.do_not_save_to_config = True
            preview_every = gr.Slider(
                0, 50, 20, step=1, label="Iterations between previews", info="0: no previews", elem_id="hdb_every"
            )  # fmt: skip
            self.overwrite = gr.Checkbox(False, label="Replace a LiDB of the same name", elem_id="hdb_overwrite")
            thumbnail = gr.Checkbox(True, label="Keep a small picture of the face in the file", elem_id="hdb_thumbnail")
            text = gr.Checkbox(False, label="Train the text encoder too", elem_id="hdb_text")
        self._named = {
            "seed": seed, "steps": steps, "rank": rank, "lr": lr, "size": size, "start": start,
            "hypernetwork": self.hypernetwork, "preview_every": preview_every, "overwrite": self.overwrite,
            "thumbnail": thumbnail, "text": text,
        }  # fmt: skip

    def offer(self, hypernetworks: Sequence[str]) -> Any:
        """An update of the list of hypernetworks; what is chosen stays."""
        return gr.update(choices=_offered(hypernetworks))

    @property
    def components(self) -> list:
        return list(self._named.values())

    def values(self, given: Sequence[Any]) -> dict[str, Any]:
        """Task's arguments from the components' values, in the order of `components`."""
        named = dict(zip(self._named, given, strict=True))
        # A cleared number arrives as None or 0, by gradio's version; either means the quality's or the checkpoint's.
        arguments = {name: value for name, value in named.items() if name not in _OPTIONAL or value}
        arguments |= {name: int(named[name] or 0) for name in ("seed", "preview_every")}
        chosen = named["hypernetwork"]
        arguments["hypernetwork"] = "" if chosen in (None, _AUTOMATIC) else chosen
        arguments["start"] = None if named["start"] == _AUTOMATIC else named["start"].lower()
        return arguments


def _offered(hypernetworks: Sequence[str]) -> list[str]:
    return [_AUTOMATIC, *hypernetworks]
