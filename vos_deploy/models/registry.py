"""The methods there are, by the name that the command line uses."""

from __future__ import annotations

from .stm import STM

METHODS: dict[str, type[STM]] = {"stm": STM}
