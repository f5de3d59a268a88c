-- From here on, tasks hold their endpoints sealed: an older release could not read them.

-- What was given up has no answer; the one of the try before is not its own.
UPDATE outbox SET last_status = NULL WHERE state = 'failed' AND last_said LIKE 'given up:%';
