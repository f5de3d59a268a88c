-- The registry: repositories, what they hold, their tags, and uploads on their way.
-- Bytes of blobs are files; bytes of manifests are here, so that a push is one transaction.

CREATE TABLE repositories (
    id          INTEGER PRIMARY KEY,
    registry_id INTEGER NOT NULL REFERENCES registries (id),
    name        TEXT NOT NULL,
    created     INTEGER NOT NULL,
    UNIQUE (registry_id, name)
) STRICT;

-- Content that is whole on disk, whoever holds it.
CREATE TABLE blobs (
    registry_id INTEGER NOT NULL REFERENCES registries (id),
    digest      TEXT NOT NULL,
    size        INTEGER NOT NULL CHECK (size >= 0),
    created     INTEGER NOT NULL,
    PRIMARY KEY (registry_id, digest)
) STRICT, WITHOUT ROWID;

-- Which repositories hold a blob: only through these is it seen.
CREATE TABLE repository_blobs (
    repository_id INTEGER NOT NULL REFERENCES repositories (id),
    registry_id   INTEGER NOT NULL,
    digest        TEXT NOT NULL,
    -- A push in progress relies on the blob until then, even if no manifest refers to it yet.
    lease_until   INTEGER NOT NULL,
    PRIMARY KEY (repository_id, digest),
    FOREIGN KEY (registry_id, digest) REFERENCES blobs (registry_id, digest)
) STRICT, WITHOUT ROWID;

CREATE INDEX repository_blobs_by_digest ON repository_blobs (registry_id, digest);

CREATE TABLE manifests (
    repository_id INTEGER NOT NULL REFERENCES repositories (id),
    digest        TEXT NOT NULL,
    media_type    TEXT NOT NULL,
    payload       BLOB NOT NULL,
    created       INTEGER NOT NULL,
    PRIMARY KEY (repository_id, digest)
) STRICT;

-- What a manifest refers to. A blob or manifest must be held by the same repository; the other kinds may be missing.
CREATE TABLE manifest_references (
    repository_id INTEGER NOT NULL,
    manifest      TEXT NOT NULL,
    kind          TEXT NOT NULL CHECK (kind IN ('blob', 'manifest', 'foreign_blob', 'subject')),
    digest        TEXT NOT NULL,
    PRIMARY KEY (repository_id, manifest, kind, digest),
    FOREIGN KEY (repository_id, manifest) REFERENCES manifests (repository_id, digest)
) STRICT, WITHOUT ROWID;

CREATE INDEX manifest_references_by_digest ON manifest_references (repository_id, digest);

CREATE TABLE tags (
    repository_id INTEGER NOT NULL,
    name          TEXT NOT NULL,
    digest        TEXT NOT NULL,
    moved         INTEGER NOT NULL,
    PRIMARY KEY (repository_id, name),
    FOREIGN KEY (repository_id, digest) REFERENCES manifests (repository_id, digest)
) STRICT, WITHOUT ROWID;

CREATE INDEX tags_by_digest ON tags (repository_id, digest);

-- Tags that attempts have pushed: seen by their run alone until the step completes and makes them real.
CREATE TABLE staged_tags (
    registry_id   INTEGER NOT NULL REFERENCES registries (id),
    run_number    INTEGER NOT NULL,
    step_id       TEXT NOT NULL,
    attempt       INTEGER NOT NULL,
    repository_id INTEGER NOT NULL,
    tag           TEXT NOT NULL,
    digest        TEXT NOT NULL,
    expires       INTEGER NOT NULL,
    PRIMARY KEY (registry_id, run_number, attempt, repository_id, tag),
    FOREIGN KEY (repository_id, digest) REFERENCES manifests (repository_id, digest)
) STRICT, WITHOUT ROWID;

CREATE INDEX staged_tags_by_digest ON staged_tags (repository_id, digest);
CREATE INDEX staged_tags_by_expiry ON staged_tags (registry_id, expires);

-- Uploads that have begun; their bytes are files named by the id.
CREATE TABLE uploads (
    registry_id INTEGER NOT NULL REFERENCES registries (id),
    id          TEXT NOT NULL,
    repository  TEXT NOT NULL,
    principal   TEXT NOT NULL,
    -- The attempt that uploads, where it is one.
    run_number  INTEGER,
    step_id     TEXT,
    attempt     INTEGER,
    expires     INTEGER NOT NULL,
    PRIMARY KEY (registry_id, id),
    CHECK ((run_number IS NULL) = (attempt IS NULL) AND (step_id IS NULL) = (attempt IS NULL))
) STRICT, WITHOUT ROWID;

CREATE INDEX uploads_by_expiry ON uploads (registry_id, expires);

CREATE INDEX uploads_by_run ON uploads (registry_id, run_number, attempt) WHERE run_number IS NOT NULL;
-- How many a principal has open.
CREATE INDEX uploads_by_principal ON uploads (registry_id, principal, expires);
