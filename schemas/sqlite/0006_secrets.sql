-- Secrets that administrators keep for tasks, and texts of a task's plan that hold secrets.

-- SQLite can't change a CHECK: the table is made anew with a third kind.
CREATE TABLE run_secrets_of_three_kinds (
    registry_id INTEGER NOT NULL,
    run_number  INTEGER NOT NULL,
    kind        TEXT NOT NULL CHECK (kind IN ('build', 'argument', 'value')),
    name        TEXT NOT NULL,
    sealed      BLOB NOT NULL,
    PRIMARY KEY (registry_id, run_number, kind, name),
    FOREIGN KEY (registry_id, run_number) REFERENCES runs (registry_id, number)
) STRICT, WITHOUT ROWID;

INSERT INTO run_secrets_of_three_kinds (registry_id, run_number, kind, name, sealed)
SELECT registry_id, run_number, kind, name, sealed FROM run_secrets;
DROP TABLE run_secrets;
ALTER TABLE run_secrets_of_three_kinds RENAME TO run_secrets;

-- A secret exists while it has a version. Its row stays when the versions are gone, so that no version's number ever
-- stands for two values.
CREATE TABLE secrets (
    registry_id INTEGER NOT NULL REFERENCES registries (id),
    name        TEXT NOT NULL,
    -- Whether everybody's runs may use it; else those of the principals below.
    everybody   INTEGER NOT NULL CHECK (everybody IN (0, 1)),
    -- The highest number that a version has had.
    newest      INTEGER NOT NULL CHECK (newest > 0),
    PRIMARY KEY (registry_id, name)
) STRICT, WITHOUT ROWID;

CREATE TABLE secret_principals (
    registry_id INTEGER NOT NULL,
    name        TEXT NOT NULL,
    principal   TEXT NOT NULL,
    PRIMARY KEY (registry_id, name, principal),
    FOREIGN KEY (registry_id, name) REFERENCES secrets (registry_id, name)
) STRICT, WITHOUT ROWID;

-- The values, encrypted by the server.
CREATE TABLE secret_versions (
    registry_id INTEGER NOT NULL,
    name        TEXT NOT NULL,
    version     INTEGER NOT NULL CHECK (version > 0),
    sealed      BLOB NOT NULL,
    set_by      TEXT NOT NULL,
    created     INTEGER NOT NULL,
    PRIMARY KEY (registry_id, name, version),
    FOREIGN KEY (registry_id, name) REFERENCES secrets (registry_id, name)
) STRICT, WITHOUT ROWID;
