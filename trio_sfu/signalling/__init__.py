"""The TCP front door: HTTP, WebSocket, Engine.IO, Socket.IO, and the requests of a room."""
