"""The only files that import httpx, aiohttp and websockets; foreign errors are translated here."""
