"""How much of the picture a cut shows: a decoder is fitted on calibration pictures, and others are rebuilt with it.

What it cannot rebuild, a deeper decoder trained on more pictures may: the figures are a lower bound of what leaks.
"""

from splitbus_gateway.leak.figures import Likeness, Rebuilt, Shown, rebuild_pictures

__all__ = ["Likeness", "Rebuilt", "Shown", "rebuild_pictures"]
