"""The thesis "Optimization of Siamese Object Tracking Networks" (A. Ludwig, TU Wien, 2023) as a small library.

Notebooks import from here; nothing in this package reads global configuration. Imports point downwards only, in the order
cli, figures and engine_views, experiments, plots and tables, bench, deploy, calibration, thesis, vot, power, fetch, training,
engines, quantize, export, siamrpn, demo.
"""
