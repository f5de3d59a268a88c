-- How each target of the outbox stands. What is to be sent next is found here, however many wait.

-- How often the target has refused this one.
ALTER TABLE outbox ADD COLUMN refusals INTEGER NOT NULL DEFAULT 0;

-- Endpoints of tasks are looked up when they are told.
UPDATE outbox SET sealed = NULL WHERE sealed IS NOT NULL;

CREATE TABLE outbox_targets (
    registry_id   INTEGER NOT NULL REFERENCES registries (id),
    target        TEXT NOT NULL COLLATE NOCASE,
    -- Where it is. What is sent to one place at a time is limited.
    host          TEXT NOT NULL,
    -- Its first delivery that has not ended, and that one's `at`; absent where nothing waits.
    seq           INTEGER,
    at            INTEGER,
    -- Tries in a row that came to nothing, and when the first of those ended.
    failures      INTEGER NOT NULL DEFAULT 0,
    failing_since INTEGER,
    PRIMARY KEY (registry_id, target)
) STRICT, WITHOUT ROWID;

CREATE INDEX outbox_next ON outbox_targets (registry_id, (failures > 0), at) WHERE seq IS NOT NULL;

INSERT INTO outbox_targets (registry_id, target, host, seq, at)
SELECT t.registry_id, t.target, coalesce(w.host, t.target), h.seq, h.at
FROM (SELECT DISTINCT registry_id, target FROM outbox) t
LEFT JOIN webhooks w ON w.registry_id = t.registry_id AND t.target = 'webhook/' || w.name
LEFT JOIN outbox h ON h.seq = (
    SELECT min(o.seq) FROM outbox o
    WHERE o.registry_id = t.registry_id AND o.target = t.target AND o.state IN ('due', 'trying'));

-- The log of a target: what ended, the oldest first.
CREATE INDEX outbox_ended ON outbox (registry_id, target, seq) WHERE state IN ('delivered', 'failed');
