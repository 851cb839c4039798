"""Generic parts: logging, errors, inotify, counters. They know nothing of SPUs."""
