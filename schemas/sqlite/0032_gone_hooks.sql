-- A hook that a task needs no more may have much in it: it is gone at once, and goes in parts. Its provider is its id then, so that the
-- task may have another one of that kind.
ALTER TABLE hooks ADD COLUMN gone INTEGER NOT NULL DEFAULT 0 CHECK (gone IN (0, 1));
DROP INDEX hooks_by_task;
CREATE INDEX hooks_by_task ON hooks (registry_id, task, gone);
CREATE INDEX hooks_gone ON hooks (registry_id, id) WHERE gone = 1;
