-- Hooks and their tables within bounds: how much waits is known without counting, and what is over is found without a search.

-- How many deliveries of the hook wait.
ALTER TABLE hooks ADD COLUMN waiting INTEGER NOT NULL DEFAULT 0;
UPDATE hooks SET waiting = (
    SELECT count(*) FROM deliveries d
    WHERE d.registry_id = hooks.registry_id AND d.hook = hooks.id AND d.events IS NOT NULL);
CREATE INDEX hooks_by_task ON hooks (registry_id, task);

-- What waits is found by hook, so that each has its turn, and what is over by hook and age; in indexes alone, because rows are large.
-- `waits` is 1 while `events` is there.
ALTER TABLE deliveries ADD COLUMN waits INTEGER NOT NULL DEFAULT 0 CHECK (waits IN (0, 1));
UPDATE deliveries SET waits = 1 WHERE events IS NOT NULL;
DROP INDEX deliveries_waiting;
CREATE INDEX deliveries_by_turn ON deliveries (registry_id, waits, hook, number);
CREATE INDEX deliveries_by_age ON deliveries (registry_id, waits, received);

-- When an event is forgotten; nothing while its run is kept.
ALTER TABLE source_events ADD COLUMN forgotten INTEGER;
-- Not all at the same time: they go in parts.
UPDATE source_events SET forgotten = (unixepoch() + 30 * 86400) * 1000000 + run_number
WHERE NOT EXISTS (SELECT 1 FROM runs r WHERE r.registry_id = source_events.registry_id AND r.number = source_events.run_number);
CREATE INDEX source_events_by_run ON source_events (registry_id, run_number);
CREATE INDEX source_events_by_end ON source_events (registry_id, forgotten) WHERE forgotten IS NOT NULL;

-- Whether an older run of a task may still end: only then the order in which its runs moved a tag means anything.
CREATE INDEX runs_unfinished_of_task ON runs (registry_id, task, number, finished) WHERE finished IS NULL AND task IS NOT NULL;
