"""The streams that a pipeline sends to FFmpeg: one feed between each of its consumers and the transport's sockets.

FFmpeg's compositor and mixer wait for the slowest of their inputs, so one participant who mutes, freezes or leaves
would stop the room's stream. A feed never stops: it sends what the participant sends, cleaned and put on one timeline
(:mod:`trio_sfu.hls.timeline`) with numbers of its own, and fills in where that is missing. For the pipeline alone;
nothing here does I/O, and the owner drives it with :meth:`Feed.tick`.
"""

from trio_sfu.hls.audio_feed import AudioFeed
from trio_sfu.hls.clocks import ClockOffset
from trio_sfu.hls.feed_base import Feed, FeedCounters
from trio_sfu.hls.timeline import Timeline
from trio_sfu.hls.video_feed import VideoFeed

__all__ = ["AudioFeed", "ClockOffset", "Feed", "FeedCounters", "Timeline", "VideoFeed"]
