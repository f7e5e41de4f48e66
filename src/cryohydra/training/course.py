"""Which kind of pass a search makes next, and when it has settled."""

import math
from dataclasses import dataclass
from typing import Any


@dataclass
class Course:
    """Passes over whole grids of poses, then passes of steps, and one more look over grids for what went astray.

    While classes are in doubt all passes are over grids: steps weigh classes by one pose, which loses where the signal
    is weak.
    """

    is_searching: bool = True
    """Whether the next pass compares images with whole grids."""
    is_last: bool = False
    """Whether all has settled, and only what went astray is looked for."""
    is_in_doubt: bool = False
    """Whether classes were not told well when the pass began."""
    is_over: bool = False
    """Whether that has found nothing either."""
    evidence_before: float = -math.inf
    """Of the pass before, for each image; minus infinity if the next one's cannot be compared with it."""

    def begin_pass(self, is_in_doubt: bool) -> None:
        """Take note of whether classes are told."""
        if is_in_doubt != self.is_in_doubt:
            # Maps of most images explain more than those of half of them.
            self.evidence_before = -math.inf
        self.is_in_doubt = is_in_doubt

    def gain(self, evidence: float) -> float:
        """Part of the evidence of a pass, for each image, that it has added to that of the pass before."""
        return (evidence - self.evidence_before) / max(abs(evidence), 1e-20)

    def end_pass(self, evidence: float, *, was_searching: bool, finds_nothing: bool, has_settled: bool) -> None:
        """Decide what comes next.

        Args:
            evidence: Of the pass, for each image.
            finds_nothing: Whether grids told of a pass that searched nothing that was not known.
            has_settled: Whether another pass of the kind would gain next to nothing.
        """
        if was_searching:
            finds_nothing |= has_settled
            self.is_over = self.is_last and finds_nothing
            if self.is_in_doubt:
                self.is_last |= has_settled
            else:
                self.is_searching = not (finds_nothing or self.is_last)
        elif has_settled:
            self.is_over = self.is_last
            self.is_searching = self.is_last = True
        self.evidence_before = evidence

    def go_on(self) -> None:
        """Begin anew with other maps."""
        self.is_over = self.is_last = False
        self.is_searching = self.is_in_doubt
        self.evidence_before = -math.inf

    def state_dict(self) -> dict[str, Any]:
        """Plain values, from which `Course(**...)` makes it."""
        return dict(vars(self))
