"""One keyframe a codec: 128 x 72, all of it the dark grey #202124, for where nothing better can be shown.

The pictures were made by FFmpeg 9.0.2, each from the same source::

    ffmpeg -f lavfi -i color=c=0x202124:s=128x72:r=25,format=yuv420p -frames:v 1 -bitexact …
        -c:v libvpx -deadline good -crf 10 -b:v 200k -f ivf
        -c:v libvpx-vp9 -deadline good -crf 20 -b:v 0 -f ivf
        -c:v libx264 -profile:v baseline -preset veryslow -qp 20 -x264opts sps-id=31:keyint=1
            -bsf:v filter_units=remove_types=6 -f h264
        -c:v libaom-av1 -usage realtime -cpu-used 8 -crf 20 -f obu

and put into RTP payloads by hand: behind the payload descriptor, without IVF headers, start codes, temporal
delimiter and OBU sizes. H.264's parameter sets have the number 31, so that a stream's own are left as they are.
"""

__all__ = ["CARDS"]

_VP8 = bytes.fromhex(
    "10"  # S: begins partition 0
    "5004009d012a8000480000470885858885848802020274f24559f1b1179601aea6f71179601aea6f71179460feff2e70"
    "36acc0"
)
_VP9 = bytes.fromhex(
    "0c"  # B and E: the whole frame
    "824983420007f004760038241c181e0000306000006901ffffe01eed1ffcb87514f38400"
)
_H264 = bytes.fromhex(
    "78"  # STAP-A: SPS, PPS, IDR slice, each with its length
    "0018"
    "6742c00a0417082fe5c044000003000400000300c83c489e"
    "0007"
    "68040080e06cb2"
    "002b"
    "658804010fc462800091ac7c76fbefbefbefaebaebaebaebaebaebaebaebaebaebaebaebaebaebaebaebc0"
)
_AV1 = bytes.fromhex(
    "28"  # W is 2, N: begins a coded video sequence
    "0b"
    "080000000337f8e6d7c802"
    "30100081c00000800000b44c3a4bbb75c06d68002cc47b7bb19b6081655c41eff30ed740"
)

CARDS = {"video/vp8": _VP8, "video/vp9": _VP9, "video/h264": _H264, "video/av1": _AV1}
"""By MIME type in lower case: the one RTP payload of the keyframe."""
