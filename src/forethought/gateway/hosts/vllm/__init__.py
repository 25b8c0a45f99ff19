"""vLLM's own server. Imports nothing: the plug-in may not fail, nor be slow, where vLLM loads it."""
