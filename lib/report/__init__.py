"""What pages show: the views of chapter 4, of the conclusion and the appendices, a module a group of
sections; `plots`, `tables` and `theory` are shared by several pages.

Measurements, networks and the thesis's tables come in; figures, tables and sentences go out.
Nothing is timed here or kept in a run, and only notebooks import from here. Pages of chapters 2 and
3 hold their own code.
"""
