-- Hooks that are registered at forges, or are to be, or are to be removed there.
CREATE TABLE hook_registrations (
    registry_id INTEGER NOT NULL,
    -- No reference: a hook that is gone here is still to be removed there. So is its task.
    hook        TEXT NOT NULL,
    repository  TEXT NOT NULL,
    task        TEXT NOT NULL,
    provider    TEXT NOT NULL,
    host        TEXT NOT NULL,
    -- What it is to listen to.
    events      TEXT NOT NULL,
    -- Whether it is to be removed, and the token for that, as the task had it: encrypted for the task and the host.
    removing    INTEGER NOT NULL DEFAULT 0 CHECK (removing IN (0, 1)),
    username    TEXT,
    sealed      BLOB,
    -- Grows with each thing to be done, so that what was done late does not hide what is to be done since.
    want        INTEGER NOT NULL,
    -- When it is to be done; nothing while there is nothing to do.
    due         INTEGER,
    tries       INTEGER NOT NULL,
    -- When the forge took it last, and what address of this server it was told.
    registered  INTEGER,
    address     TEXT,
    -- Why the last try failed.
    fault       TEXT,
    PRIMARY KEY (registry_id, hook, repository),
    CHECK ((username IS NULL) = (sealed IS NULL))
) STRICT, WITHOUT ROWID;

CREATE INDEX hook_registrations_by_due ON hook_registrations (registry_id, due) WHERE due IS NOT NULL;
CREATE INDEX hook_registrations_by_task ON hook_registrations (registry_id, task);
