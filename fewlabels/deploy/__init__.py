"""Export and the server."""
