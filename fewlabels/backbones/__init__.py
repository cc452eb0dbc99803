"""Backbones, classifiers, inference and weight files."""
