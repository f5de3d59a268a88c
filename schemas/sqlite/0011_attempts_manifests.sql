-- Manifests that attempts alone have pushed, and whose steps have not succeeded: they go by themselves after a time.
ALTER TABLE manifests ADD COLUMN by_attempt INTEGER NOT NULL DEFAULT 0 CHECK (by_attempt IN (0, 1));

CREATE INDEX manifests_of_attempts ON manifests (updated) WHERE by_attempt = 1;
