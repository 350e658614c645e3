-- Answers with their items, event logs, idempotency keys, conversations, transcripts of sessions.
-- `used_at` is the time of the last use, right to the hour. Blobs stand last: SQLite reads a row from its
-- beginning, and what is asked for most often should not be behind megabytes.

CREATE TABLE answers (
    id               TEXT PRIMARY KEY,
    owner            TEXT NOT NULL,
    turn_id          TEXT NOT NULL,
    face             TEXT NOT NULL,
    model            TEXT NOT NULL,
    created_at       REAL NOT NULL,
    status           TEXT NOT NULL CHECK (status IN
                     ('queued', 'in_progress', 'completed', 'incomplete', 'failed', 'cancelled')),
    background       INTEGER NOT NULL,
    previous_id      TEXT,
    conversation_id  TEXT,
    used_at          REAL NOT NULL,
    messages         BLOB NOT NULL,
    body             BLOB NOT NULL
);
CREATE INDEX answers_by_use ON answers (used_at) WHERE status NOT IN ('queued', 'in_progress');
CREATE INDEX answers_running ON answers (turn_id) WHERE status IN ('queued', 'in_progress');

CREATE TABLE items (
    holder           TEXT NOT NULL,  -- the answer or the conversation in whose list it is
    id               TEXT NOT NULL,
    position         INTEGER NOT NULL,
    owner            TEXT NOT NULL,
    direction        TEXT NOT NULL CHECK (direction IN ('input', 'output')),
    answer_id        TEXT,
    conversation_id  TEXT,
    item             BLOB NOT NULL,
    UNIQUE (holder, id)
);
CREATE INDEX items_in_order ON items (holder, position);
CREATE INDEX items_by_id ON items (owner, id);

CREATE TABLE logs (
    id          TEXT PRIMARY KEY,
    owner       TEXT NOT NULL,
    turn_id     TEXT NOT NULL,
    face        TEXT NOT NULL,
    created_at  REAL NOT NULL,
    ended_at    REAL,
    broken      INTEGER NOT NULL,
    head        BLOB NOT NULL
);
CREATE INDEX logs_by_end ON logs (ended_at) WHERE ended_at IS NOT NULL;
CREATE INDEX logs_running ON logs (turn_id) WHERE ended_at IS NULL;

CREATE TABLE log_entries (
    log_id  TEXT NOT NULL REFERENCES logs (id) ON DELETE CASCADE,
    number  INTEGER NOT NULL,  -- of the first batch in it
    count   INTEGER NOT NULL,  -- of its batches
    data    BLOB NOT NULL,
    UNIQUE (log_id, number)
);

CREATE TABLE idempotency_keys (
    owner        TEXT NOT NULL,
    scope        TEXT NOT NULL,
    key          TEXT NOT NULL,
    fingerprint  TEXT NOT NULL,
    log_id       TEXT NOT NULL,
    created_at   REAL NOT NULL,
    instance     TEXT NOT NULL,  -- who has taken it
    PRIMARY KEY (owner, scope, key)
) WITHOUT ROWID;
CREATE INDEX idempotency_keys_by_log ON idempotency_keys (log_id);
CREATE INDEX idempotency_keys_by_time ON idempotency_keys (created_at);

CREATE TABLE conversations (
    id          TEXT PRIMARY KEY,
    owner       TEXT NOT NULL,
    created_at  REAL NOT NULL,
    writer      TEXT,  -- the answer that is being written to it
    instance    TEXT,  -- who writes it; only while there is a writer
    used_at     REAL NOT NULL,
    metadata    BLOB NOT NULL
);
CREATE INDEX conversations_by_use ON conversations (used_at) WHERE writer IS NULL;
CREATE INDEX conversations_claimed ON conversations (instance) WHERE writer IS NOT NULL;

CREATE TABLE conversation_entries (
    number           INTEGER PRIMARY KEY,
    conversation_id  TEXT NOT NULL REFERENCES conversations (id) ON DELETE CASCADE,
    source           TEXT,  -- the answer that it came from, and when: a repeat replaces it
    messages         BLOB NOT NULL,
    UNIQUE (conversation_id, source)
);

CREATE TABLE sessions (
    owner    TEXT NOT NULL,
    id       TEXT NOT NULL,
    used_at  REAL NOT NULL,
    UNIQUE (owner, id)
);
CREATE INDEX sessions_by_use ON sessions (used_at);

CREATE TABLE nodes (
    id          TEXT PRIMARY KEY,
    session_id  TEXT NOT NULL,
    owner       TEXT NOT NULL,
    turn_id     TEXT NOT NULL,
    digest      TEXT NOT NULL,
    length      INTEGER NOT NULL,
    created_at  REAL NOT NULL,
    parent_id   TEXT,
    messages    BLOB NOT NULL,
    FOREIGN KEY (owner, session_id) REFERENCES sessions (owner, id) ON DELETE CASCADE
);
CREATE INDEX nodes_by_time ON nodes (owner, session_id, created_at);
CREATE INDEX nodes_by_digest ON nodes (owner, session_id, digest);
CREATE INDEX nodes_by_parent ON nodes (parent_id);
