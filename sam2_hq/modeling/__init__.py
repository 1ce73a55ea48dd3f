"""The network, at the module paths that published configs name."""
