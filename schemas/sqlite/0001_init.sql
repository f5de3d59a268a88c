-- Access, contexts, runs, logs and events. Times are UTC microseconds; digests are `algorithm:hex`.
-- Every table is keyed by registry, of which there is one today.

-- The newest time that a commit has seen: the clock never starts before it.
CREATE TABLE store_clock (
    only   INTEGER PRIMARY KEY CHECK (only = 1),
    newest INTEGER NOT NULL
) STRICT;

CREATE TABLE registries (
    id          INTEGER PRIMARY KEY,
    name        TEXT NOT NULL,
    run_counter INTEGER NOT NULL CHECK (run_counter >= 0),
    created     INTEGER NOT NULL
) STRICT;

-- Who acts.
CREATE TABLE principals (
    registry_id INTEGER NOT NULL REFERENCES registries (id),
    name        TEXT NOT NULL,
    created     INTEGER NOT NULL,
    PRIMARY KEY (registry_id, name)
) STRICT, WITHOUT ROWID;

-- Access tokens; the secret half is known to its holder alone.
CREATE TABLE tokens (
    registry_id INTEGER NOT NULL,
    id          TEXT NOT NULL,
    principal   TEXT NOT NULL,
    secret_hash TEXT NOT NULL,
    scopes      TEXT NOT NULL CHECK (json_valid(scopes)),
    created     INTEGER NOT NULL,
    expires     INTEGER,
    revoked     INTEGER,
    PRIMARY KEY (registry_id, id),
    FOREIGN KEY (registry_id, principal) REFERENCES principals (registry_id, name)
) STRICT, WITHOUT ROWID;

-- Newest first, as they are listed.
CREATE INDEX tokens_by_age ON tokens (registry_id, created DESC, id);

-- Uploaded source files; their bytes are elsewhere.
CREATE TABLE contexts (
    registry_id INTEGER NOT NULL,
    id          TEXT NOT NULL,
    principal   TEXT NOT NULL,
    state       TEXT NOT NULL CHECK (state IN ('created', 'uploaded', 'deleted')),
    size        INTEGER CHECK (size >= 0),
    digest      TEXT,
    created     INTEGER NOT NULL,
    expires     INTEGER NOT NULL,
    PRIMARY KEY (registry_id, id),
    FOREIGN KEY (registry_id, principal) REFERENCES principals (registry_id, name),
    CHECK (state <> 'uploaded' OR (size IS NOT NULL AND digest IS NOT NULL))
) STRICT, WITHOUT ROWID;

CREATE INDEX contexts_by_expiry ON contexts (registry_id, expires);

-- Runs: the queue and the record. `state` is the whole run as `cooper-engine` knows it; the columns beside it are what
-- is searched for, written in the same statement.
CREATE TABLE runs (
    registry_id     INTEGER NOT NULL,
    number          INTEGER NOT NULL CHECK (number > 0),
    status          TEXT NOT NULL CHECK (status IN
                        ('Queued', 'Started', 'Running', 'Succeeded', 'Failed', 'Canceled', 'Error', 'Timeout')),
    run_type        TEXT NOT NULL CHECK (run_type IN ('QuickBuild', 'QuickRun', 'AutoBuild', 'AutoRun')),
    principal       TEXT NOT NULL,
    platform        TEXT NOT NULL,
    context_id      TEXT,
    state           TEXT NOT NULL CHECK (json_valid(state)),
    -- Grows with each change of `state`; changes are made by compare-and-set on it.
    generation      INTEGER NOT NULL,
    created         INTEGER NOT NULL,
    started         INTEGER,
    finished        INTEGER,
    updated         INTEGER NOT NULL,
    idempotency_key TEXT,
    request_hash    TEXT,
    -- The committed end of the log.
    frame_offset    INTEGER NOT NULL DEFAULT 0,
    text_offset     INTEGER NOT NULL DEFAULT 0,
    log_complete    INTEGER NOT NULL DEFAULT 0 CHECK (log_complete IN (0, 1)),
    PRIMARY KEY (registry_id, number),
    FOREIGN KEY (registry_id, principal) REFERENCES principals (registry_id, name),
    CHECK ((finished IS NULL) = (status IN ('Queued', 'Started', 'Running'))),
    CHECK ((idempotency_key IS NULL) = (request_hash IS NULL))
) STRICT;

CREATE UNIQUE INDEX runs_by_key ON runs (registry_id, principal, idempotency_key) WHERE idempotency_key IS NOT NULL;
-- `finished` is in it because SQLite looks into the row for a column of the condition otherwise.
CREATE INDEX runs_unfinished ON runs (registry_id, number, status, finished) WHERE finished IS NULL;
-- All that runs are listed by: a page is found without a look at the rows, whose states are large.
CREATE INDEX runs_listing ON runs (registry_id, number, status, run_type, principal);
CREATE INDEX runs_by_context ON runs (registry_id, context_id) WHERE finished IS NULL;

