"""What the pages show, a module a group of sections, named after the chapter; `plots` and `tables`
are what they share.

Measurements, networks and the thesis's tables come in; figures, tables and sentences go out.
Chapters 2 and 3 compute what they draw; nothing is timed here or kept in a run, and only notebooks
import from here.
"""
