"""What a request, a streamed chunk and an open stream cost, beside peers in the same run.

`python -m benchmarks` measures and writes the table of docs/performance.md. Upstream, client and server
are a process each, so that the server's figures hold nothing but the server.
"""
