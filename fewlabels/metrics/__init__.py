"""Classification metrics, and statistical tests of paired runs."""
