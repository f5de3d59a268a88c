-- What tasks stand on, tags that moved under them, and the waves of runs that follow.

-- The run that says what a task stands on and makes: the newest that succeeded.
CREATE TABLE task_graph (
    registry_id INTEGER NOT NULL,
    task        TEXT NOT NULL,
    run_number  INTEGER NOT NULL,
    PRIMARY KEY (registry_id, task),
    FOREIGN KEY (registry_id, task) REFERENCES tasks (registry_id, task) ON DELETE CASCADE
) STRICT, WITHOUT ROWID;

-- The embedded registry is the empty name, whatever it is called.
CREATE TABLE base_edges (
    registry_id INTEGER NOT NULL,
    task        TEXT NOT NULL,
    kind        TEXT NOT NULL CHECK (kind IN ('runtime', 'buildtime', 'step')),
    registry    TEXT NOT NULL,
    repository  TEXT NOT NULL,
    tag         TEXT NOT NULL,
    digest      TEXT NOT NULL,
    PRIMARY KEY (registry_id, task, kind, registry, repository, tag, digest),
    FOREIGN KEY (registry_id, task) REFERENCES task_graph (registry_id, task) ON DELETE CASCADE
) STRICT, WITHOUT ROWID;

CREATE INDEX base_edges_by_tag ON base_edges (registry_id, registry, repository, tag, digest);

-- The tags of the embedded registry that a task makes.
CREATE TABLE task_outputs (
    registry_id INTEGER NOT NULL,
    task        TEXT NOT NULL,
    repository  TEXT NOT NULL,
    tag         TEXT NOT NULL,
    PRIMARY KEY (registry_id, task, repository, tag),
    FOREIGN KEY (registry_id, task) REFERENCES task_graph (registry_id, task) ON DELETE CASCADE
) STRICT, WITHOUT ROWID;

-- Tags of other registries that tasks stand on, and what they stood for when they were last asked for.
CREATE TABLE remote_tags (
    registry_id INTEGER NOT NULL REFERENCES registries (id),
    registry    TEXT NOT NULL,
    repository  TEXT NOT NULL,
    tag         TEXT NOT NULL,
    digest      TEXT,
    etag        TEXT,
    -- When it was last asked for with success, and is to be asked for next.
    checked     INTEGER,
    next        INTEGER NOT NULL,
    failures    INTEGER NOT NULL DEFAULT 0,
    problem     TEXT,
    PRIMARY KEY (registry_id, registry, repository, tag)
) STRICT, WITHOUT ROWID;

CREATE INDEX remote_tags_by_next ON remote_tags (registry_id, next);

-- Tags that moved and that a task stands on, until a wave is opened for them.
CREATE TABLE base_changes (
    seq         INTEGER PRIMARY KEY AUTOINCREMENT,
    registry_id INTEGER NOT NULL REFERENCES registries (id),
    registry    TEXT NOT NULL,
    repository  TEXT NOT NULL,
    tag         TEXT NOT NULL,
    from_digest TEXT,
    to_digest   TEXT NOT NULL,
    at          INTEGER NOT NULL,
    -- The run that moved it.
    run_number  INTEGER
) STRICT;

ALTER TABLE registries ADD COLUMN wave_counter INTEGER NOT NULL DEFAULT 0;

CREATE TABLE waves (
    registry_id INTEGER NOT NULL REFERENCES registries (id),
    number      INTEGER NOT NULL CHECK (number > 0),
    opened      INTEGER NOT NULL,
    phase       TEXT NOT NULL CHECK (phase IN ('running', 'paused', 'canceled')),
    finished    INTEGER,
    run_limit   INTEGER NOT NULL,
    -- Grows with each change; changes are made by compare-and-set on it.
    generation  INTEGER NOT NULL,
    changes     TEXT NOT NULL CHECK (json_valid(changes)),
    cuts        TEXT NOT NULL CHECK (json_valid(cuts)),
    PRIMARY KEY (registry_id, number)
) STRICT;

CREATE INDEX waves_open ON waves (registry_id, number) WHERE finished IS NULL;

CREATE TABLE wave_members (
    registry_id INTEGER NOT NULL,
    wave        INTEGER NOT NULL,
    member      INTEGER NOT NULL,
    -- In lower case, and as it is written.
    task        TEXT NOT NULL,
    name        TEXT NOT NULL,
    level       INTEGER NOT NULL,
    parents     TEXT NOT NULL CHECK (json_valid(parents)),
    state       TEXT NOT NULL CHECK (state IN
                    ('waiting', 'running', 'done', 'unchanged', 'takenOver', 'failed', 'skipped', 'canceled')),
    run_number  INTEGER,
    reason      TEXT,
    taken_by    INTEGER,
    PRIMARY KEY (registry_id, wave, member),
    FOREIGN KEY (registry_id, wave) REFERENCES waves (registry_id, number)
) STRICT, WITHOUT ROWID;

CREATE INDEX wave_members_by_state ON wave_members (registry_id, wave, state, run_number);
CREATE INDEX wave_members_waiting ON wave_members (registry_id, task, wave) WHERE state = 'waiting';

-- What did not start a task, and the rule that said no; the newest few of each task.
CREATE TABLE task_refusals (
    seq         INTEGER PRIMARY KEY AUTOINCREMENT,
    registry_id INTEGER NOT NULL,
    task        TEXT NOT NULL,
    at          INTEGER NOT NULL,
    event       TEXT NOT NULL,
    rule        TEXT NOT NULL,
    FOREIGN KEY (registry_id, task) REFERENCES tasks (registry_id, task) ON DELETE CASCADE
) STRICT;

CREATE INDEX task_refusals_by_task ON task_refusals (registry_id, task, seq);
