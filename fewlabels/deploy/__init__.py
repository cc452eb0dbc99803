"""Export a model to one file, or serve it over HTTP."""
