"""`fewlabels check`: unreadable files, duplicates, leaks, label issues, outliers."""
