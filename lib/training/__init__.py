"""Training of SiamRPN++ (thesis section 3.1.1): pairs, augmentation, anchor targets, losses,
schedules and the loop."""
