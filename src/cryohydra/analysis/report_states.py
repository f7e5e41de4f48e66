"""The part of the report that shows the states of the classes."""

from collections.abc import Sequence

from cryohydra.analysis.class_analysis import ClassFindings, ShownFigure
from cryohydra.analysis.findings_in_words import tell_states
from cryohydra.analysis.markup import Markup, fill, join, png_address
from cryohydra.analysis.palette import class_colours
from cryohydra.analysis.structures import Structure, Structures


def show_states(findings: Sequence[ClassFindings], structures: Structures) -> Markup:
    """How many states each class that moves has, and a card for each that has several; nothing if none moves."""
    said = tell_states(findings)
    if not said:
        return Markup("")
    cards = join(
        _class_states(found, structure)
        for found, structure in zip(findings, structures.shown, strict=True)
        if found.states is not None and found.states.landscape.num_states > 1
    )
    return fill("states", said=" ".join(said), cards=cards)


def themed_picture(figure: ShownFigure) -> Markup:
    """A figure in the reader's theme."""
    light, dark = png_address(figure.light_png), png_address(figure.dark_png)
    return fill("picture", light=light, dark=dark, caption=figure.caption)


def _class_states(found: ClassFindings, structure: Structure) -> Markup:
    assert found.states is not None and found.landscape is not None
    names = found.states.names
    tiles = join(
        fill("state", picture=png_address(picture), caption=name, colour=colour)
        for picture, name, colour in zip(structure.state_pictures, names, class_colours(len(names)), strict=True)
    )
    return fill(
        "class_states",
        index=found.class_index,
        colour=structure.colour,
        count=len(names),
        picture=themed_picture(found.landscape),
        caption=found.landscape.caption,
        tiles=tiles,
        differences=_differences(found),
    )


def _differences(found: ClassFindings) -> Markup:
    shown = found.state_differences
    return Markup("") if shown is None else fill("figure", picture=themed_picture(shown), caption=shown.caption)
