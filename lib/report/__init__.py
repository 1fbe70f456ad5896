"""What several pages show: tables, figures and comparisons, the thesis's numbers and its arithmetic,
and its claims with their verdicts.

Measurements, networks and the thesis's tables come in; figures, tables and sentences go out.
Nothing is timed here or kept in a run, and only notebooks import from here. What one page shows
stands in that page.
"""
