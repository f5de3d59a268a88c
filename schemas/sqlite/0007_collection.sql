-- Deletion, listings with times, and the collection of blobs.

-- When a tag was first pushed. Of older ones only the last push is known.
ALTER TABLE tags ADD COLUMN created INTEGER NOT NULL DEFAULT 0;
UPDATE tags SET created = moved;

-- When a manifest was last pushed, or got a tag.
ALTER TABLE manifests ADD COLUMN updated INTEGER NOT NULL DEFAULT 0;
UPDATE manifests SET updated = max(created, coalesce(
    (SELECT max(moved) FROM tags
     WHERE tags.repository_id = manifests.repository_id AND tags.digest = manifests.digest), 0));

-- Leases that are to be looked at. One without an end is a blob's that manifests were seen to need: the deletion of a
-- manifest gives its blobs an end again.
CREATE INDEX repository_blobs_by_lease ON repository_blobs (registry_id, lease_until)
    WHERE lease_until < 9223372036854775807;

-- Blobs that nobody holds and whose files are to be removed. A digest is here or in blobs, never in both.
CREATE TABLE condemned_blobs (
    registry_id INTEGER NOT NULL REFERENCES registries (id),
    digest      TEXT NOT NULL,
    since       INTEGER NOT NULL,
    PRIMARY KEY (registry_id, digest)
) STRICT, WITHOUT ROWID;
