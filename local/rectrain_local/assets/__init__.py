"""Where the programs of a local cluster come from. See `resolve` for the order of the ways."""
