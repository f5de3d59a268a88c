-- The host of the forge that is to be told, so that a look at what is due reads no run: what the repository's URL has behind
-- its scheme and a user's name.
ALTER TABLE commit_statuses ADD COLUMN host TEXT NOT NULL DEFAULT '';
WITH urls AS (
         SELECT r.registry_id, r.number, coalesce(r.state ->> '$.origin.cause.repository', '') AS url FROM commit_statuses s
         CROSS JOIN runs r ON r.registry_id = s.registry_id AND r.number = s.run_number),
     bare AS (SELECT *, CASE instr(url, '://') WHEN 0 THEN url ELSE substr(url, instr(url, '://') + 3) END AS rest FROM urls),
     named AS (SELECT *, lower(substr(rest, 1, instr(rest || '/', '/') - 1)) AS authority FROM bare)
UPDATE commit_statuses SET host = substr(n.authority, instr(n.authority, '@') + 1)
FROM named n WHERE n.registry_id = commit_statuses.registry_id AND n.number = commit_statuses.run_number;

-- Nothing reads that a run was accepted: its row says so. It is written no more.
DELETE FROM events WHERE kind = 'run.accepted';
