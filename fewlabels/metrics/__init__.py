"""Figures of predictions, and paired tests."""
