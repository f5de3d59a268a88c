-- Stored tasks, their secrets, credentials and timers.

-- What a task is stands in `state`, as a run's does; the other columns are what tasks are found by.
CREATE TABLE tasks (
    registry_id INTEGER NOT NULL REFERENCES registries (id),
    -- The name in lower case: names are unique without regard to case.
    task        TEXT NOT NULL,
    principal   TEXT NOT NULL,
    state       TEXT NOT NULL CHECK (json_valid(state)),
    generation  INTEGER NOT NULL,
    PRIMARY KEY (registry_id, task),
    FOREIGN KEY (registry_id, principal) REFERENCES principals (registry_id, name)
) STRICT;

-- Encrypted by the server.
CREATE TABLE task_secrets (
    registry_id INTEGER NOT NULL,
    task        TEXT NOT NULL,
    kind        TEXT NOT NULL CHECK (kind IN ('build', 'argument', 'value')),
    name        TEXT NOT NULL,
    sealed      BLOB NOT NULL,
    PRIMARY KEY (registry_id, task, kind, name),
    FOREIGN KEY (registry_id, task) REFERENCES tasks (registry_id, task) ON DELETE CASCADE
) STRICT, WITHOUT ROWID;

-- What runs of a task may show to a Git host or registry, before what `source_credentials` holds. Encrypted by the server.
CREATE TABLE task_credentials (
    registry_id INTEGER NOT NULL,
    task        TEXT NOT NULL,
    host        TEXT NOT NULL,
    username    TEXT NOT NULL,
    sealed      BLOB NOT NULL,
    updated     INTEGER NOT NULL,
    PRIMARY KEY (registry_id, task, host),
    FOREIGN KEY (registry_id, task) REFERENCES tasks (registry_id, task) ON DELETE CASCADE
) STRICT, WITHOUT ROWID;

-- When each timer is to fire next; nothing while it or its task is disabled.
CREATE TABLE task_timers (
    registry_id INTEGER NOT NULL,
    task        TEXT NOT NULL,
    timer       TEXT NOT NULL,
    next        INTEGER,
    PRIMARY KEY (registry_id, task, timer),
    FOREIGN KEY (registry_id, task) REFERENCES tasks (registry_id, task) ON DELETE CASCADE
) STRICT, WITHOUT ROWID;

CREATE INDEX task_timers_by_next ON task_timers (registry_id, next, task, timer) WHERE next IS NOT NULL;

-- What became of each instant: the run that it set off, or why there is none. An instant is in it once.
CREATE TABLE timer_firings (
    registry_id INTEGER NOT NULL,
    task        TEXT NOT NULL,
    timer       TEXT NOT NULL,
    instant     INTEGER NOT NULL,
    at          INTEGER NOT NULL,
    run_number  INTEGER,
    why_not     TEXT,
    PRIMARY KEY (registry_id, task, timer, instant),
    FOREIGN KEY (registry_id, task) REFERENCES tasks (registry_id, task) ON DELETE CASCADE,
    CHECK ((run_number IS NULL) = (why_not IS NOT NULL))
) STRICT, WITHOUT ROWID;

-- The task that a run executes, as `tasks` names it. A run outlives its task.
ALTER TABLE runs ADD COLUMN task TEXT;
-- Whether the run outlives the clean-up of old runs.
ALTER TABLE runs ADD COLUMN archived INTEGER NOT NULL DEFAULT 0 CHECK (archived IN (0, 1));

-- For how long a run and its log are kept after its end, in microseconds; for ever if absent.
ALTER TABLE runs ADD COLUMN keep_run INTEGER;
ALTER TABLE runs ADD COLUMN keep_log INTEGER;

CREATE INDEX runs_by_expiry ON runs (registry_id, finished + keep_run)
    WHERE finished IS NOT NULL AND keep_run IS NOT NULL AND archived = 0;
CREATE INDEX runs_by_log_expiry ON runs (registry_id, finished + keep_log)
    WHERE finished IS NOT NULL AND keep_log IS NOT NULL AND archived = 0;
CREATE INDEX runs_by_task ON runs (registry_id, task, number, status, run_type, principal) WHERE task IS NOT NULL;
