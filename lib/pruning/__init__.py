"""Pruning of the backbone with CURL (thesis section 3.6)."""
