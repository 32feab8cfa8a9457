"""The router of one room: makes producers and consumers, and drives everything that is due by the clock.

Used by the room only. It knows transports by their RTP sessions.
"""

import uuid
from collections.abc import Callable, Collection
from contextlib import AbstractContextManager, nullcontext
from random import Random
from typing import Any, Final, Protocol

from trio_sfu.media.capabilities import router_rtp_capabilities
from trio_sfu.media.consumer import Consumer
from trio_sfu.media.errors import MediaError
from trio_sfu.media.frame_mark import Layers
from trio_sfu.media.ortc import (
    get_consumable_rtp_parameters,
    get_consumer_rtp_parameters,
    get_producer_mapping,
    validate_rtp_parameters,
)
from trio_sfu.media.overload import Overload
from trio_sfu.media.parameters import MediaKind, RtpCapabilities, RtpParameters
from trio_sfu.media.producer import Producer
from trio_sfu.media.relief import Relief
from trio_sfu.media.rtp_session import RtpSession

__all__ = ["MediaTransport", "Router"]


class MediaTransport(Protocol):
    """What the router needs of a transport."""

    @property
    def session(self) -> RtpSession:
        """The transport's RTP session."""


class Router:
    """One room's media. All methods are synchronous; times come from the sessions' clocks."""

    def __init__(
        self,
        random: Random | None = None,
        batch: Callable[[], AbstractContextManager[None]] = nullcontext,
        overload: Overload | None = None,
    ) -> None:
        """``batch`` makes a context in which packets are collected, to be sent together at its end.

        ``overload``: the process's, which says how much video goes out; None: all.
        """
        self._batch: Final = batch
        self._overload: Final = overload or Overload()
        self.rtp_capabilities: Final[RtpCapabilities] = router_rtp_capabilities()
        self._random: Final = random or Random()
        self._relief: Final = Relief(self._overload, self._random.random())
        self._sessions: dict[RtpSession, None] = {}

    def add_session(self, session: RtpSession) -> None:
        """Include a transport's session in :meth:`tick`, until :meth:`remove_session`."""
        self._sessions[session] = None
        session.overload = self._overload

    def remove_session(self, session: RtpSession) -> None:
        """Undo :meth:`add_session`; a second call does nothing."""
        self._sessions.pop(session, None)

    def produce(
        self,
        transport: MediaTransport,
        kind: MediaKind,
        rtp_parameters: RtpParameters,
        app_data: dict[str, Any] | None = None,
        *,
        replacing: Collection[Producer] = (),
    ) -> Producer:
        """Make a producer on ``transport``, whose closing closes it. Raises :class:`MediaError`.

        ``replacing`` are producers of the same transport that it closes, unless it raises: the new one may have
        their SSRCs and MIDs.
        """
        validate_rtp_parameters(kind, rtp_parameters)
        mapping = get_producer_mapping(kind, rtp_parameters, self.rtp_capabilities)
        consumable = get_consumable_rtp_parameters(kind, rtp_parameters, self.rtp_capabilities, mapping)
        session = transport.session
        producer = Producer(
            str(uuid.uuid4()),
            session,
            kind,
            rtp_parameters,
            consumable,
            mapping,
            app_data or {},
            cname=rtp_parameters.rtcp.cname or f"{session.ssrc:08x}",
        )
        session.check_new(producer, replacing)
        for old in replacing:
            old.close()
        session.add_producer(producer)
        return producer

    def consume(
        self,
        transport: MediaTransport,
        producer: Producer,
        rtp_capabilities: RtpCapabilities,
        *,
        paused: bool = False,
        preferred_layers: Layers | None = None,
    ) -> Consumer:
        """Make a consumer of ``producer`` on ``transport``; the closing of either closes it.

        ``preferred_layers``: see :meth:`Consumer.set_preferred_layers`; the highest where they are not given.

        Raises :class:`MediaError` (``cannot-consume`` where the endpoint lacks the codec, ``transport-closed``,
        ``producer-not-found`` for a closed one).
        """
        session = transport.session
        if session.closed:
            raise MediaError("transport-closed", "the transport is closed")
        if producer.closed:
            raise MediaError("producer-not-found", "the producer is closed")
        ssrc = session.unused_ssrc()
        rtp_parameters = get_consumer_rtp_parameters(
            producer.consumable,
            rtp_capabilities,
            mid=session.unused_mid(),
            ssrc=ssrc,
            rtx_ssrc=ssrc + 1,
            cname=producer.cname,
        )
        consumer = Consumer(
            str(uuid.uuid4()),
            producer,
            session,
            rtp_parameters,
            paused=paused,
            preferred_layers=preferred_layers,
            first_sequence_number=self._random.randrange(0x8000),
        )
        session.add_consumer(consumer)
        producer.consumers[consumer.id] = consumer
        session.allocate()
        producer.choose_for(consumer, session.now())
        producer.tell_wanted(session.now())
        return consumer

    def tick(self, now: float) -> None:
        """Carry out what is due in all sessions; to be called every 20 ms while there are any."""
        with self._batch():
            self._relief.tick(self._sessions, now)
            for session in tuple(self._sessions):
                try:
                    session.tick(now)
                except Exception as error:
                    session.on_fault(error)
