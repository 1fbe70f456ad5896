"""What the pages show, a module a group of sections, named after the chapter. Views only: measurements, networks and the thesis's
tables come in, figures, tables and sentences go out; nothing is measured here, and nothing outside this package imports it.
"""
