"""The decision inside other programs: `litellm` is a hook of LiteLLM's proxy."""
