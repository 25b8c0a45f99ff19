"""Engine `openai`: any OpenAI-compatible server. `engine.py` is the engine; each other file is one noun it uses."""
