-- What a forge is to be told of a run that its events have set off: the state of the commit.
CREATE TABLE commit_statuses (
    registry_id INTEGER NOT NULL,
    run_number  INTEGER NOT NULL,
    -- Grows with each thing to be told, so that what was told late does not hide what is to be told since.
    want        INTEGER NOT NULL,
    -- When it is to be told; nothing while there is nothing to tell.
    due         INTEGER,
    tries       INTEGER NOT NULL,
    -- Why the last try failed.
    fault       TEXT,
    PRIMARY KEY (registry_id, run_number),
    FOREIGN KEY (registry_id, run_number) REFERENCES runs (registry_id, number) ON DELETE CASCADE
) STRICT, WITHOUT ROWID;

CREATE INDEX commit_statuses_by_due ON commit_statuses (registry_id, due) WHERE due IS NOT NULL;

-- Where the branches of a task's repository were when they were looked at last, to find what no delivery told of.
CREATE TABLE source_refs (
    registry_id INTEGER NOT NULL,
    task        TEXT NOT NULL,
    branch      TEXT NOT NULL,
    -- What has been dealt with; nothing of a branch that is new.
    done        TEXT,
    -- What was there at the last look and is not dealt with: a delivery may be on its way.
    seen        TEXT,
    PRIMARY KEY (registry_id, task, branch),
    FOREIGN KEY (registry_id, task) REFERENCES tasks (registry_id, task) ON DELETE CASCADE
) STRICT, WITHOUT ROWID;
