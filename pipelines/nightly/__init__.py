"""The nightly job: its graph, what is prepared before it, and what is checked and published after it."""
