"""Searchers: who proposes configurations."""
