"""Reports, made from JSON results alone; no module of this package imports torch."""
