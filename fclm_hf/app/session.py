"""What one visitor has prompted so far: the objects of a photo, and how to undo. No model and no Gradio."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any


MAX_OBJECTS = 12
MAX_POINTS = 50
_MAX_PAST = 100


@dataclass(frozen=True)
class ObjectPrompts:
    """All that has been said about one object.

    Attributes:
        points: Clicks as (x, y) in pixels of the photo.
        labels: 1 for a click on the object, 0 for one beside it; as many as points.
        box: Corners (x0, y0, x1, y1) in pixels of the photo.
        text: Name of the object.
        mask: File of a rough mask, trimap or earlier matte of the size of the photo.
        stands_out: Whether the object is whatever stands out, without a prompt.
    """

    points: tuple[tuple[float, float], ...] = ()
    labels: tuple[int, ...] = ()
    box: tuple[float, ...] | None = None
    text: str | None = None
    mask: Path | None = None
    stands_out: bool = False

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to matte yet."""
        return self == ObjectPrompts()


@dataclass(frozen=True)
class Session:
    """The objects that a visitor has prompted in one photo; each method returns a new session.

    Attributes:
        photo: File of the photo, None before the upload.
        size: Width and height of the photo in pixels.
        objects: Prompts of each object, at least one.
        selected: Index of the object that new prompts go to.
        past: Earlier objects and selections, for undo.

    Example:
        >>> from fclm_hf.app.session import Session
        >>> session = Session(size=(640, 480)).add_point(300, 200, 1).add_point(30, 30, 0)
        >>> session.collect_prompts()
        {'input_points': [[[300, 200], [30, 30]]], 'input_labels': [[1, 0]]}
        >>> session.undo().collect_prompts()
        {'input_points': [[[300, 200]]], 'input_labels': [[1]]}
    """

    photo: Path | None = None
    size: tuple[int, int] = (0, 0)
    objects: tuple[ObjectPrompts, ...] = (ObjectPrompts(),)
    selected: int = 0
    past: tuple[tuple[tuple[ObjectPrompts, ...], int], ...] = ()

    @property
    def current(self) -> ObjectPrompts:
        """The selected object."""
        return self.objects[self.selected]

    @property
    def filled(self) -> list[int]:
        """Indices of the objects that have prompts."""
        return [index for index, each in enumerate(self.objects) if not each.is_empty]

    def add_point(self, x: float, y: float, label: int) -> "Session":
        """Add a click to the selected object, moved into the photo if it is outside.

        Args:
            x: Column in pixels of the photo.
            y: Row in pixels of the photo.
            label: 1 on the object, 0 beside it.

        Raises:
            ValueError: If there are too many clicks.
        """
        each = self.current
        if len(each.points) >= MAX_POINTS:
            raise ValueError(f"An object takes at most {MAX_POINTS} clicks: undo some, or draw a box.")
        point = _clip(x, self.size[0]), _clip(y, self.size[1])
        return self._edit(points=(*each.points, point), labels=(*each.labels, int(bool(label))))

    def set_box(self, corners: Iterable[float]) -> "Session":
        """Set the box of the selected object from two opposite corners, x and y of one and of the other.

        Raises:
            ValueError: If it has no area.
        """
        x0, y0, x1, y1 = corners
        (left, right), (top, bottom) = (
            sorted((_clip(first, limit), _clip(second, limit)))
            for first, second, limit in ((x0, x1, self.size[0]), (y0, y1, self.size[1]))
        )
        if right - left < 1 or bottom - top < 1:
            raise ValueError("A box must be at least 1 pixel wide and high: choose two corners that lie apart.")
        return self._edit(box=(left, top, right, bottom))

    def set_text(self, text: str) -> "Session":
        """Set the name of the selected object; an empty one removes it."""
        return self._edit(text=text.strip() or None)

    def set_mask(self, mask: Path | None) -> "Session":
        """Set the rough mask of the selected object; None removes it."""
        return self._edit(mask=mask)

    def take_what_stands_out(self) -> "Session":
        """Replace all prompts of the selected object: it is whatever stands out."""
        return self._change(self._replace_current(ObjectPrompts(stands_out=True)), self.selected)

    def add_object(self) -> "Session":
        """Add an object without prompts and select it, or select one that has none.

        Raises:
            ValueError: If there are too many objects.
        """
        empty = next((index for index, each in enumerate(self.objects) if each.is_empty), None)
        if empty is not None:
            return self.select(empty)
        if len(self.objects) >= MAX_OBJECTS:
            raise ValueError(f"A photo takes at most {MAX_OBJECTS} objects: remove one first.")
        return self._change((*self.objects, ObjectPrompts()), len(self.objects))

    def remove_object(self) -> "Session":
        """Remove the selected object; the last one only loses its prompts."""
        rest = self.objects[: self.selected] + self.objects[self.selected + 1 :]
        return self._change(rest or (ObjectPrompts(),), max(0, min(self.selected, len(rest) - 1)))

    def select(self, index: int) -> "Session":
        """Select an object; this is nothing to undo."""
        return replace(self, selected=max(0, min(int(index), len(self.objects) - 1)))

    def clear(self) -> "Session":
        """Remove all objects."""
        return self._change((ObjectPrompts(),), 0)

    def undo(self) -> "Session":
        """Return to the prompts before the last change; without any change, nothing happens."""
        if not self.past:
            return self
        objects, selected = self.past[-1]
        return replace(self, objects=objects, selected=selected, past=self.past[:-1])

    def collect_prompts(self) -> dict[str, list[Any]]:
        """Return the prompts of all objects that have some, nested as object > value; `{}` is what stands out."""
        objects = [self.objects[index] for index in self.filled]
        columns: dict[str, list[Any]] = {
            "text": [each.text for each in objects],
            "input_points": [[list(point) for point in each.points] or None for each in objects],
            "input_labels": [list(each.labels) or None for each in objects],
            "input_boxes": [each.box and list(each.box) for each in objects],
            "input_masks": [each.mask for each in objects],
        }
        prompts = {name: values for name, values in columns.items() if any(each is not None for each in values)}
        return prompts or ({"text": [None] * len(objects)} if len(objects) > 1 else {})

    def _edit(self, **changes: Any) -> "Session":
        edited = replace(self.current, stands_out=False, **changes)
        return self._change(self._replace_current(edited), self.selected)

    def _replace_current(self, prompts: ObjectPrompts) -> tuple[ObjectPrompts, ...]:
        return (*self.objects[: self.selected], prompts, *self.objects[self.selected + 1 :])

    def _change(self, objects: tuple[ObjectPrompts, ...], selected: int) -> "Session":
        if objects == self.objects:
            return self
        past = (*self.past, (self.objects, self.selected))[-_MAX_PAST:]
        return replace(self, objects=objects, selected=selected, past=past)


def _clip(value: float, limit: int) -> float:
    """Return a coordinate moved into [0, limit]; NaN becomes 0."""
    return max(0, min(value, limit))


__all__ = ["MAX_OBJECTS", "MAX_POINTS", "ObjectPrompts", "Session"]
