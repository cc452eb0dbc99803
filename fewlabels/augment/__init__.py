"""Random views of whole batches."""
