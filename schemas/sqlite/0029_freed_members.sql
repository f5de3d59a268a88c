-- When the last pause ended that held a member of a wave: how long it lets others go first counts from then.
ALTER TABLE wave_members ADD COLUMN freed INTEGER;
