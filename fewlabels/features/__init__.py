"""Features of images without labels, and simple classifiers on features."""
