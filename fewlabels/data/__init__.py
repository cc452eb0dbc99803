"""From files to whole batches of uint8 images with labels."""
