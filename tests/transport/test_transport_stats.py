"""What a transport tells of itself for statistics, in mediasoup's words."""

from tests.transport.test_webrtc import connected, server


async def test_states_and_tuple() -> None:
    async with server("127.0.0.1", "::1") as made:
        transport = await made.transport()
        assert (transport.ice_state, transport.dtls_state, transport.ice_selected_tuple) == ("new", "new", None)
        transport.close()
        assert (transport.ice_state, transport.dtls_state) == ("closed", "new")
        async with connected(made, candidate=1) as (other, _):
            assert (other.ice_state, other.dtls_state) == ("connected", "connected")
            both = other.ice_selected_tuple
            assert both is not None
            assert both.local_address == both.local_ip == both.remote_ip == "::1"
            assert both.local_port == made.endpoint.sockets[1].port != both.remote_port
            assert both.protocol == "udp"
            other.close()
            assert (other.ice_state, other.dtls_state) == ("closed", "closed")
