-- One text for SQLite and PostgreSQL. Times are milliseconds since the Unix epoch, hashes are hex, costs are
-- thousand-millionths (10^-9) of the currency.

-- Counts every change of keys. Who changes one holds this row until he commits, so that changes become visible in
-- the order of their numbers, and nobody who follows them misses one.
CREATE TABLE change_count (
  only_row INTEGER PRIMARY KEY CHECK (only_row = 1),
  n BIGINT NOT NULL
);
INSERT INTO change_count (only_row, n) VALUES (1, 0);

-- What tells a wrong secret file from keys that nobody has.
CREATE TABLE secret_check (
  only_row INTEGER PRIMARY KEY CHECK (only_row = 1),
  hash TEXT NOT NULL
);

CREATE TABLE api_key (
  id TEXT PRIMARY KEY,
  name TEXT NOT NULL,
  owner TEXT,
  -- JSON: what its requests may be.
  terms TEXT NOT NULL,
  created_at BIGINT NOT NULL,
  expires_at BIGINT,
  revoked_at BIGINT,
  change_n BIGINT NOT NULL
);
-- A name is free again once its key is revoked.
CREATE UNIQUE INDEX api_key_by_name ON api_key (name) WHERE revoked_at IS NULL;
CREATE INDEX api_key_by_change ON api_key (change_n);

-- What opens a key: more than one while a rotation overlaps.
CREATE TABLE api_key_secret (
  hash TEXT PRIMARY KEY,
  key_id TEXT NOT NULL REFERENCES api_key (id),
  created_at BIGINT NOT NULL,
  ends_at BIGINT
);
CREATE INDEX api_key_secret_by_key ON api_key_secret (key_id);

-- A row for each request that was let in, never its content. What is not known is NULL, and never 0.
CREATE TABLE usage_row (
  request_id TEXT PRIMARY KEY,
  key_id TEXT NOT NULL,
  model TEXT,
  node TEXT,
  path TEXT NOT NULL,
  stream BOOLEAN NOT NULL,
  outcome TEXT NOT NULL,
  status BIGINT,
  code TEXT,
  prompt_tokens BIGINT,
  cached_tokens BIGINT,
  completion_tokens BIGINT,
  reasoning_tokens BIGINT,
  cost BIGINT,
  started_at BIGINT NOT NULL,
  first_byte_ms BIGINT,
  took_ms BIGINT,
  bytes_in BIGINT NOT NULL,
  bytes_out BIGINT NOT NULL
);
CREATE INDEX usage_row_by_start ON usage_row (started_at);
CREATE INDEX usage_row_by_key ON usage_row (key_id, started_at);
