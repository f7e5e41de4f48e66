"""Which pass comes next in a search."""

import math

import pytest

from cryohydra.training.course import Course


def _end(course: Course, evidence: float, searched: bool = True, vain: bool = False, settled: bool = False) -> None:
    course.end_pass(evidence, was_searching=searched, finds_nothing=vain, has_settled=settled)


def test_told_classes_take_steps_once_grids_find_nothing_and_look_over_grids_once_more() -> None:
    course = Course()
    _end(course, 10.0)
    assert course.is_searching and not course.is_last
    _end(course, 11.0, vain=True)
    assert not course.is_searching and not course.is_over
    _end(course, 12.0, searched=False)
    assert not course.is_searching
    _end(course, 12.0, searched=False, settled=True)
    assert course.is_searching and course.is_last and not course.is_over
    _end(course, 12.0, vain=True)
    assert course.is_over


def test_a_last_search_that_finds_something_is_followed_by_steps() -> None:
    course = Course(is_last=True)
    _end(course, 10.0)
    assert not course.is_over and not course.is_searching
    _end(course, 10.0, searched=False, settled=True)
    assert course.is_over


def test_while_classes_are_in_doubt_all_passes_are_over_grids_until_two_have_settled() -> None:
    course = Course()
    course.begin_pass(is_in_doubt=True)
    for settled, is_over in ((False, False), (True, False), (True, True)):
        _end(course, 10.0, settled=settled)
        assert course.is_searching and course.is_over == is_over
    course.go_on()
    assert course == Course(is_in_doubt=True)


def test_evidence_is_compared_with_that_of_a_pass_of_the_same_kind() -> None:
    """Maps of most images explain more than those of half of them."""
    course = Course()
    assert course.gain(10.0) == math.inf
    _end(course, 8.0)
    assert course.gain(10.0) == pytest.approx(0.2)
    course.begin_pass(is_in_doubt=True)
    assert course.gain(10.0) == math.inf
    assert Course(**course.state_dict()) == course
