"""Whose orders a node obeys: those of the highest term that it was given any of."""

from __future__ import annotations

from splitbus_schemas.errors import StaleError


class TermFloor:
    """The highest term so far, of this start of the node. Belongs to one thread; `term` may be read by any."""

    def __init__(self) -> None:
        self.term = 0

    def admit(self, topic: str, term: int) -> None:
        """Raises StaleError for an order of a gateway that leads no more."""
        if term < self.term:
            raise StaleError(f"{topic} is of term {term}, and {self.term} was heard: its gateway leads no more")
        self.term = term
