"""Numbers on the command line, with names that a person understands in an error."""

import math
from typing import Any

import click


class Whole(click.IntRange):
    """A whole number within a range."""

    name = "whole number"


class Seconds(click.FloatRange):
    """A number of seconds within a range."""

    name = "number of seconds"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """The number that a text names."""
        found: float = super().convert(value, param, ctx)
        if math.isnan(found):
            # It is neither below nor above the limits of the range.
            self.fail("nan is not a number of seconds", param, ctx)
        return found
