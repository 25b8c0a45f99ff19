"""Any OpenAI-compatible server, over HTTP: the gateway stands in front of it as a process of its own."""
