"""Asks over DoT, DoH, DoQ and DoH3, ten names each, and prints each name with its address.

arguments: NAME-IN-THE-CERTIFICATE CA-FILE TLS-PORT HTTPS-PORT QUIC-PORT H3-PORT
"""

import ssl
import sys

import dns.edns
import dns.message
import dns.query
import dns.quic

HERE = "127.0.0.1"
server_name, ca = sys.argv[1:3]
tls_port, https_port, quic_port, h3_port = map(int, sys.argv[3:7])


def ask(way, exchange):
    for number in range(10):
        name = f"{way}-{number}.example"
        query = dns.message.make_query(name, "A", use_edns=0, want_dnssec=True, pad=128)
        answer = exchange(query)
        # RFC 8467: an answer to a padded query is padded.
        assert any(option.otype == dns.edns.PADDING for option in answer.options), answer
        print(name, answer.answer[0][0])


def over_http(port, post, version):
    url = f"https://{server_name}:{port}/dns-query"
    return lambda query: dns.query.https(
        query, url, timeout=10, verify=ca, post=post, bootstrap_address=HERE, http_version=version
    )


context = ssl.create_default_context(cafile=ca)
context.set_alpn_protocols(["dot"])
ask("tls", lambda query: dns.query.tls(query, HERE, 10, tls_port, ssl_context=context, server_hostname=server_name))
ask("https-get", over_http(https_port, False, dns.query.HTTPVersion.H2))
ask("https-post", over_http(https_port, True, dns.query.HTTPVersion.H2))
with dns.quic.SyncQuicManager(verify_mode=ca, server_name=server_name) as manager:
    connection = manager.connect(HERE, quic_port)
    ask("quic", lambda query: dns.query.quic(query, HERE, 10, quic_port, connection=connection))
ask("h3-get", over_http(h3_port, False, dns.query.HTTPVersion.H3))
ask("h3-post", over_http(h3_port, True, dns.query.HTTPVersion.H3))
