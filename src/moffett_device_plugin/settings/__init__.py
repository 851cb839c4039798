"""Every setting: flag, environment variable, place in the configuration file."""
