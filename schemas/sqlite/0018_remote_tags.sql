-- When a tag of another registry was last seen to stand for something else than before.
ALTER TABLE remote_tags ADD COLUMN moved INTEGER;
