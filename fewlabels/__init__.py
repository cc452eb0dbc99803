"""fewlabels: from a pile of images and a handful of labels to a classifier, with the evidence."""

__version__ = "0.1.0"
