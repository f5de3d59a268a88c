-- What runs were asked to do, for those who run them again; and contexts that outlive their runs.

CREATE TABLE run_requests (
    registry_id    INTEGER NOT NULL,
    run_number     INTEGER NOT NULL,
    -- The request in its own versioned form. It names secrets and holds none, and no query of a URL.
    request        TEXT NOT NULL CHECK (json_valid(request)),
    -- What stays known of the texts that the planning read, those that came with the request among them.
    digests        TEXT NOT NULL CHECK (json_valid(digests)),
    -- These texts; dropped when contexts of the run's age are.
    texts          TEXT CHECK (texts IS NULL OR json_valid(texts)),
    -- When the run ended, if it had texts then.
    ended          INTEGER,
    -- The uploaded context that the run began with: its row goes when the context does.
    context_digest TEXT,
    context_size   INTEGER CHECK (context_size >= 0),
    PRIMARY KEY (registry_id, run_number),
    FOREIGN KEY (registry_id, run_number) REFERENCES runs (registry_id, number),
    CHECK ((context_digest IS NULL) = (context_size IS NULL))
) STRICT;

CREATE INDEX run_requests_by_end ON run_requests (registry_id, ended) WHERE texts IS NOT NULL AND ended IS NOT NULL;

-- A context is kept for a time after the runs that used it.
DROP INDEX runs_by_context;
CREATE INDEX runs_by_context ON runs (registry_id, context_id, finished) WHERE context_id IS NOT NULL;
