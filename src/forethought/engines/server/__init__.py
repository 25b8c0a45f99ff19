"""Engine `openai`: any OpenAI-compatible server. `engine.py` is the engine; the other files are its parts."""
