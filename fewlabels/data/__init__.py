"""Read files of many formats into batches of uint8 images with labels."""
