"""Trial schedulers: who stops, pauses and clones trials."""
