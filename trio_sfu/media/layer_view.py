"""What is left of an incoming stream when the layers above some are left out: one view for all who want the same.

Owned by the :class:`~trio_sfu.media.incoming_stream.IncomingStream`. A view numbers its packets anew, so that what is
left out makes no holes, and keeps them for retransmission; consumers see packets of views only and shift their numbers
once more. The view of everything, which most consumers have, changes nothing and costs nothing.

But for one thing, where there are several spatial layers: a receiver decodes a picture when it has the packet with the
marker. An encoder that runs out of bits may leave layers out of a picture, and Chromium's for VP9 sets the marker
nowhere then: viewers lose the picture and all that refer to it, up to the next keyframe if it is of the lowest temporal
layer. So where a lower layer's frame ends without a marker, its last packet waits for the next one, which says whether
the picture ends there. Nobody could have shown anything earlier.
"""

from typing import TYPE_CHECKING, Final

from trio_sfu.media.capabilities import DEPENDENCY_DESCRIPTOR_ID
from trio_sfu.media.frame_mark import EVERYTHING, FrameMark, Layers
from trio_sfu.media.packet import Batch, Packet, empty_packet, with_extension, with_ids
from trio_sfu.media.packet_cache import PacketCache
from trio_sfu.media.sequence_map import PictureMap, SequenceMap
from trio_sfu.wire.dependency_descriptor import with_active_decode_targets
from trio_sfu.wire.errors import BadPacket

if TYPE_CHECKING:
    from trio_sfu.media.consumer import Consumer
    from trio_sfu.media.incoming_stream import IncomingStream

__all__ = ["LayerView", "may_cross", "next_step"]

_MARKER: Final = 0x80
# How old a keyframe may be for a consumer to begin with it, and how much may be sent at once for that.
_REPLAY_SECONDS: Final = 0.5
_REPLAY_OCTETS: Final = 250_000


