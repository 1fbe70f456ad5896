"""The thesis "Optimization of Siamese Object Tracking Networks" (A. Ludwig, TU Wien, 2023) as a small library.

Notebooks import from here; nothing in this package reads global configuration. Imports point downwards only, in the order
cli, experiments, plots and tables, thesis, vot, power, pruning, training, engines, export, quantize, siamrpn, demo.
"""
