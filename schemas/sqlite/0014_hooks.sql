-- Hooks of stored tasks, the deliveries that came to them, and the events that have started runs.

-- Where a forge sends what happened: one for each task and kind of forge. The id can't be guessed.
CREATE TABLE hooks (
    registry_id    INTEGER NOT NULL,
    id             TEXT NOT NULL,
    task           TEXT NOT NULL,
    provider       TEXT NOT NULL,
    -- Encrypted by the server, as is the one before, which is taken until a time.
    sealed         BLOB NOT NULL,
    previous       BLOB,
    previous_until INTEGER,
    created        INTEGER NOT NULL,
    PRIMARY KEY (registry_id, id),
    UNIQUE (registry_id, task, provider),
    FOREIGN KEY (registry_id, task) REFERENCES tasks (registry_id, task) ON DELETE CASCADE,
    CHECK ((previous IS NULL) = (previous_until IS NULL))
) STRICT, WITHOUT ROWID;

-- What came. `events` is there while it waits, `outcomes` when it is worked off.
CREATE TABLE deliveries (
    number      INTEGER PRIMARY KEY AUTOINCREMENT,
    registry_id INTEGER NOT NULL,
    hook        TEXT NOT NULL,
    delivery    TEXT NOT NULL,
    received    INTEGER NOT NULL,
    events      TEXT CHECK (events IS NULL OR json_valid(events)),
    outcomes    TEXT CHECK (outcomes IS NULL OR json_valid(outcomes)),
    UNIQUE (registry_id, hook, delivery),
    FOREIGN KEY (registry_id, hook) REFERENCES hooks (registry_id, id) ON DELETE CASCADE,
    CHECK ((events IS NULL) = (outcomes IS NOT NULL))
) STRICT;

CREATE INDEX deliveries_waiting ON deliveries (registry_id, number) WHERE events IS NOT NULL;
CREATE INDEX deliveries_by_hook ON deliveries (registry_id, hook, number);

-- The same kind of event, reference and commit starts a task once, whoever tells of it and how often.
CREATE TABLE source_events (
    registry_id INTEGER NOT NULL,
    task        TEXT NOT NULL,
    event       TEXT NOT NULL,
    run_number  INTEGER NOT NULL,
    PRIMARY KEY (registry_id, task, event),
    FOREIGN KEY (registry_id, task) REFERENCES tasks (registry_id, task) ON DELETE CASCADE
) STRICT, WITHOUT ROWID;