-- Encrypted by the server; gone when the run ends.
CREATE TABLE run_secrets (
    registry_id INTEGER NOT NULL,
    run_number  INTEGER NOT NULL,
    kind        TEXT NOT NULL CHECK (kind IN ('build', 'argument')),
    name        TEXT NOT NULL,
    sealed      BLOB NOT NULL,
    PRIMARY KEY (registry_id, run_number, kind, name),
    FOREIGN KEY (registry_id, run_number) REFERENCES runs (registry_id, number)
) STRICT, WITHOUT ROWID;

-- The attempts that may write: logs, results, secret reads and pushes check this in their own transaction.
CREATE TABLE live_attempts (
    registry_id INTEGER NOT NULL,
    run_number  INTEGER NOT NULL,
    step_id     TEXT NOT NULL,
    attempt     INTEGER NOT NULL,
    fence       INTEGER NOT NULL,
    PRIMARY KEY (registry_id, run_number, attempt),
    -- A step has at most one live attempt.
    UNIQUE (registry_id, run_number, step_id),
    FOREIGN KEY (registry_id, run_number) REFERENCES runs (registry_id, number)
) STRICT, WITHOUT ROWID;

-- Tags that a step of a run moved.
CREATE TABLE output_images (
    registry_id INTEGER NOT NULL,
    run_number  INTEGER NOT NULL,
    position    INTEGER NOT NULL,
    step_id     TEXT NOT NULL,
    registry    TEXT NOT NULL,
    repository  TEXT NOT NULL,
    tag         TEXT NOT NULL,
    digest      TEXT NOT NULL,
    PRIMARY KEY (registry_id, run_number, position),
    FOREIGN KEY (registry_id, run_number) REFERENCES runs (registry_id, number)
) STRICT, WITHOUT ROWID;

-- Edges of the base-image graph: what a step's image stood on. `reference` is as it was written; the parts are absent
-- where it does not parse.
CREATE TABLE base_images (
    registry_id INTEGER NOT NULL,
    run_number  INTEGER NOT NULL,
    step_id     TEXT NOT NULL,
    position    INTEGER NOT NULL,
    kind        TEXT NOT NULL CHECK (kind IN ('runtime', 'buildtime')),
    reference   TEXT NOT NULL,
    registry    TEXT,
    repository  TEXT,
    tag         TEXT,
    digest      TEXT,
    PRIMARY KEY (registry_id, run_number, step_id, position),
    FOREIGN KEY (registry_id, run_number) REFERENCES runs (registry_id, number)
) STRICT, WITHOUT ROWID;

CREATE INDEX base_images_by_name ON base_images (registry_id, registry, repository, tag);

-- A log: immutable runs of whole frames, end to end from offset 0. `frames` is in the form of the log's frames.
CREATE TABLE log_segments (
    registry_id INTEGER NOT NULL,
    run_number  INTEGER NOT NULL,
    frame_start INTEGER NOT NULL,
    frame_end   INTEGER NOT NULL,
    text_start  INTEGER NOT NULL,
    text_end    INTEGER NOT NULL,
    frames      BLOB NOT NULL,
    PRIMARY KEY (registry_id, run_number, frame_start),
    FOREIGN KEY (registry_id, run_number) REFERENCES runs (registry_id, number),
    CHECK (frame_end = frame_start + length(frames) AND text_end >= text_start)
) STRICT;

CREATE INDEX log_segments_by_text ON log_segments (registry_id, run_number, text_end, text_start);

-- The last frame of each attempt that is in the log; attempt 0 stands for the server itself.
CREATE TABLE log_cursors (
    registry_id INTEGER NOT NULL,
    run_number  INTEGER NOT NULL,
    attempt     INTEGER NOT NULL,
    last_seq    INTEGER NOT NULL,
    PRIMARY KEY (registry_id, run_number, attempt),
    FOREIGN KEY (registry_id, run_number) REFERENCES runs (registry_id, number)
) STRICT, WITHOUT ROWID;

-- What happened, for those who act on it later: written in the transaction of what it tells.
CREATE TABLE events (
    seq         INTEGER PRIMARY KEY AUTOINCREMENT,
    registry_id INTEGER NOT NULL REFERENCES registries (id),
    kind        TEXT NOT NULL,
    payload     TEXT NOT NULL CHECK (json_valid(payload)),
    created     INTEGER NOT NULL
) STRICT;
