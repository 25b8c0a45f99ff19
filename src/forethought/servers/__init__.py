"""The wire of OpenAI-compatible servers: address, client, kinds, replies, counts. Engines and gateway use it."""
