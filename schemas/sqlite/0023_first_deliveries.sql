-- What is sent again keeps its place in time: it starts nothing that something newer has started already.

-- The number under which the delivery came first, where it was sent again.
ALTER TABLE deliveries ADD COLUMN first INTEGER;
-- That number of the delivery that told of the event; of what was found without one, the newest delivery's at that time.
ALTER TABLE source_events ADD COLUMN delivery INTEGER NOT NULL DEFAULT 0;
