"""The systems, each a package, and what they share."""
