"""Node labels that describe the SPUs, and the feature file for NFD."""
