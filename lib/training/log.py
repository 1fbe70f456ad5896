"""The log of a training: a CSV whose rows behind a resumed checkpoint are dropped."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Dict, List, Sequence

from lib.errors import InputError
from lib.files import whole_file


class TrainingLog:
    """log.csv with these columns, of which the first counts what training has seen."""

    def __init__(self, path: Path, columns: Sequence[str]) -> None:
        self.path, self.columns = path, tuple(columns)

    def start(self, done: int) -> None:
        """Write the file anew with the rows up to `done`. Raises InputError for a file that is
        another thing."""
        kept: List[Dict[str, str]] = []
        if self.path.exists():
            try:
                with self.path.open() as stream:
                    kept = [
                        row for row in csv.DictReader(stream) if int(row[self.columns[0]]) <= done
                    ]
            except (KeyError, TypeError, ValueError):
                raise InputError(f"{self.path}: not the log of a training run") from None
        with whole_file(self.path) as temporary, temporary.open("w", newline="") as stream:
            writer = csv.DictWriter(stream, self.columns)
            writer.writeheader()
            writer.writerows(kept)

    def add(self, *values: object) -> None:
        """Append a row."""
        with self.path.open("a", newline="") as stream:
            csv.writer(stream).writerow(values)
