"""A page to try a model on (the extra `demo`)."""
