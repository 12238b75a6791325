-- What nodes signed of their replies, checked, and the names that the archive has for what each rests on. Who seals
-- chooses the ids of his requests himself: a receipt is one of its key's.
CREATE TABLE receipt (
  request_id TEXT NOT NULL,
  key_id TEXT NOT NULL,
  node TEXT NOT NULL,
  jws TEXT NOT NULL,
  salts TEXT,
  statement TEXT NOT NULL,
  evidence TEXT NOT NULL,
  nonce TEXT NOT NULL,
  policy TEXT NOT NULL,
  bundle TEXT,
  appraised_at BIGINT NOT NULL,
  checked_at BIGINT NOT NULL,
  PRIMARY KEY (request_id, key_id)
);
CREATE INDEX receipt_by_check ON receipt (checked_at);
