"""Files of weights, of any origin: fetched, and read as arrays, with nothing in them run."""
