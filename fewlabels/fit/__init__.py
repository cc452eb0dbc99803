"""From labels to a classifier."""
