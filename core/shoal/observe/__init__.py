"""What happened and what is: counts per function, and the snapshot that card, panel and status share."""
