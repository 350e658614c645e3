-- Turns, their model calls, parked snapshots, and reasoning that waits for its conversation.
-- Times are seconds since the epoch, money is a decimal as text, structs are JSON as text.

PRAGMA application_id = 0x74616774;

CREATE TABLE instances (
    id          TEXT PRIMARY KEY,
    started_at  REAL NOT NULL
) WITHOUT ROWID;

CREATE TABLE turns (
    id            TEXT PRIMARY KEY,
    face          TEXT NOT NULL,
    model         TEXT NOT NULL,
    created_at    REAL NOT NULL,
    outcome       TEXT NOT NULL CHECK (outcome IN
                  ('running', 'completed', 'failed', 'cancelled', 'rejected', 'parked', 'abandoned')),
    owner         TEXT NOT NULL,
    session_id    TEXT,
    provider      TEXT,
    served_model  TEXT,
    reason        TEXT,
    state         TEXT NOT NULL,
    committed_by  TEXT,
    states        TEXT NOT NULL,
    tools         TEXT NOT NULL,
    usage         TEXT NOT NULL,
    usage_source  TEXT NOT NULL,
    cost_usd      TEXT,
    error         TEXT,
    routing       TEXT,
    notes         TEXT NOT NULL,
    ended_at      REAL,
    instance      TEXT  -- who runs the turn; only while the outcome is 'running'
);
CREATE INDEX turns_by_time ON turns (created_at, id);
CREATE INDEX turns_by_outcome ON turns (outcome, created_at, id);
CREATE INDEX turns_by_owner ON turns (owner, created_at, id) WHERE owner <> '';
CREATE INDEX turns_by_session ON turns (session_id, created_at, id) WHERE session_id IS NOT NULL;

CREATE TABLE calls (
    turn_id        TEXT NOT NULL REFERENCES turns (id) ON DELETE CASCADE,
    number         INTEGER NOT NULL,
    attempt        INTEGER NOT NULL,
    provider       TEXT NOT NULL,
    model          TEXT NOT NULL,
    started_at     REAL NOT NULL,
    ended_at       REAL NOT NULL,
    usage          TEXT NOT NULL,
    usage_source   TEXT NOT NULL,
    cost_usd       TEXT,
    finish_reason  TEXT,
    failure        TEXT,
    response_id    TEXT,
    served_model   TEXT,
    -- Attempts begin again at 0 with each fallback candidate, so the number and the attempt alone do not tell.
    UNIQUE (turn_id, number, started_at, attempt, provider, model)
);

CREATE TABLE parks (
    turn_id     TEXT PRIMARY KEY REFERENCES turns (id) ON DELETE CASCADE,
    owner       TEXT NOT NULL,
    call_ids    TEXT NOT NULL,
    history     TEXT NOT NULL,
    model       TEXT NOT NULL,
    snapshot    BLOB NOT NULL,
    created_at  REAL NOT NULL,
    expires_at  REAL NOT NULL
);
CREATE INDEX parks_by_expiry ON parks (expires_at);

CREATE TABLE park_calls (
    owner    TEXT NOT NULL,
    call_id  TEXT NOT NULL,
    turn_id  TEXT NOT NULL REFERENCES parks (turn_id) ON DELETE CASCADE,
    PRIMARY KEY (owner, call_id, turn_id)
) WITHOUT ROWID;
CREATE INDEX park_calls_by_turn ON park_calls (turn_id);

CREATE TABLE reasoning (
    owner         TEXT NOT NULL,
    tool_call_id  TEXT NOT NULL,
    asked         TEXT NOT NULL,
    origin        TEXT NOT NULL,
    message       BLOB NOT NULL,
    created_at    REAL NOT NULL,
    PRIMARY KEY (owner, tool_call_id, asked)
);
CREATE INDEX reasoning_by_time ON reasoning (created_at);
