"""What each key of the configuration means, as docs/configuration.md says it. A test keeps both equal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

MEANINGS: Final[Mapping[str, str]] = {
    "providers": (
        "the model providers by id, in order of preference; an id is 1 to 64 letters, digits, `_`, `.` or `-`"
    ),
    "providers.<id>.module": "the provider module; absent, the id itself",
    "providers.<id>.config": "settings for the module",
    "provider": "the provider for `trio-agent run`",
    "provider.module": "the provider module",
    "provider.config": "settings for the module",
    "server": "limits and manners of the HTTP side",
    "server.preflight_timeout": (
        "how long a turn may wait for its first content before status 200 goes out; 0 answers at once"
    ),
    "server.max_preflight_timeout": "the most that the header `X-Preflight-Timeout` may ask for",
    "server.keepalive_interval": "silence in a stream after which a keepalive is sent",
    "server.turn_timeout": "the longest that a turn may run",
    "server.host_tool_ttl": "how long a turn waits for the results of the caller's tools",
    "server.session_wait": "how long a response waits for another one that is written to its conversation",
    "server.in_stream_errors": (
        "how a failure in a stream is shown: the format's error event, text in the answer, or text and "
        "then the event"
    ),
    "server.stream_default": "whether a chat completion without `stream` is streamed",
    "server.max_request_bytes": "the largest request body; more is status 413",
    "server.max_body_bytes_in_flight": (
        "all request bodies that are arriving, together; more are status 503. At least `max_request_bytes`"
    ),
    "server.max_history_bytes": (
        "the most that a request can go on from of what the server keeps, counted as the JSON in its "
        "store; more is status 400"
    ),
    "server.max_header_bytes": "the largest request head; more is status 431",
    "server.max_depth": "the deepest nesting of a request's JSON; at most 256",
    "server.max_parts": "the most messages and content parts of a request",
    "server.max_concurrent_turns": "turns at once; more wait",
    "server.max_queued_turns": "how many wait for one of those to end; more are status 429",
    "server.queue_timeout": "how long one waits, then it is status 429",
    "server.max_connections": "connections at once",
    "server.header_timeout": "the longest that a request's head may take to arrive",
    "server.body_timeout": "the longest that a request's body may take to arrive",
    "server.idle_timeout": "after which an idle connection is closed",
    "server.websocket_idle_timeout": "after which a WebSocket is closed on which nothing is asked for",
    "server.write_timeout": "after which a client that does not read is cut off",
    "server.shutdown_delay": "how long a stopping server still takes new connections and turns after "
    "`/health/ready` has turned to 503, so that whoever sends requests to it can notice; comes before "
    "`shutdown_grace`",
    "server.shutdown_grace": "how long running turns may go on when the server stops; 0 stops them at once",
    "server.trusted_proxies": "addresses and networks (`10.0.0.0/8`) of the proxies whose `X-Forwarded-For` "
    "says who a client is",
    "server.cors_origins": "the web origins whose pages may call the server",
    "server.api_key": "the key that clients must send; the flag and the variable win over it",
    "agent": "what every turn gets",
    "agent.system_prompt": "goes before every conversation",
    "agent.max_model_calls": "the most model calls of one turn",
    "agent.max_cost_usd": "the most that one turn may cost",
    "agent.max_answer_chars": (
        "the most characters of text, reasoning and arguments that one model call may answer with; at "
        "least 1000"
    ),
    "agent.tool_timeout": "the longest that one tool on the server may run",
    "agent.tools": "tools that run on the server",
    "host_tools": "tools that the caller runs, offered in every turn",
    "host_tools[].name": "1 to 64 letters, digits, `_` or `-`",
    "host_tools[].description": "tells the model what the tool is for",
    "host_tools[].parameters": "a JSON Schema of the arguments, which are one object",
    "routing": "other names for models",
    "routing.aliases": "a name, and the model that it stands for; the model must be served",
    "routing.roles": "a role, and its models or aliases in order of preference",
    "prices": "prices by model, or by provider and model (`openai/gpt-5`)",
    "prices.<name>.input": "tokens of the prompt",
    "prices.<name>.output": "tokens of the answer",
    "prices.<name>.cached_input": "tokens read from the vendor's prompt cache; absent, as `input`",
    "prices.<name>.cache_write": "tokens written to that cache; absent, as `input`",
    "prices.<name>.cache_write_1h": "tokens written to it for an hour; absent, as `cache_write`",
    "prices.<name>.reasoning": "tokens of reasoning; absent, as `output`",
    "store": "where turns are kept, and what is kept beside them",
    "store.url": "`sqlite:///absolute/path`; absent, the database in the home",
    "store.retention": "how long what lies beside turns is kept",
    "store.retention.responses": "how long a response and a conversation are kept after they were used last",
    "store.retention.sessions": "how long the transcript of a session is kept after it was used last",
    "store.retention.events": (
        "how long an event log is kept after its end. An idempotency key goes with its log, so less than "
        "a day shortens that day"
    ),
    "store.max_responses": (
        "responses that are kept, and event logs; beyond it those go that were unused longest"
    ),
    "store.max_conversations": "the same for conversations",
    "store.max_sessions": "the same for sessions",
    "$schema": "for editors: where the JSON Schema of this file is; trio-agent does not read it",
}
"""By path, as `describe.keys` writes it. Links are left out."""
