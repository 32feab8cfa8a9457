"""State machines that take bytes and the time and return bytes or events; no I/O."""
