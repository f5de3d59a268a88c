-- When a forge was last asked to take a commit's status.
ALTER TABLE commit_statuses ADD COLUMN tried INTEGER;