class LayerView:
    """The packets of ``stream`` that belong to ``layers``."""

    __slots__ = (
        "_announced",
        "_held",
        "_held_number",
        "_numbers",
        "_pictures",
        "cache",
        "closes_picture_ids",
        "consumers",
        "is_whole",
        "layers",
        "stream",
    )

    def __init__(self, stream: "IncomingStream", layers: Layers, cache: PacketCache) -> None:
        """``cache``: the stream's own for the view of everything, which the stream fills, else an empty one."""
        # Given
        self.stream: Final = stream
        self.layers: Final = layers
        self.cache: Final = cache
        # Owned
        self.consumers: tuple[Consumer, ...] = ()
        """Who gets its packets; replaced as a whole, never changed in place."""
        self._numbers: SequenceMap | None = None
        self._pictures: PictureMap | None = None
        self._announced = False  # the decode targets that are active
        self._held: Packet | None = None
        """The stream's newest packet, under the view's number, while it waits for the one after it."""
        self._held_number = 0  # the one that it came with
        # Derived
        self.is_whole: Final = layers == EVERYTHING
        # VP8 receivers wait for picture ids that are missing; VP9's references count them (RFC 9628, section 4.2).
        self.closes_picture_ids: Final = stream.mime_type.lower() == "video/vp8"

    def __repr__(self) -> str:
        return f"<LayerView of {self.stream.ssrc:#x}, {self.layers}>"

    def attach(self, consumer: "Consumer") -> None:
        """Let ``consumer`` have the packets from now on; a second call does nothing."""
        if consumer not in self.consumers:
            self.consumers = (*self.consumers, consumer)

    def detach(self, consumer: "Consumer") -> None:
        """The opposite."""
        self.consumers = tuple(each for each in self.consumers if each is not consumer)
        if not self.consumers:
            self._held = None

    def interrupt(self) -> None:
        """What comes next is not forwarded."""
        self._held = None
        if not self.is_whole:
            self.restart()  # what it would have to know of the numbers is missing afterwards

    def restart(self) -> None:
        """The sender has begun anew, with other numbers."""
        self._held = None
        self._numbers = self._pictures = None
        self._announced = False
        self.cache.clear()

    def forward(self, batch: Batch, now: float) -> None:
        """Give the view's part of ``batch`` to its consumers.

        A consumer in whose handling a bug shows is told, and the others get their packets all the same.
        """
        if not self.is_whole:
            self._give(self.take(batch.packets), now)
        elif self.stream.top.spatial:
            packets = self._with_ends(batch.packets)
            if packets == batch.packets:
                self._hand_out(batch, now)
            else:
                self._give(packets, now)
        else:
            self._hand_out(batch, now)

    def release(self, now: float) -> None:
        """Give consumers what waited for a packet that has come; to be called before one of them goes elsewhere."""
        if self._held is not None:
            self._give(self._with_ends([]) if self.is_whole else self.take([]), now)

    def _give(self, packets: list[Packet], now: float) -> None:
        if packets:
            self._hand_out(Batch(packets), now)

    def _hand_out(self, batch: Batch, now: float) -> None:
        for consumer in self.consumers:
            try:
                consumer.forward(self, batch, now)
            except Exception as error:
                consumer.fault(error)

    def entry(self, packet: Packet) -> tuple[int, int | None]:
        """The view's sequence number and picture id from which on there is what comes with ``packet`` and after it.

        ``packet`` follows on all that has come before; whether it belongs to the view does not matter.
        """
        ids = packet.mark.ids if packet.mark is not None else None
        number, picture_id = packet.sequence_number, ids.picture_id if ids is not None else None
        if self._numbers is not None:
            number = self._numbers.outgoing_of_next(number)
        if self._pictures is not None and picture_id is not None:
            picture_id = self._pictures.outgoing_of_next(picture_id)
        return number, picture_id

    def take_late(self, packets: list[Packet]) -> None:
        """Keep what was missing when the last consumer left: it may be asked for still."""
        numbers = self._numbers
        if numbers is not None:
            late = [packet for packet in packets if numbers.has_passed(packet.sequence_number)]
            if late:
                self.take(late)

    def take(self, packets: list[Packet]) -> list[Packet]:
        """The view's part of what has come, under the view's numbers; it is kept for retransmission.

        A late packet of a layer that is left out leaves its number to an empty one, else the receiver would wait for
        it. The last one may have to wait for what follows, and comes with that.
        """
        taken = self._released()
        if self._numbers is None and packets:
            self._numbers = SequenceMap(packets[0].sequence_number)
        for packet in packets:
            assert self._numbers is not None
            mark = packet.mark
            if mark is None or self.layers.hold(mark.layers):
                number = self._numbers.keep(packet.sequence_number)
                if number is not None:
                    kept = self._renumbered(packet._replace(sequence_number=number))
                    if mark is not None and self._may_end(kept, mark):
                        taken += self._judged(kept, packet.sequence_number)
                    else:
                        taken.append(kept)
                continue
            pictures = self._pictures_of(mark)
            if pictures is not None and mark.ids is not None:
                pictures.drop(mark.ids.picture_id)
            number = self._numbers.drop(packet.sequence_number)
            if number is not None:
                taken.append(empty_packet(packet, number))
        for packet in taken:
            self.cache.add(packet)
        return taken

    def _with_ends(self, packets: list[Packet]) -> list[Packet]:
        """Of a view of everything: what has come, and each picture's last packet with the marker."""
        taken = self._released()
        for packet in packets:
            mark = packet.mark
            if mark is not None and self._may_end(packet, mark):
                taken += self._judged(packet, packet.sequence_number)
            else:
                taken.append(packet)
        return taken

    def _may_end(self, packet: Packet, mark: FrameMark) -> bool:
        """Whether only the packet after it tells that this is the last of its picture, as far as the view has it."""
        return (
            mark.ends_frame
            and not packet.head & _MARKER
            and mark.layers.spatial < min(self.layers.spatial, self.stream.top.spatial)
        )

    def _judged(self, packet: Packet, number: int) -> list[Packet]:
        """The packet that came under ``number``, with the marker if it needs it; nothing while that is not known."""
        following = self.stream.cache.get(number + 1 & 0xFFFF)
        if following is None:
            if number != self.stream.newest:
                return [packet]  # the one after it is missing
            self._held, self._held_number = packet, number
            return []
        mark = following.mark
        if following.timestamp != packet.timestamp or (mark is not None and mark.layers.spatial > self.layers.spatial):
            packet = packet._replace(head=packet.head | _MARKER)
            if self.is_whole:
                self.cache.replace(packet)
        return [packet]

    def _released(self) -> list[Packet]:
        """What was held, if it need not be any longer."""
        held, self._held = self._held, None
        return self._judged(held, self._held_number) if held is not None else []

    def _pictures_of(self, mark: FrameMark) -> PictureMap | None:
        """The numbering of pictures, where there is any to keep without holes."""
        if self._pictures is None and self.closes_picture_ids and mark.ids is not None and mark.ids.picture_id_bits:
            self._pictures = PictureMap(mark.ids.picture_id, mark.ids.picture_id_bits)
        return self._pictures

    def _renumbered(self, packet: Packet) -> Packet:
        """The packet with marker, picture id and descriptor as they are without what is left out."""
        mark = packet.mark
        if mark is None:
            return packet
        if mark.ends_frame and mark.layers.spatial == self.layers.spatial:
            packet = packet._replace(head=packet.head | _MARKER)  # the last of its picture now
        pictures = self._pictures_of(mark)
        if pictures is not None and mark.ids is not None:
            picture_id = pictures.keep(mark.ids.picture_id)
            if picture_id is not None and picture_id != mark.ids.picture_id:
                packet = with_ids(packet, mark.ids._replace(picture_id=picture_id))
        elif mark.dependency is not None and (mark.dependency.structure is not None or not self._announced):
            packet = self._announce(packet)
        return packet

    def _announce(self, packet: Packet) -> Packet:
        """Say which decode targets there still are (AV1 RTP specification, A.8.3), where the descriptor goes on."""
        value = packet.extension(DEPENDENCY_DESCRIPTOR_ID)
        structure = self.stream.dependency_structure
        if value is None or structure is None:
            return packet
        try:
            value = with_active_decode_targets(value, structure, structure.targets_up_to(*self.layers))
            packet = with_extension(packet, DEPENDENCY_DESCRIPTOR_ID, value)
        except BadPacket:  # too long for an extension now
            return packet
        self._announced = True
        return packet

    def recent_group(self, now: float) -> Batch | None:
        """The last keyframe and what has been forwarded since, where that is recent and small enough to be sent again.

        It lets a consumer begin at once that comes too late for a keyframe, and too early for the next: see
        :mod:`trio_sfu.media.keyframes` for why the sender would not make another one now.
        """
        keyframes = self.stream.keyframes
        if keyframes is None or now - keyframes.last_keyframe > _REPLAY_SECONDS:
            return None
        group = self.cache.since_keyframe(newest=self.stream.pending_count if self.is_whole else 0)
        if self._held is not None:
            group = [packet for packet in group if packet is not self._held]  # it comes by itself, and never twice
        if not group or sum(packet.size for packet in group) > _REPLAY_OCTETS:
            return None
        return Batch(group)


def next_step(current: Layers, wanted: Layers) -> Layers:
    """How far a consumer of ``current`` layers can go towards ``wanted`` at once.

    Down in one step; up to a spatial layer together with all else, since it takes a keyframe; up to temporal ones one
    by one, since each layer's own frames say where it may begin.
    """
    if wanted.spatial < current.spatial or wanted.temporal < current.temporal:
        return Layers(min(current.spatial, wanted.spatial), min(current.temporal, wanted.temporal))
    if wanted.spatial > current.spatial:
        return wanted
    return Layers(wanted.spatial, min(current.temporal + 1, wanted.temporal))


def may_cross(packet: Packet, current: Layers, step: Layers) -> bool:
    """Whether a consumer of ``current`` layers may go over to ``step``, from :func:`next_step`, with this packet."""
    mark = packet.mark
    if mark is None or not mark.begins_picture:
        return False
    if packet.keyframe:
        return True
    if step.spatial > current.spatial:
        return False
    if step.temporal > current.temporal:
        return mark.sync >> step.temporal & 1 != 0
    return True
