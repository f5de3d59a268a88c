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
