"""`fewlabels check`: broken files, near-duplicates, label issues, outliers."""
