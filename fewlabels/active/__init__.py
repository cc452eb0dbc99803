"""Active learning: select the images to label next."""
