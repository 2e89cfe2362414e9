"""Tonight against earlier nights, from the files of both."""
