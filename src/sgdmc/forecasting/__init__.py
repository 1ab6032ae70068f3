"""From a run to a kernel to a forecast, and how good it is."""
