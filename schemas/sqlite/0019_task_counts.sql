-- How many tasks a principal has is counted when another one is made; a row's state can be large.
CREATE INDEX tasks_by_principal ON tasks (registry_id, principal);
