-- Tags of other registries that a task's runs move: who does now, and the newest run that has (decision 0061).
CREATE TABLE outside_tags (
    registry_id INTEGER NOT NULL,
    task        TEXT NOT NULL,
    -- `REGISTRY/REPOSITORY:TAG`
    image       TEXT NOT NULL,
    -- As in `tag_order`.
    line        TEXT NOT NULL,
    -- The newest run that has moved it.
    moved_by    INTEGER,
    -- The run that moves it now, for as long as this attempt of it lives.
    moving      INTEGER,
    attempt     INTEGER,
    PRIMARY KEY (registry_id, task, image, line),
    FOREIGN KEY (registry_id, task) REFERENCES tasks (registry_id, task) ON DELETE CASCADE,
    CHECK ((moving IS NULL) = (attempt IS NULL))
) STRICT, WITHOUT ROWID;

CREATE INDEX outside_tags_moving ON outside_tags (registry_id, moving, attempt) WHERE moving IS NOT NULL;
