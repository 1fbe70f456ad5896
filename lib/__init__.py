"""The thesis "Optimization of Siamese Object Tracking Networks" (A. Ludwig, TU Wien, 2023) as a
small library.

Notebooks import from here; nothing in this package reads global configuration. Imports point
downwards only, line by line and within a line from left to right (tests/test_setup.py):

    cli                   the command line
    book                  the Sphinx extension; notebooks as a batch; commands on both
    guard, options        what every command runs inside, and how its options are declared
    report                what several pages show: tables, figures, claims, the thesis's numbers
    doctor                what a machine has for a profile, and what it lacks
    track                 one target through a video, with any engine
    measure               variants, a run on disk, quality on all cores, speed alone, power
    pruning               CURL: scores, choice, surgery, recalibration
    training              pairs, losses, one loop; trackers and classifiers
    engines               export, INT8, calibration; PyTorch, OpenVINO, TensorRT; weights to engines
    video, vot            frames; dataset, protocol, metrics
    demo, demo_scenes     the generated benchmark
    fetch, siamrpn        downloads; network, crop, tracker, and what a tracker asks of an engine
    environment, progress, files, reading, errors
"""
