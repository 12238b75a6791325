-- The entry of the audit log after which it begins, those up to it being kept no longer; number 0 while all are there.
CREATE TABLE audit_anchor (
  only_row INTEGER PRIMARY KEY CHECK (only_row = 1),
  seq BIGINT NOT NULL,
  hash TEXT NOT NULL
);
INSERT INTO audit_anchor (only_row, seq, hash)
VALUES (1, 0, '0000000000000000000000000000000000000000000000000000000000000000');
