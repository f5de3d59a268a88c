-- Sources that agents fetch: what a prepare attempt uploads is a context of that attempt until its run takes it.

ALTER TABLE contexts ADD COLUMN run_number INTEGER;
ALTER TABLE contexts ADD COLUMN attempt INTEGER;

CREATE INDEX contexts_by_attempt ON contexts (registry_id, run_number, attempt) WHERE run_number IS NOT NULL;

-- What may be shown to Git hosts. Encrypted by the server.
CREATE TABLE source_credentials (
    registry_id INTEGER NOT NULL REFERENCES registries (id),
    host        TEXT NOT NULL,
    username    TEXT NOT NULL,
    sealed      BLOB NOT NULL,
    -- Whether everybody's runs may use it; else those of the principals below.
    everybody   INTEGER NOT NULL CHECK (everybody IN (0, 1)),
    set_by      TEXT NOT NULL,
    updated     INTEGER NOT NULL,
    PRIMARY KEY (registry_id, host)
) STRICT, WITHOUT ROWID;

CREATE TABLE source_credential_principals (
    registry_id INTEGER NOT NULL,
    host        TEXT NOT NULL,
    principal   TEXT NOT NULL,
    PRIMARY KEY (registry_id, host, principal),
    FOREIGN KEY (registry_id, host) REFERENCES source_credentials (registry_id, host)
) STRICT, WITHOUT ROWID;
