"""The I/O shells around the state machines: controller, node agent, owner, executor, object store, template."""
