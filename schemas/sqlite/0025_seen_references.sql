-- Tags and pull requests are looked for as well as branches, under their full names (`refs/pull/NUMBER`). What has been looked at has a row
-- of its own (`refs/heads`, `refs/tags`, `refs/pull`), so that what is there at the first look is not taken for new, and an empty list is
-- a list.
CREATE TABLE seen_references (
    registry_id INTEGER NOT NULL,
    task        TEXT NOT NULL,
    name        TEXT NOT NULL,
    -- What has been dealt with; nothing of a reference that is new.
    done        TEXT,
    -- What was there at the last look and is not dealt with: a delivery may be on its way.
    seen        TEXT,
    PRIMARY KEY (registry_id, task, name),
    FOREIGN KEY (registry_id, task) REFERENCES tasks (registry_id, task) ON DELETE CASCADE
) STRICT, WITHOUT ROWID;

INSERT INTO seen_references (registry_id, task, name, done, seen)
SELECT registry_id, task, 'refs/heads/' || branch, done, seen FROM source_refs;
INSERT INTO seen_references (registry_id, task, name)
SELECT DISTINCT registry_id, task, 'refs/heads' FROM source_refs;
DROP TABLE source_refs;
