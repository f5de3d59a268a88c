-- Segments of logs may be packed: bytes of `frames` that are fewer than frame_end - frame_start are an LZ4 block of them.
CREATE TABLE packed_log_segments (
    registry_id INTEGER NOT NULL,
    run_number  INTEGER NOT NULL,
    frame_start INTEGER NOT NULL,
    frame_end   INTEGER NOT NULL,
    text_start  INTEGER NOT NULL,
    text_end    INTEGER NOT NULL,
    frames      BLOB NOT NULL,
    PRIMARY KEY (registry_id, run_number, frame_start),
    FOREIGN KEY (registry_id, run_number) REFERENCES runs (registry_id, number),
    CHECK (frame_end >= frame_start + length(frames) AND length(frames) > 0 AND text_end >= text_start)
) STRICT;

INSERT INTO packed_log_segments SELECT * FROM log_segments;
DROP TABLE log_segments;
ALTER TABLE packed_log_segments RENAME TO log_segments;
CREATE INDEX log_segments_by_text ON log_segments (registry_id, run_number, text_end, text_start);
