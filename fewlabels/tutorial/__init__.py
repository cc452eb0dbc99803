"""The tutorial, arm by arm, at its own settings: the baseline we measure ourselves against."""
