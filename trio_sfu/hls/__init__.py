"""The room as a live stream: FFmpeg per room, its output packaged as HLS."""
