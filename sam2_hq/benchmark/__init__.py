"""How fast a model is, measured by one protocol for pictures and for videos."""
