"""Random augmentation of whole batches."""
