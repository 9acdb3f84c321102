"""DNS over QUIC (RFC 9250) or over HTTP/3 on aioquic and dnspython, for the tests of this crate.

usage: quic_server.py doq|h3

Reads its certificate and its key from two lines, DER in hex. Prints its port, then answers every A query with 192.0.2.1. A name that begins with "reset" has its stream reset, one that
begins with "close" ends the connection. Ends with its standard input.
"""

import asyncio
import sys

import dns.flags
import dns.message
import dns.rrset
from aioquic.asyncio import QuicConnectionProtocol, serve
from aioquic.h3.connection import H3Connection
from aioquic.h3.events import DataReceived, HeadersReceived
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.events import StreamDataReceived
from cryptography.hazmat.primitives.serialization import load_der_private_key
from cryptography.x509 import load_der_x509_certificate


def answer(wire):
    query = dns.message.from_wire(wire)
    reply = dns.message.make_response(query)
    reply.flags |= dns.flags.RA
    reply.answer.append(dns.rrset.from_text(query.question[0].name, 60, "IN", "A", "192.0.2.1"))
    return query.question[0].name.to_text(), reply.to_wire()


class Doq(QuicConnectionProtocol):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.streams = {}

    def quic_event_received(self, event):
        if not isinstance(event, StreamDataReceived):
            return
        data = self.streams.get(event.stream_id, b"") + event.data
        self.streams[event.stream_id] = data
        if not event.end_stream:
            return
        if len(data) < 14 or int.from_bytes(data[:2], "big") != len(data) - 2 or data[2:4] != b"\0\0":
            self._quic.close(error_code=2, reason_phrase="DOQ_PROTOCOL_ERROR")
            return
        name, reply = answer(data[2:])
        if name.startswith("reset"):
            self._quic.reset_stream(event.stream_id, 1)
        elif name.startswith("close"):
            self._quic.close(error_code=0)
        else:
            self._quic.send_stream_data(event.stream_id, len(reply).to_bytes(2, "big") + reply, end_stream=True)
        self.transmit()


class Doh3(QuicConnectionProtocol):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.http = None
        self.bodies = {}

    def quic_event_received(self, event):
        if self.http is None:
            self.http = H3Connection(self._quic)
        for http_event in self.http.handle_event(event):
            self.http_event_received(http_event)
        self.transmit()

    def http_event_received(self, event):
        if isinstance(event, HeadersReceived):
            headers = dict(event.headers)
            good = (
                headers[b":method"] == b"POST"
                and headers[b":path"] == b"/dns-query"
                and headers[b"content-type"] == b"application/dns-message"
            )
            self.bodies[event.stream_id] = b"" if good else None
        elif isinstance(event, DataReceived) and self.bodies[event.stream_id] is not None:
            self.bodies[event.stream_id] += event.data
        if not event.stream_ended:
            return
        body = self.bodies.pop(event.stream_id)
        if not body:
            self.http.send_headers(event.stream_id, [(b":status", b"400")], end_stream=True)
            return
        name, reply = answer(body)
        if name.startswith("reset"):
            self._quic.reset_stream(event.stream_id, 0x102)
            return
        if name.startswith("close"):
            self._quic.close(error_code=0x100)
            return
        headers = [(b":status", b"200"), (b"content-type", b"application/dns-message")]
        self.http.send_headers(event.stream_id, headers)
        self.http.send_data(event.stream_id, reply, end_stream=True)


async def main():
    protocol = sys.argv[1]
    configuration = QuicConfiguration(is_client=False, alpn_protocols=[protocol])
    configuration.certificate = load_der_x509_certificate(bytes.fromhex(sys.stdin.readline()))
    configuration.private_key = load_der_private_key(bytes.fromhex(sys.stdin.readline()), None)
    server = await serve(
        "127.0.0.1", 0, configuration=configuration, create_protocol=Doq if protocol == "doq" else Doh3
    )
    print(server._transport.get_extra_info("sockname")[1], flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    server.close()


asyncio.run(main())
