"""The examples: their pages, and what each of them does."""
