-- The newest run of a task that has moved a tag: by its branch, tag or pull request, of which an older run moves it no more.
CREATE TABLE tag_order (
    registry_id   INTEGER NOT NULL,
    task          TEXT NOT NULL,
    -- `refs/heads/BRANCH`, `refs/tags/TAG` or `pull-request/NUMBER`; empty for a run by hand whose branch is not known.
    line          TEXT NOT NULL,
    repository_id INTEGER NOT NULL REFERENCES repositories (id) ON DELETE CASCADE,
    tag           TEXT NOT NULL,
    run_number    INTEGER NOT NULL,
    PRIMARY KEY (registry_id, task, line, repository_id, tag),
    FOREIGN KEY (registry_id, task) REFERENCES tasks (registry_id, task) ON DELETE CASCADE
) STRICT, WITHOUT ROWID;

CREATE INDEX tag_order_by_repository ON tag_order (repository_id);
