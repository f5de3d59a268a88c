-- Pools, and the agents that have ever served in them. What an agent is connected with now is nowhere here.

CREATE TABLE pools (
    registry_id INTEGER NOT NULL REFERENCES registries (id),
    name        TEXT NOT NULL,
    description TEXT NOT NULL,
    created     INTEGER NOT NULL,
    PRIMARY KEY (registry_id, name)
) STRICT, WITHOUT ROWID;

-- The one that always exists. A registry that is made later gets its own when it is made.
INSERT INTO pools (registry_id, name, description, created) SELECT id, 'default', '', created FROM registries;

CREATE TABLE agents (
    registry_id INTEGER NOT NULL REFERENCES registries (id),
    name        TEXT NOT NULL,
    -- Whose name it is.
    principal   TEXT NOT NULL,
    -- The token that it showed last; the one of an agent inside the server is in no table.
    token       TEXT NOT NULL,
    pool        TEXT NOT NULL,
    -- What it said of itself last: only shown.
    description TEXT NOT NULL CHECK (json_valid(description)),
    draining    INTEGER NOT NULL DEFAULT 0 CHECK (draining IN (0, 1)),
    first_seen  INTEGER NOT NULL,
    last_seen   INTEGER NOT NULL,
    PRIMARY KEY (registry_id, name),
    FOREIGN KEY (registry_id, pool) REFERENCES pools (registry_id, name)
) STRICT, WITHOUT ROWID;

CREATE INDEX agents_by_pool ON agents (registry_id, pool);

-- The run's state says the same.
ALTER TABLE runs ADD COLUMN pool TEXT NOT NULL DEFAULT 'default';

-- What depends on a pool.
CREATE INDEX runs_by_pool ON runs (registry_id, pool, finished) WHERE finished IS NULL;

-- With the generation, so that what has changed is found without a look at the rows, whose states are large.
DROP INDEX runs_unfinished;
CREATE INDEX runs_unfinished ON runs (registry_id, number, status, generation, finished) WHERE finished IS NULL;
