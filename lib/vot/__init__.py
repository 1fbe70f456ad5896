"""VOT evaluation (section 3.3): datasets, the reset-based protocol, raw results, and accuracy,
robustness and EAO."""
