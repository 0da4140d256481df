"""Workloads on shoal. Each module brings one, and imports what it needs only when it is used."""
