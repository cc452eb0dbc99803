"""Numbers that describe images without labels."""
