-- Webhooks, and what is sent to them and to others.

CREATE TABLE webhooks (
    registry_id INTEGER NOT NULL REFERENCES registries (id),
    -- Names are unique without regard to case.
    name        TEXT NOT NULL COLLATE NOCASE,
    -- Where it goes to, for people.
    host        TEXT NOT NULL,
    -- Address, headers and secret, encrypted by the server.
    sealed      BLOB NOT NULL,
    actions     TEXT NOT NULL CHECK (json_valid(actions)),
    scope       TEXT NOT NULL,
    enabled     INTEGER NOT NULL CHECK (enabled IN (0, 1)),
    set_by      TEXT NOT NULL,
    created     INTEGER NOT NULL,
    generation  INTEGER NOT NULL,
    PRIMARY KEY (registry_id, name)
) STRICT, WITHOUT ROWID;

-- One event on its way to one target, written in the event's own transaction.
CREATE TABLE outbox (
    -- The order in which a target gets what is for it. Never given out twice: a late answer meets nothing else.
    seq         INTEGER PRIMARY KEY AUTOINCREMENT,
    registry_id INTEGER NOT NULL REFERENCES registries (id),
    -- `webhook/NAME`, `update-trigger/TASK`.
    target      TEXT NOT NULL COLLATE NOCASE,
    event       TEXT NOT NULL,
    action      TEXT NOT NULL,
    subject     TEXT NOT NULL,
    body        TEXT NOT NULL,
    redelivery  INTEGER NOT NULL DEFAULT 0 CHECK (redelivery IN (0, 1)),
    -- Of a target that is not a row of its own: address, headers and secret, encrypted by the server.
    sealed      BLOB,
    queued      INTEGER NOT NULL,
    state       TEXT NOT NULL CHECK (state IN ('due', 'trying', 'delivered', 'failed')),
    -- Due from, tried until, delivered or failed at.
    at          INTEGER NOT NULL,
    tries       INTEGER NOT NULL DEFAULT 0,
    last_at     INTEGER,
    last_status INTEGER,
    last_said   TEXT
) STRICT;

CREATE INDEX outbox_waiting ON outbox (registry_id, target, seq) WHERE state IN ('due', 'trying');
CREATE INDEX outbox_by_target ON outbox (registry_id, target, seq);
CREATE INDEX outbox_by_end ON outbox (registry_id, at) WHERE state IN ('delivered', 'failed');
