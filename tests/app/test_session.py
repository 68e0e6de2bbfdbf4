"""What a visitor has prompted: objects, selection, undo, and the arguments of the pipeline."""

from math import inf, nan
from pathlib import Path

import pytest

from fclm_hf.app.session import MAX_OBJECTS, MAX_POINTS, ObjectPrompts, Session


@pytest.fixture
def session() -> Session:
    return Session(photo=Path("photo.png"), size=(640, 480))


def test_without_prompts_there_is_nothing_to_matte(session: Session) -> None:
    assert session.filled == []
    assert session.collect_prompts() == {}
    assert session.undo() == session
    assert session.clear() == session
    assert session.remove_object() == session


def test_points_and_a_box_of_one_object(session: Session) -> None:
    session = session.add_point(10, 20, 1).add_point(30, 40, 0).set_box([300, 200, 5, 6])
    assert session.collect_prompts() == {
        "input_points": [[[10, 20], [30, 40]]],
        "input_labels": [[1, 0]],
        "input_boxes": [[5, 6, 300, 200]],
    }


@pytest.mark.parametrize(
    ("point", "clipped"), [((-5, 481), (0, 480)), ((inf, -inf), (640, 0)), ((nan, 3), (0, 3)), ((640, 480), (640, 480))]
)
def test_points_are_moved_into_the_photo(session: Session, point: tuple, clipped: tuple) -> None:
    assert session.add_point(*point, 1).current.points == (clipped,)


@pytest.mark.parametrize("corners", [(5, 5, 5, 50), (5, 5, 50, 5.5), (700, 5, 900, 50), (nan, nan, nan, nan)])
def test_boxes_without_area_are_errors(session: Session, corners: tuple) -> None:
    with pytest.raises(ValueError, match="A box must be at least 1 pixel"):
        session.set_box(corners)


def test_several_objects_have_prompts_of_their_own(session: Session) -> None:
    session = session.set_text(" cat ").add_object().add_point(1, 2, 1).add_object().set_mask(Path("mask.png"))
    assert session.filled == [0, 1, 2]
    assert session.collect_prompts() == {
        "text": ["cat", None, None],
        "input_points": [None, [[1, 2]], None],
        "input_labels": [None, [1], None],
        "input_masks": [None, None, Path("mask.png")],
    }
    session = session.select(1).remove_object()
    assert [each.text for each in session.objects] == ["cat", None]
    assert session.selected == 1


def test_what_stands_out_replaces_prompts_and_is_replaced_by_them(session: Session) -> None:
    session = session.add_point(1, 2, 1).take_what_stands_out()
    assert session.objects == (ObjectPrompts(stands_out=True),)
    assert session.filled == [0]
    assert session.collect_prompts() == {}
    assert session.add_object().take_what_stands_out().collect_prompts() == {"text": [None, None]}
    assert session.set_text("cat").objects == (ObjectPrompts(text="cat"),)


def test_an_empty_name_removes_the_name(session: Session) -> None:
    assert session.set_text("cat").set_text("  ").filled == []


def test_undo_goes_back_through_every_change(session: Session) -> None:
    states = [session]
    for change in (
        lambda each: each.add_point(1, 2, 1),
        lambda each: each.set_box((1, 2, 30, 40)),
        lambda each: each.add_object(),
        lambda each: each.set_text("cat"),
        lambda each: each.remove_object(),
        lambda each: each.clear(),
    ):
        states.append(change(states[-1]))
    current = states.pop()
    while states:
        current = current.undo()
        assert current == states.pop()


def test_selecting_is_nothing_to_undo(session: Session) -> None:
    session = session.set_text("cat").add_object().set_text("dog").select(0)
    assert session.current.text == "cat"
    assert session.undo().objects == (ObjectPrompts(text="cat"), ObjectPrompts())
    assert session.select(99).selected == 1
    assert session.select(-1).selected == 0


def test_another_object_is_not_added_while_one_is_empty(session: Session) -> None:
    assert session.add_object() == session
    session = session.set_text("cat").add_object().select(0).add_object()
    assert (len(session.objects), session.selected) == (2, 1)


def test_objects_and_clicks_are_limited(session: Session) -> None:
    for index in range(MAX_POINTS):
        session = session.add_point(index, index, 1)
    with pytest.raises(ValueError, match=f"at most {MAX_POINTS} clicks"):
        session.add_point(1, 1, 1)
    for _ in range(MAX_OBJECTS - 1):
        session = session.add_object().set_text("cat")
    with pytest.raises(ValueError, match=f"at most {MAX_OBJECTS} objects"):
        session.add_object()
