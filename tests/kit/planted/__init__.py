"""Errors to plant, one at a time, to see whether verification finds them.

Each entry of `ERRORS` makes one small part of the package wrong while its context is open; what it
breaks is a mistake that somebody could make. `tools/who_catches.py` lists who catches which.
"""

from planted import analysis, emission
from planted.register import ERRORS

__all__ = ["ERRORS", "analysis", "emission"]
