"""gRPC over HTTP/2 on a unix socket: the subset that a device plugin needs.

    frames      bytes <-> HTTP/2 frames (pure)
    connection  one HTTP/2 connection as a state machine without I/O (pure)
    messages    gRPC's length prefix, status codes and trailers (pure)
    server      asyncio server: unary and server-streaming methods
    client      asyncio client: unary and server-streaming calls

docs/decisions/0001-grpc.md has the reasons and measurements.
"""
