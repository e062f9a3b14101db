"""What happens when the fields of app.py's page are used (requirements-app.txt)."""

import traceback
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import gradio as gr

from errors import UserError
from prediction import app_text as text
from prediction.app_case import RULES, STEPS, Case, marked_picture, picture, refused_rules
from prediction.app_layout import TITLE, Fields
from prediction.app_reading import Entered, reading_of
from prediction.app_work import Page, Workshop, chosen
from prediction.discovery import Source

CACHE = (60, 900)  # seconds: how often pictures are looked for that are older than so many
SLIDERS_AT_ONCE = 4  # requests that need no network
LOST = "what was scored here is gone; choose the file again"
DIGITS = 6  # of numbers of the threshold's slider
PROGRESS = gr.Progress()  # gradio reports what is called on it to the page that waits

Updates = dict[Any, Any]  # new values by field
Values = dict[Any, Any]  # of fields
Asked = tuple[Source, Path, Entered]  # what is scored, by which detector, how it is read
Change = Callable[[Case, Any], tuple[Case, Updates]]


class Events:
    """What the fields of a page do. Handlers return new values of fields."""

    def __init__(self, fields: Fields, workshop: Workshop) -> None:
        self.fields = fields
        self.workshop = workshop

    def connect(self) -> None:
        """Say what happens when. Within gr.Blocks."""
        fields = self.fields
        shown = [*fields.results(), fields.problem]
        everything = [*shown, fields.hint, fields.found]
        choices = {fields.found, fields.detector, *fields.reading()}  # a set: values come by field
        score: dict[str, Any] = {
            "fn": self.score,
            "inputs": choices,
            "outputs": everything,
            "show_progress_on": [fields.verdict, fields.hint],
            "concurrency_limit": 1,
            "trigger_mode": "always_last",  # what was chosen last is shown in the end
            "api_visibility": "private",
        }
        quick: dict[str, Any] = {
            "show_progress": "hidden",
            "concurrency_limit": SLIDERS_AT_ONCE,
            "api_visibility": "private",
        }
        fields.files.change(self.take, fields.files, everything, **quick).then(**score)
        again = [fields.found.input, fields.detector.input, fields.again.click]
        gr.on(again, self.stop, choices, trigger_mode="multiple", **quick).then(**score)
        quick |= {"outputs": shown, "trigger_mode": "always_last"}
        fields.rule.input(self.on_case(self.by_rule), fields.rule, **quick)
        fields.threshold.input(self.on_case(self.by_value), fields.threshold, **quick)
        fields.slices.input(self.on_case(self.by_slice), fields.slices, **quick)
        fields.bars.select(self.click, **quick)

    def page(self, request: gr.Request) -> Page:
        """Return the page that a request comes from."""
        return self.workshop.pages[str(request.session_hash)]

    def told(self, page: Page, work: Callable[[], Updates]) -> Updates:
        """Return what work returns; if it fails, one line on the page that says why."""
        page.problem = ""
        updates: Updates = {}
        try:
            updates = work()
        except UserError as error:
            page.problem = page.uploads.readable(str(error))
        except Exception as error:  # noqa: BLE001  # a bug: the page goes on
            traceback.print_exc()
            page.problem = f"unexpected {type(error).__name__}: {error}".split("\n")[0]
        return {**updates, self.fields.problem: text.problem(page.problem)}

    # ---------------------------------------------------------------- files

    def take(self, files: Sequence[str] | None, request: gr.Request) -> Updates:
        """Take the files that were uploaded; nothing is scored yet."""
        page = self.page(request)
        page.begin()
        page.case = None
        page.asked = None

        def work() -> Updates:
            page.uploads.replace([Path(file) for file in files or ()])
            return {}

        updates = self.told(page, work)
        names = [source.name for source in page.uploads.sources]
        first = names[0] if names else None
        fields = self.fields
        return {
            **updates,
            fields.found: gr.update(choices=names, value=first, visible=len(names) > 1),
            **self.visible(False),
        }

    def asked(self, page: Page, values: Values) -> Asked | None:
        """Return what is to be scored; None where there are no files."""
        fields = self.fields
        if not page.uploads.sources:
            return None
        source = chosen(page.uploads.sources, values[fields.found])
        entered = Entered(*(values[field] for field in fields.reading()))
        return source, Path(values[fields.detector]), entered

    def stop(self, values: Values, request: gr.Request) -> None:
        """Stop what is being scored if something else is asked for: dropdowns tell things twice."""
        page = self.page(request)
        asked = self.asked(page, values)
        if asked != page.asked:
            page.begin()
            page.asked = asked

    def score(
        self, values: Values, request: gr.Request, progress: gr.Progress = PROGRESS
    ) -> Updates:
        """Score what was chosen of the files, unless that is what is shown."""
        page = self.page(request)
        asked = self.asked(page, values)
        if asked is None:  # what was scored before may have been drawn after `take`
            return {self.fields.problem: text.problem(page.problem), **self.visible(False)}
        if page.case is not None and page.scored == asked:
            return {self.fields.found: gr.skip()}
        page.asked = asked
        source, detector, entered = asked

        def report(what: str, done: int, total: int) -> None:
            if total > 1:
                progress((done, total), desc=what, unit="slices")
            else:
                progress(0, desc=what)

        def work() -> Updates:
            reading = partial(reading_of, entered)
            case = self.workshop.score(page, source, detector, reading, report)
            if case is None:
                return {}
            page.scored = asked
            return self.new(case)

        updates = self.told(page, work)
        return updates if page.case is not None else {**updates, **self.visible(False)}

    # ---------------------------------------------------------------- threshold and slice

    def on_case(self, change: Change) -> Callable[[Any, gr.Request], Updates]:
        """Return a handler that changes what is shown of the page's case."""

        def handler(value: Any, request: gr.Request) -> Updates:
            return self.change(change, value, request)

        return handler

    def change(self, change: Change, value: Any, request: gr.Request) -> Updates:
        """Change what is shown of the page's case."""
        page = self.page(request)

        def work() -> Updates:
            if page.case is None:
                raise UserError(LOST)
            if value is None:  # its number was deleted, to type another
                return {}
            page.case, updates = change(page.case, value)
            return {**self.drawn(page.case), **updates}

        return self.told(page, work)

    def by_rule(self, case: Case, rule: str) -> tuple[Case, Updates]:
        """Set the threshold by a rule."""
        case = case.with_rule(rule)
        return case, {self.fields.threshold: round(case.rule.value, DIGITS)}

    def by_value(self, case: Case, value: float) -> tuple[Case, Updates]:
        """Set the threshold to a number."""
        return case.with_rule(repr(float(value))), {self.fields.rule: None}

    def by_slice(self, case: Case, number: float) -> tuple[Case, Updates]:
        """Show another slice."""
        case = case.with_slice(int(number))
        return case, {self.fields.image: picture(case.shown)}

    def by_bar(self, case: Case, number: float) -> tuple[Case, Updates]:
        """Show the slice whose bar was clicked."""
        case, updates = self.by_slice(case, number)
        return case, {**updates, self.fields.slices: int(number)}

    def click(self, event: gr.EventData, request: gr.Request) -> Updates:
        """Show the slice whose bar was clicked."""
        return self.change(self.by_bar, event.slice, request)

    # ---------------------------------------------------------------- what is shown

    def drawn(self, case: Case) -> Updates:
        """Return what follows from the threshold and the slice."""
        fields = self.fields
        return {
            fields.verdict: text.verdict(case),
            fields.marked: marked_picture(case.shown),
            fields.caption: text.caption(case),
            fields.bars: text.bars(case),
            fields.strip: text.strip(case),
            fields.about_rule: text.rule_words(case),
        }

    def visible(self, scored: bool) -> Updates:
        """Return what is visible: results, or what to do to get some."""
        columns = dict.fromkeys(self.fields.columns(), gr.update(visible=scored))
        return {**columns, self.fields.hint: gr.update(visible=not scored)}

    def new(self, case: Case) -> Updates:
        """Return everything about a case that was scored now."""
        fields = self.fields
        numbers = case.numbers or (0,)
        several = len(numbers) > 1
        low, high = (round(end, DIGITS) for end in case.range())
        refused = refused_rules(case.calibration)
        rules = [rule for rule in RULES if rule not in refused]
        own = case.rule.rule
        return {
            **self.drawn(case),
            **self.visible(True),
            fields.image: picture(case.shown),
            fields.bars: gr.update(value=text.bars(case), visible=several),
            fields.slices: gr.update(
                minimum=numbers[0],
                maximum=numbers[-1] if several else numbers[0] + 1,
                value=numbers[case.at],
                visible=several,
            ),
            fields.threshold: gr.update(
                minimum=low,
                maximum=high,
                step=round((high - low) / STEPS, DIGITS) or None,
                value=round(case.rule.value, DIGITS),
            ),
            fields.rule: gr.update(choices=rules, value=own if own in rules else None),
            fields.remarks: text.remarks(case),
        }


def make_page(workshop: Workshop) -> gr.Blocks:
    """Return the page."""
    with gr.Blocks(
        title=TITLE, analytics_enabled=False, delete_cache=CACHE, fill_width=True
    ) as blocks:
        options = workshop.options
        Events(Fields(options.detectors, options.max_mb), workshop).connect()

        def close(request: gr.Request) -> None:
            workshop.pages.close(str(request.session_hash))

        blocks.unload(close)
    return blocks
