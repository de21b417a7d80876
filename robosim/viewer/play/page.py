"""The page of `robosim play`: what a person sees of a session, and what their hands do to it.

Built from NiceGUI's elements, which it serves itself; nothing is fetched from elsewhere. What has to happen in the
browser (held keys, a file dropped anywhere, the words for a lost connection) is in page.js, the look in page.css.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from concurrent.futures import Executor
from functools import partial
from pathlib import Path

from nicegui import events, ui

from robosim.viewer.play.driver import STILL, Driver, Shown
from robosim.viewer.play.session import PlaySession, View

FOLDER = Path(__file__).parent

LARGEST_PICTURE = 40 * 2**20
"""Bytes of a picture that is taken: a photo of 20 megapixels has 5 to 25 million."""

PLACEHOLDER = "data:image/gif;base64,R0lGODlhAQABAAAAACH5BAEKAAEALAAAAAABAAEAAAICTAEAOw=="
"""One transparent pixel."""


def add_head() -> None:
    """Look and behaviour of the page that is being built."""
    ui.add_css((FOLDER / "page.css").read_text())
    ui.add_body_html(f"<script>{(FOLDER / 'page.js').read_text()}</script>")


class Page:
    """One open page: builds the elements for `session`, shows views, and hands every wish to its driver."""

    def __init__(
        self,
        session: PlaySession,
        name: str,
        worker: Executor,
        period: float,
        recorded: Callable[[list[Path]], None],
    ) -> None:
        """`period` is `Driver`'s; `recorded` is told the files of every recording."""
        self.session, self._recorded = session, recorded
        self.driver = Driver(session, worker, self.show, self.complain, period)
        self._written: list[Path] = []
        with ui.element("main").classes("page"):
            self._build_head(name)
            self._status = ui.label("").classes("status").props("role=status data-test=status")
            with ui.element("section").classes("left"):
                self._build_pictures()
                self._build_latents()
                self._build_starts()
            with ui.element("section").classes("right"):
                self._build_joints()
                self._build_history()
                self._build_recording()
        ui.on("hold", lambda event: self.driver.hold(int(event.args)))
        ui.on("let_go", lambda _: self.driver.release())
        ui.on("undo", lambda _: self._undo())
        ui.on("complain", lambda event: self.complain(str(event.args)))

    # What is shown

    def show(self, shown: Shown) -> None:
        """Put a new view on the page."""
        view = shown.view
        set_picture(self._frame, shown.frame)
        set_picture(self._twin, shown.twin or PLACEHOLDER)
        self._no_twin.set_visibility(shown.twin is None)
        self._step.text = f"frame {view.step}"
        if shown.rate is not None:
            self._rate.text = f"{shown.rate:.1f} frames/s"
        for joint, (slider, command, arm) in enumerate(self._joints):
            if not self.driver.aiming:
                slider.value = float(view.command[joint])
            command.text, arm.text = f"{view.command[joint]:z.2f}", f"{view.joints[joint]:z.2f}"
        self._undo_button.set_enabled(view.can_undo)
        self._show_branches(view)
        self._show_recording(view)
        self._say(view.note)

    def complain(self, sentence: str) -> None:
        """Say what went wrong, until something goes right."""
        self._say(sentence, wrong=True)

    def _say(self, sentence: str, wrong: bool = False) -> None:
        self._status.text = sentence
        self._status.classes(add="wrong" if wrong else "", remove="" if wrong else "wrong")

    def _show_branches(self, view: View) -> None:
        if (view.branches, view.branch) == self._branches_shown:
            return
        self._branches_shown = (view.branches, view.branch)
        self._branches.clear()
        with self._branches:
            for name in view.branches:
                chosen = button(name, partial(self._do, partial(self.session.switch_branch, name)), "chip")
                chosen.classes("chosen" if name == view.branch else "")

    def _show_recording(self, view: View) -> None:
        self._record.text = f"Stop · {steps(view.recorded)}" if view.recording else "Record"
        self._record.classes(add="on" if view.recording else "", remove="" if view.recording else "on")
        self._where.text = (
            "Frames, joints and commands are being recorded."
            if view.recording
            else "\n".join(map(str, self._written)) or "As a LeRobotDataset and for rerun."
        )

    # What it is built of

    def _build_head(self, name: str) -> None:
        with ui.element("header"):
            ui.label("robosim play").classes("title")
            ui.label(name).classes("run").props("data-test=run")
            self._step = ui.label("frame 0").classes("figure").props("data-test=step")
            self._rate = ui.label("– frames/s").classes("figure rate").props("data-test=rate")

    def _build_pictures(self) -> None:
        with ui.element("div").classes("pictures"):
            with ui.element("figure").classes("learned"):
                self._frame = picture("frame", "what the learned simulator shows")
                self._frame.on("load", lambda _: self.driver.seen(), args=[])
                ui.label("learned").classes("caption")
            with ui.element("figure").classes("physics"):
                self._twin = picture("twin", "what MuJoCo shows")
                self._no_twin = ui.label(
                    "MuJoCo runs along here when you start from a task, or from a recording of this arm. "
                    "A picture has no MuJoCo state."
                    if self.session.tasks
                    else "This run has no MuJoCo task to run along with."
                ).classes("absent")
                ui.label("MuJoCo").classes("caption")

    def _build_latents(self) -> None:
        with ui.element("div").classes("latents"):
            for code in range(self.session.num_codes):
                held_button(str(code + 1), code, f"latent action {code + 1}: hold it, or its key")
            if self.session.has_commands:
                held_button("hold still", STILL, "the present command again: hold it, or the space bar")
        ui.label(
            "Hold a button or its key, 1 to 8 and space. What each does was learned, not named."
        ).classes("hint")

    def _build_joints(self) -> None:
        self._joints: list[tuple[ui.slider, ui.label, ui.label]] = []
        if not self.session.has_commands:
            with card("Joints"):
                ui.label(f"Only latent actions move this arm: {self.session.no_commands}.").classes("hint")
            return
        with card("Joints"), ui.element("div").classes("joints"):
            for text in ("", "", "command", "arm", ""):
                ui.label(text).classes("column")
            session = self.session
            for joint, name in enumerate(session.joint_names):
                ui.label(name).classes("name")
                low, high = float(session.low[joint]), float(session.high[joint])
                slider = ui.slider(min=low, max=high, step=0.01).props(
                    f"dense selection-color=transparent data-joint={joint}"
                )
                slider.props["aria-label"] = name
                slider.on("update:model-value", partial(self._aim, joint), throttle=0.05, leading_events=True)
                command, arm = ui.label("–").classes("number"), ui.label("–").classes("number faint")
                ui.label(session.units[joint] if session.units[joint] == "rad" else "").classes("unit")
                self._joints.append((slider, command, arm))

    def _build_starts(self) -> None:
        with ui.element("div").classes("starts"):
            self._build_dataset_start()
            self._build_physics_start()
            self._build_picture_start()

    def _build_dataset_start(self) -> None:
        rows = self.session.episodes
        names = {row.index: f"{row.index} · {row.task} · {row.split}" for row in rows}
        lengths = {row.index: row.length for row in rows}
        held_out = next((row.index for row in rows if row.split == "val"), None)
        with card("Start from a recording"):
            if not names:
                ui.label("This run has no dataset beside it.").classes("hint")
                return
            with ui.element("div").classes("fields"):
                episode = choice("episode", names, held_out)
                frame = number("frame", 0, lengths[episode.value] - 1)
            episode.on_value_change(lambda event: setattr(frame, "max", lengths[event.value] - 1))

            def start() -> None:
                self._say("opening the episode …")  # seconds, the first time
                self._do(partial(self.session.start_from_dataset, episode.value, whole(frame)))

            button("Start", start).props("data-test=start-dataset")

    def _build_physics_start(self) -> None:
        with card("Start from a MuJoCo task"):
            if not self.session.tasks:
                ui.label("MuJoCo can't build this run's arm and tasks here.").classes("hint")
                return
            with ui.element("div").classes("fields"):
                task = choice("task", {name: name for name in self.session.tasks})
                seed = number("seed", 0, 2**31 - 1)

            def start() -> None:
                self._say("MuJoCo builds the scene …")  # seconds, the first time
                self._do(partial(self.session.start_from_physics, task.value, whole(seed)))

            button("Start", start).props("data-test=start-physics")

    def _build_picture_start(self) -> None:
        # FastAPI remembers an upload's route, and with it the element, for ever: it mustn't hold page and session.
        page = weakref.proxy(self)
        with card("Start from a picture"):
            self._upload = ui.upload(
                on_upload=lambda event: page._receive(event),
                on_rejected=lambda: page.complain(f"That file is larger than {LARGEST_PICTURE >> 20} MB."),
                max_file_size=LARGEST_PICTURE,
                auto_upload=True,
            ).classes("upload")
            drop = ui.label("Drop a photo or a sketch anywhere on the page, or click to choose one.")
            drop.classes("drop").props("data-test=drop tabindex=0 role=button")
            drop.on("click", js_handler=f"() => getElement({self._upload.id}).$refs.qRef.pickFiles()")

    def _build_history(self) -> None:
        with card("History"):
            with ui.element("div").classes("buttons"):
                self._undo_button = button("Undo", self._undo).props("data-test=undo")
                button("Branch here", partial(self._do, self.session.new_branch)).props("data-test=branch")
            self._branches = ui.element("div").classes("branches").props("data-test=branches")
            self._branches_shown: tuple[tuple[str, ...], str] = ((), "")

    def _build_recording(self) -> None:
        with card("Recording"):
            self._record = button("Record", self._toggle_recording, "record").props("data-test=record")
            self._where = ui.label("").classes("hint where").props("data-test=where")

    # What hands do

    def _do(self, action: Callable[[], View]) -> None:
        self.driver.do(action)

    def _undo(self) -> None:
        self._do(self.session.undo)

    def _aim(self, joint: int, event: events.GenericEventArguments) -> None:
        self.driver.aim(joint, float(event.args))

    def _toggle_recording(self) -> None:
        self._do(self.stop_recording if self.driver.view.recording else self.session.start_recording)

    def stop_recording(self) -> View:
        """Runs in the worker: write down what was recorded."""
        view, self._written = self.session.stop_recording()
        self._recorded(self._written)
        return view

    async def _receive(self, event: events.UploadEventArguments) -> None:
        self._upload.reset()
        if event.file.size() > LARGEST_PICTURE:
            self.complain(f"{event.file.name} is larger than {LARGEST_PICTURE >> 20} MB.")
            return
        data = await event.file.read()
        self._do(partial(self.session.start_from_picture, data, event.file.name))


