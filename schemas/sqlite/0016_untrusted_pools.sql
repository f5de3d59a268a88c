-- Whether a pool is for the code of strangers: pull requests of forks run in such a pool alone.
ALTER TABLE pools ADD COLUMN untrusted INTEGER NOT NULL DEFAULT 0 CHECK (untrusted IN (0, 1));
