"""Reproduction of the SimSiam tutorial: its experiments, with the tutorial's own settings."""
