"""The fields of app.py's page, and where they stand (requirements-app.txt)."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gradio as gr

from prediction import app_text as text
from prediction.app_options import titles
from prediction.app_reading import AUTOMATIC, DETECTORS_OWN
from scans.preparation import PREPARATIONS
from scans.volume import AXES

TITLE = "MVFA"
PICTURE: dict[str, Any] = {
    "format": "png",
    "type": "pil",
    "interactive": False,
    "buttons": ["download", "fullscreen"],
    "min_width": 280,
}
CLICKED_BAR = """element.addEventListener("click", event => {
    const bar = event.target.closest("[data-slice]");
    if (bar) trigger("select", {slice: Number(bar.dataset.slice)});
})"""


class Fields:
    """The fields, made where the page is made: within gr.Blocks."""

    def __init__(self, detectors: Sequence[Path], max_mb: int) -> None:
        gr.HTML(text.HEAD, elem_id="head")
        gr.HTML(text.NOTE, elem_id="disclaimer")
        with gr.Row(elem_id="main"):
            with gr.Column(scale=2, min_width=300, elem_id="side"):
                self.add_inputs(detectors, max_mb)
                with gr.Column(visible=False, elem_id="controls") as self.controls:
                    self.add_controls()
            with gr.Column(scale=5, min_width=300, elem_id="show"):
                self.problem = gr.HTML(elem_id="problem")
                self.hint = gr.HTML(text.HINT, elem_id="hint")
                with gr.Column(visible=False, elem_id="results") as self.whole:
                    self.add_results()
                with gr.Column(visible=False, elem_id="notes") as self.notes:
                    self.about_rule = gr.HTML(elem_id="about-rule")
                    self.remarks = gr.HTML(elem_id="remarks")

    def add_inputs(self, detectors: Sequence[Path], max_mb: int) -> None:
        """Add files, detector, and how files are read."""
        label = f"Image or scan, at most {max_mb} MB"
        self.files = gr.File(label=label, file_count="multiple", height=170, elem_id="files")
        self.found = gr.Dropdown(
            [], label="Found in these files", visible=False, filterable=False, elem_id="found"
        )
        self.detector = gr.Dropdown(
            list(zip(titles(detectors), map(str, detectors), strict=True)),
            value=str(detectors[0]),
            label="Detector",
            filterable=False,
            elem_id="detector",
        )
        with gr.Accordion("How files are read", open=False, elem_id="reading"):
            gr.HTML("<p>As the flags of predict.py with these names.</p>")
            preparations = [DETECTORS_OWN, *PREPARATIONS]
            self.prepare = gr.Dropdown(preparations, label="--prepare", filterable=False)
            self.axis = gr.Dropdown([AUTOMATIC, *AXES], label="--axis", filterable=False)
            self.window = gr.Textbox(label="--window", placeholder="CENTRE WIDTH")
            with gr.Row():
                self.volume = gr.Textbox(label="--volume", placeholder="N", min_width=100)
                self.span = gr.Textbox(label="--slices", placeholder="FIRST:LAST", min_width=100)
            self.again = gr.Button("Read and score again", size="sm", elem_id="again")

    def add_controls(self) -> None:
        """Add what chooses the slice and sets the threshold."""
        self.slices = gr.Slider(label="Slice", step=1, visible=False, elem_id="slices")
        self.strip = gr.HTML(elem_id="strip")
        self.threshold = gr.Slider(label="Threshold", elem_id="threshold")
        self.rule = gr.Radio([], label="Threshold by a rule", elem_id="rule")

    def add_results(self) -> None:
        """Add what is shown of a scored image or scan."""
        self.verdict = gr.HTML(elem_id="verdict")
        with gr.Row():
            self.image = gr.Image(label="Image", elem_id="image", **PICTURE)
            self.marked = gr.Image(label="Anomaly map", elem_id="marked", **PICTURE)
        self.caption = gr.HTML(elem_id="caption")
        self.bars = gr.HTML(elem_id="bars", visible=False, js_on_load=CLICKED_BAR)

    def reading(self) -> list[Any]:
        """Return the fields that say how files are read, in the order of Entered."""
        return [self.prepare, self.axis, self.window, self.volume, self.span]

    def columns(self) -> list[Any]:
        """Return what is visible where there is a case."""
        return [self.whole, self.controls, self.notes]

    def results(self) -> list[Any]:
        """Return the fields that show a case."""
        shown = [*self.columns(), self.verdict, self.image, self.marked, self.caption, self.bars]
        shown += [self.slices, self.strip, self.threshold, self.rule]
        return [*shown, self.about_rule, self.remarks]
