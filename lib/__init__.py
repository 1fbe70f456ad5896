"""The thesis "Optimization of Siamese Object Tracking Networks" (A. Ludwig, TU Wien, 2023) as a
small library.

Notebooks import from here; nothing in this package reads global configuration. Imports point
downwards only, line by line and within a line from left to right (tests/test_setup.py):

    cli, options, batch, book, pages          commands; notebooks as a batch and as a book
    chapters                                  what several pages show
    measure, published                        variants; quality on all cores, speed alone
    runs, absent                              a run on disk; what it lacks
    deploy, recalibrate, calibration, power   engines from weights; their ranges and power
    pruning, training                         CURL; training of trackers and classifiers
    zoo, quantize, engines, export            PyTorch, OpenVINO, TensorRT; INT8; ONNX
    thesis, fetch, siamrpn, engines.base      the thesis's numbers; the tracker
    video, vot, demo                          frames, evaluation, the generated benchmark
    environment, progress, files, errors
"""
