-- When a tag was last pushed; `moved` is when it was last pointed at something else.
ALTER TABLE tags ADD COLUMN pushed INTEGER NOT NULL DEFAULT 0;
UPDATE tags SET pushed = moved;

-- Waves whose removal has begun: nobody is shown a part of one.
ALTER TABLE waves ADD COLUMN forgotten INTEGER NOT NULL DEFAULT 0 CHECK (forgotten IN (0, 1));
