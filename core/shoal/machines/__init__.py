"""Sans-IO state machines: events in, actions out. No asyncio, no clock, no sockets (see each module)."""
