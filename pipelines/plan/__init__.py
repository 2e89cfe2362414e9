"""The night as one command: its steps, their records, and what resumes them."""
