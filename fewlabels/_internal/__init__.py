"""Helpers for all packages: errors, files, seeding, tensors on disk, environment."""