# Small parts


def picture(name: str, meaning: str) -> ui.element:
    """An empty picture of the class `name`."""
    image = ui.element("img").classes(name)
    image.props["alt"], image.props["src"] = meaning, PLACEHOLDER
    return image.props("draggable=false")


def set_picture(image: ui.element, uri: str) -> None:
    """Change what a picture shows, if it changes."""
    if image.props["src"] != uri:
        image.props["src"] = uri
        image.update()


def card(title: str) -> ui.element:
    """A titled box, to be filled in a `with` statement."""
    box = ui.element("div").classes("card")
    with box:
        ui.label(title).classes("heading")
    return box


def button(text: str, on_click: Callable[[], object], kind: str = "plain") -> ui.button:
    """A button in the page's own look."""
    return (
        ui.button(text, on_click=lambda: on_click(), color=None)
        .props("flat no-caps dense :ripple=false")
        .classes(kind)
    )


def held_button(text: str, what: int, meaning: str) -> None:
    """A button that acts as long as it is held; page.js watches it, and its key."""
    made = (
        ui.button(text, color=None)
        .props(f"flat no-caps dense :ripple=false data-hold={what}")
        .classes("held")
    )
    made.props["title"] = meaning


def choice(label: str, options: dict, chosen: object = None) -> ui.select:
    """A drop-down list, on its first option unless another is chosen."""
    return ui.select(options, label=label, value=next(iter(options)) if chosen is None else chosen).props(
        f"dense outlined options-dense dark data-test={label}"
    )


def number(label: str, low: int, high: int) -> ui.number:
    """A field for a whole number."""
    return ui.number(label, value=low, min=low, max=high, precision=0).props(
        f"dense outlined dark data-test={label}"
    )


def steps(count: int) -> str:
    return f"{count} step" if count == 1 else f"{count} steps"


def whole(field: ui.number) -> int:
    """The whole number in a field, 0 where it was emptied."""
    return int(field.value or 0)
