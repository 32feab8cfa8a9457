"""The SFU itself: negotiation, routing, and the bookkeeping of RTP streams; no I/O."""
