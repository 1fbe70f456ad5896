"""Measuring variants of the tracker: quality on all cores at once, speed alone on the machine
(chapter 4)."""
