"""The devices of a node, from what the hardware shows to a state with reasons."""
