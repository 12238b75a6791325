-- A random mark of each change of keys, of the last ones. Who follows tells by it that a number is not the one
-- that he saw: the database is an older copy, and others have changed it since.
CREATE TABLE key_change (
  n BIGINT PRIMARY KEY,
  mark TEXT NOT NULL
);
INSERT INTO key_change (n, mark) SELECT n, 'first' FROM change_count;
