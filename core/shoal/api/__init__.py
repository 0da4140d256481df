"""What users call, and the door between their threads and the event loop."""
