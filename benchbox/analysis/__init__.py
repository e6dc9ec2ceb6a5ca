"""Statistics and summaries: pure functions of what a run left on disk."""
