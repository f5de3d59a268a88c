-- The statuses of a task's runs are found by the task, however many runs it has had that told no forge anything.
ALTER TABLE commit_statuses ADD COLUMN task TEXT;
UPDATE commit_statuses SET task = (
    SELECT r.task FROM runs r WHERE r.registry_id = commit_statuses.registry_id AND r.number = commit_statuses.run_number);
CREATE INDEX commit_statuses_by_task ON commit_statuses (registry_id, task, run_number);

-- Tasks whose endpoints an older release has kept in clear: a start seals them, and finds none afterwards without reading a task.
CREATE INDEX tasks_with_clear_endpoints ON tasks (registry_id, task) WHERE json_type(state, '$.base_image.endpoint') = 'text';
