"""Small notebooks, as files keep them."""

from __future__ import annotations

from typing import Any

KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}


def markdown(source: str) -> dict[str, Any]:
    return {"cell_type": "markdown", "metadata": {}, "source": source.splitlines(True)}


def notebook(*cells: str | dict[str, Any], parameters: str = "", **about: Any) -> dict[str, Any]:
    """cells: code, or cells of another kind. parameters: code of a cell with that tag, the first.
    about: the notebook's metadata for `lib.book`."""
    made = [{"tags": ["parameters"], "source": parameters}] if parameters else []
    made += [{"tags": [], "source": each} if isinstance(each, str) else each for each in cells]
    written = []
    for number, each in enumerate(made):
        if "cell_type" not in each:
            each = {
                "cell_type": "code",
                "metadata": {"tags": each["tags"]},
                "source": each["source"].splitlines(True),
                "outputs": [],
                "execution_count": None,
            }
        written.append({**each, "id": f"cell-{number}"})
    return {
        "nbformat": 4,
        "nbformat_minor": 5,
        "metadata": {"kernelspec": KERNEL, "siambook": about},
        "cells": written,
    }
