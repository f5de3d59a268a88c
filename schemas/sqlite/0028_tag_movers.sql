-- The run that moved a tag, where one did: what it moved under a run that went on is of its doing.
ALTER TABLE tags ADD COLUMN moved_by INTEGER;
