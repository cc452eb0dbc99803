"""The commands, each in a file of its name; what several share is in ``options``."""
