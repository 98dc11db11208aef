"""TLS to the endpoints of a version, with the settings that Envoy gets."""

from __future__ import annotations

import ssl

from controlplane.domain import Protocol, UpstreamTls


def client_context(tls: UpstreamTls, protocol: Protocol, authorities: str) -> ssl.SSLContext:
    """Return the context of a client. `authorities` are in PEM; "" are those of this system, which take milliseconds to load.

    The context has no client certificate, because private keys stay in the store.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.set_alpn_protocols(["http/1.1" if protocol is Protocol.HTTP1 else "h2"])
    if tls.insecure_skip_verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    elif authorities:
        context.load_verify_locations(cadata=authorities)
    else:
        context.load_default_certs()
    return context
