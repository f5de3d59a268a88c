-- When asking for a tag of another registry failed last: its tasks are told.
ALTER TABLE remote_tags ADD COLUMN failed INTEGER;

-- Endpoints of tasks are looked up when they are told.
ALTER TABLE outbox DROP COLUMN sealed;

-- A target's log is what waits and what has ended, each by an index of its own.
DROP INDEX outbox_by_target;

-- Which runs wrote an image.
CREATE INDEX output_images_by_repository ON output_images (registry_id, repository, run_number);
