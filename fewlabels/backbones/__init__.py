"""Backbones, classifiers and their weights on disk."""
