"""What happens when a visitor of the app does something, and what the HTTP API answers."""

import functools
import html
import inspect
import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from ..image_utils_fclm import load_image
from ..pipeline_results_fclm import MattingResults
from .batch import write_batch
from .engine import Engine, explain
from .pictures import (
    OBJECT_COLORS,
    OUTPUTS,
    ResultFolder,
    Style,
    draw_overlay,
    encode_url,
    make_preview,
    save_png,
    select,
    shrink_results,
    unite,
)
from .session import Session


logger = logging.getLogger(__name__)

TARGETS = ("All objects", "Selected object")
UNEXPECTED = "Something went wrong on the server. Try again, or with another photo."
Update = tuple[Any, Any, Any]  # session, canvas and result


def show_errors(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a method that is a generator or function, and whose errors reach the visitor as one sentence."""

    def translate(error: Exception, values: tuple[Any, ...]) -> gr.Error:
        if isinstance(error, gr.Error):
            return error
        if not isinstance(error, (ValueError, TypeError, OSError)):
            logger.error("%s failed", function.__name__, exc_info=error)
            return gr.Error(UNEXPECTED, print_exception=False)
        files = [each.photo if isinstance(each, Session) else each for each in values]
        files = [each for each in files if isinstance(each, (str, Path)) and os.sep in str(each)]
        # messages are rendered as HTML, and may quote what the visitor has typed
        return gr.Error(html.escape(explain(error, *files), quote=False), print_exception=False)

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except Exception as error:
            raise translate(error, args) from None

    @functools.wraps(function)
    def generate(*args: Any, **kwargs: Any) -> Iterator[Any]:
        try:
            yield from function(*args, **kwargs)
        except Exception as error:
            raise translate(error, args) from None

    return generate if inspect.isgeneratorfunction(function) else call


@dataclass(frozen=True)
class Settings:
    """The settings beside the result.

    Attributes:
        target: One of `TARGETS`.
        output: One of [`~fclm_hf.app.pictures.OUTPUTS`].
        color: Color behind the object.
        picture: File of a picture behind the object.
        model: Checkpoint.
    """

    target: str
    output: str
    color: str | None
    picture: str | None
    model: str


class Handlers:
    """Events of the page and of the API; `*settings` are the fields of `Settings`.

    Args:
        engine: The engine.
        results: Folder for what is downloaded.
        examples: Photos to start with.
    """

    def __init__(self, engine: Engine, results: ResultFolder, examples: Sequence[Path] = ()) -> None:
        self.engine, self.results, self.examples = engine, results, list(examples)

    def forget(self, session: Session) -> None:
        """Free memory and disk after the session of a visitor has expired."""
        self.engine.drop_idle()
        self.results.remove_old()

    @show_errors
    def open_photo(self, session: Session, file: str | None, *settings: Any) -> Iterator[Update]:
        """Show a photo that was uploaded and encode it, so that the first prompt takes little time."""
        if file is None:
            yield leave_all()
            return
        encoded = self.engine.encode(file, Settings(*settings).model)
        session, image = Session(photo=Path(file), size=encoded.image.size), encoded.image
        photo = {"url": encode_url(make_preview(image), quality=88, method=1), "width": image.width}
        yield session, gr.HTML(photo=photo, value=describe(session)), {}

    @show_errors
    def act(self, session: Session, *settings_and_event: Any) -> Iterator[Update]:
        """Carry out what the visitor did on the canvas."""
        *settings, event = settings_and_event
        data = event._data
        if data["kind"] == "example":
            yield from self.open_photo(session, str(self.examples[int(data["index"])]), *settings)
        else:
            yield from self._update(apply(require_photo(session), data), *settings)

    @show_errors
    def set_text(self, session: Session, text: str, *settings: Any) -> Iterator[Update]:
        """Name the selected object."""
        yield from self._update(require_photo(session).set_text(text or ""), *settings)

    @show_errors
    def take_what_stands_out(self, session: Session, *settings: Any) -> Iterator[Update]:
        """Select whatever stands out."""
        yield from self._update(require_photo(session).take_what_stands_out(), *settings)

    @show_errors
    def set_mask(self, session: Session, mask: str | None, *settings: Any) -> Iterator[Update]:
        """Give the selected object a rough mask."""
        if mask is None:
            yield leave_all()
        else:
            yield from self._update(require_photo(session).set_mask(Path(mask)), *settings)

    @show_errors
    def refresh(self, session: Session, *settings: Any) -> Iterator[Update]:
        """Show the result again after a setting has changed."""
        chosen = Settings(*settings)
        if session.photo is None or (chosen.output == "Picture" and not chosen.picture):
            yield leave_all()
        else:
            yield from self._update(session, *settings)

    @show_errors
    def download(self, session: Session, *settings: Any) -> str:
        """Return the file of the result at the size of the photo."""
        chosen = Settings(*settings)
        if not require_photo(session).filled:
            raise ValueError("Click on an object, name it, or take what stands out first.")
        style = self._make_style(chosen.output, chosen.color, chosen.picture)
        results = self._choose(session, self._matte(session, chosen.model, style), chosen.target)
        return self._save(style.render(results[0]), style.name_file(session.photo))

    @show_errors
    def run_batch(
        self,
        files: list[str] | None,
        text: str | None = None,
        output: str = OUTPUTS[0],
        color: str | None = None,
        picture: str | None = None,
        model: str = "",
        progress: gr.Progress = gr.Progress(),  # noqa: B008 - how Gradio wants it
    ) -> tuple[str, str]:
        """Return a zip archive of the results of many photos, and a report in Markdown.

        Args:
            files: Photos.
            text: Name of the object in each photo. Without it, the object that stands out.
            output: Transparent, Color, Picture or Matte.
            color: Color to put behind the object, for the output Color.
            picture: Picture to put behind the object, for the output Picture.
            model: Checkpoint. Empty for the first that is offered.
            progress: How far it is.
        """
        files, text = files or [], (text or "").strip()
        style = self._make_style(output, color, picture)
        path = self.results.make_path("fclm_results.zip")
        failures = write_batch(
            self.engine,
            files,
            path,
            {"text": text} if text else {},
            style,
            model,
            report=lambda done, total: progress((done, total), unit="photos"),
        )
        lines = [f"{len(files) - len(failures)} of {len(files)} photos done."]
        lines += [f"- {html.escape(name)}: {html.escape(problem)}" for name, problem in failures.items()]
        return str(path), "\n".join(lines)

    @show_errors
    def compare(self, session: Session, first: str, second: str) -> tuple[dict[str, Any], ...]:
        """Return the cutouts of two models by the prompts of the photo page."""
        if not require_photo(session).filled:
            raise ValueError("Prompt an object on the page Photo first.")
        return tuple(
            self._show_result(session, shrink_results(self._matte(session, model, Style())), TARGETS[0], Style())
            for model in (first, second)
        )

    @show_errors
    def write_mattes(
        self, image: str, prompts: dict[str, Any] | None = None, mask: str | None = None, model: str = ""
    ) -> list[str]:
        """Return the matte of each object in a photo: 8-bit grayscale PNG files of the size of the photo.

        Args:
            image: Photo.
            prompts: Any of text, input_points, input_labels and input_boxes, as for the pipeline, in pixels of the
                photo. Without any, the object that stands out.
            mask: Rough mask, trimap or earlier matte of a single object, of the size of the photo.
            model: Checkpoint. Empty for the first that is offered.
        """
        return self._write_objects(image, prompts, mask, Style("Matte"), model)

    @show_errors
    def write_cutouts(
        self,
        image: str,
        prompts: dict[str, Any] | None = None,
        mask: str | None = None,
        color: str = "",
        background: str | None = None,
        model: str = "",
    ) -> list[str]:
        """Return a cutout of each object in a photo: PNG files of its size, RGBA, or RGB over a background.

        Args:
            image: Photo.
            prompts: Any of text, input_points, input_labels and input_boxes, as for the pipeline, in pixels of the
                photo. Without any, the object that stands out.
            mask: Rough mask, trimap or earlier matte of a single object, of the size of the photo.
            color: Color to put behind the object, such as #4a90d9 or white. Empty for none.
            background: Picture to put behind the object.
            model: Checkpoint. Empty for the first that is offered.
        """
        output = "Picture" if background is not None else "Color" if color else "Transparent"
        return self._write_objects(image, prompts, mask, self._make_style(output, color, background), model)

    def _write_objects(
        self, image: str | None, prompts: dict[str, Any] | None, mask: str | None, style: Style, model: str
    ) -> list[str]:
        if image is None:
            raise ValueError("image must be a photo, got none.")
        prompts = {} if prompts is None else prompts
        if not isinstance(prompts, Mapping) or "input_masks" in prompts:  # which could name files of this machine
            raise ValueError("prompts must be an object with text, input_points, input_labels or input_boxes.")
        if mask is not None:
            prompts = {**prompts, "input_masks": [mask]}
        results = self.engine.matte(image, prompts, model, style.foreground)
        numbers = [None] if len(results) == 1 else range(1, len(results) + 1)
        return [
            self._save(style.render(result), style.name_file(image, number))
            for result, number in zip(results, numbers, strict=True)
        ]

    def _update(self, session: Session, *settings: Any) -> Iterator[Update]:
        """Yield the mattes over the photo, then the result, which takes longer."""
        chosen = Settings(*settings)
        if not session.filled:
            yield session, describe(session), {}
            return
        style = self._make_style(chosen.output, chosen.color, chosen.picture)
        results = shrink_results(self._matte(session, chosen.model, style))
        overlay = encode_url(draw_overlay(results.alphas[0], session.filled), "PNG", compress_level=1)
        yield session, describe(session, overlay), gr.skip()
        yield session, gr.skip(), self._show_result(session, results, chosen.target, style)

    def _matte(self, session: Session, model: str, style: Style) -> MattingResults:
        return self.engine.matte(session.photo, session.collect_prompts(), model, style.foreground)

    def _choose(self, session: Session, results: MattingResults, target: str) -> MattingResults:
        """Return a single matte: of the selected object, or of all."""
        if target == TARGETS[1] and not session.current.is_empty:
            return select(results, session.filled.index(session.selected))
        return unite(results)

    def _show_result(self, session: Session, preview: MattingResults, target: str, style: Style) -> dict[str, Any]:
        picture = style.render(self._choose(session, preview, target)[0])
        url = encode_url(picture, quality=90, method=1)
        return {"url": url, "alt": f"Result: {style.output}", "clear": style.output == "Transparent"}

    def _make_style(self, output: str, color: str | None, picture: str | None) -> Style:
        uses_picture = output == "Picture" and picture is not None
        return Style(output, color, load_image(self.engine.open(picture)) if uses_picture else None)

    def _save(self, picture: Any, name: str) -> str:
        path = self.results.make_path(name)
        save_png(picture, path)
        return str(path)


def leave_all() -> Update:
    """Return an update that changes nothing."""
    return gr.skip(), gr.skip(), gr.skip()


def require_photo(session: Session) -> Session:
    """Return the session, or raise ValueError if there is no photo in it."""
    if session.photo is None:
        raise ValueError("Choose a photo first.")
    return session


def apply(session: Session, data: Mapping[str, Any]) -> Session:
    """Return a session after something was done on the canvas; data that the page does not send raise ValueError."""
    actions: dict[str, Callable[[], Session]] = {
        "point": lambda: session.add_point(float(data["x"]), float(data["y"]), int(data["label"])),
        "box": lambda: session.set_box([float(each) for each in data["box"]]),
        "select": lambda: session.select(data["index"]),
        "add_object": session.add_object,
        "remove_object": session.remove_object,
        "undo": session.undo,
        "clear": session.clear,
    }
    try:
        return actions[data["kind"]]()
    except (KeyError, TypeError) as error:
        raise ValueError(f"The page sent {str(data)[:80]}, which is no prompt: load it again.") from error


def describe(session: Session, overlay: str | None = None) -> dict[str, Any]:
    """Return what the canvas shows of a session.

    Args:
        session: The session.
        overlay: Data URL of the mattes.
    """
    objects = [
        {
            "points": [[*point, label] for point, label in zip(each.points, each.labels, strict=True)],
            "box": each.box and list(each.box),
            "label": each.text or f"Object {index + 1}",
            "color": "rgb({}, {}, {})".format(*OBJECT_COLORS[index % len(OBJECT_COLORS)]),
            "empty": each.is_empty,
        }
        for index, each in enumerate(session.objects)
    ]
    return {
        "objects": objects,
        "selected": session.selected,
        "can_undo": bool(session.past),
        "overlay": overlay,
    }


__all__ = ["TARGETS", "Handlers", "apply", "describe"]
