-- How the last look at a task's repository went, for its owner.
CREATE TABLE source_looks (
    registry_id INTEGER NOT NULL,
    task        TEXT NOT NULL,
    -- `git` for branches and tags, `forge` for pull requests.
    way         TEXT NOT NULL,
    at          INTEGER NOT NULL,
    next        INTEGER NOT NULL,
    -- Why it came to nothing.
    fault       TEXT,
    PRIMARY KEY (registry_id, task, way),
    FOREIGN KEY (registry_id, task) REFERENCES tasks (registry_id, task) ON DELETE CASCADE
) STRICT, WITHOUT ROWID;
