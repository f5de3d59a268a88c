-- Which agents hold a placement of an unfinished run or are asked to: what an agent's report is compared with, so that
-- a heartbeat reads a few runs and not the whole queue. Written with the state of the run, which says the same.

CREATE TABLE run_agents (
    registry_id INTEGER NOT NULL,
    agent       TEXT NOT NULL,
    run_number  INTEGER NOT NULL,
    PRIMARY KEY (registry_id, agent, run_number),
    FOREIGN KEY (registry_id, run_number) REFERENCES runs (registry_id, number)
) STRICT, WITHOUT ROWID;

CREATE INDEX run_agents_by_run ON run_agents (registry_id, run_number);

INSERT INTO run_agents (registry_id, agent, run_number)
SELECT DISTINCT r.registry_id, json_extract(p.value, '$.agent.name'), r.number
FROM runs r, json_each(r.state, '$.placements') p
WHERE r.finished IS NULL AND json_extract(p.value, '$.agent.name') IS NOT NULL;
