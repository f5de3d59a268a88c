-- The tasks whose runs led to a wave, by their keys, and who has cancelled it. How much runs at a time is the server's setting.
ALTER TABLE waves ADD COLUMN origins TEXT NOT NULL DEFAULT '[]' CHECK (json_valid(origins));
ALTER TABLE waves ADD COLUMN canceled_by TEXT;
ALTER TABLE waves DROP COLUMN run_limit;

CREATE INDEX waves_by_end ON waves (registry_id, finished) WHERE finished IS NOT NULL;

-- Since when a member's task has waited, in waves that were taken over included.
ALTER TABLE wave_members ADD COLUMN since INTEGER NOT NULL DEFAULT 0;
UPDATE wave_members SET since =
    (SELECT w.opened FROM waves w WHERE w.registry_id = wave_members.registry_id AND w.number = wave_members.wave)
WHERE state = 'waiting';

CREATE INDEX wave_members_running ON wave_members (registry_id, task, wave) WHERE state = 'running';

-- When the run began that says what a task stands on: what another registry was seen to have before says nothing of it.
ALTER TABLE task_graph ADD COLUMN started INTEGER NOT NULL DEFAULT 0;
UPDATE task_graph SET started = coalesce(
    (SELECT coalesce(r.started, r.created) FROM runs r
     WHERE r.registry_id = task_graph.registry_id AND r.number = task_graph.run_number), 0);

CREATE INDEX task_outputs_by_tag ON task_outputs (registry_id, repository, tag, task);
