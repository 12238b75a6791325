-- What each key has spent in a period, added to with the usage rows themselves: no row counts twice here, and
-- none is missing. `starts_at` is the period's beginning in UTC, 0 for all time.
CREATE TABLE spend (
  key_id TEXT NOT NULL,
  period TEXT NOT NULL,
  starts_at BIGINT NOT NULL,
  tokens BIGINT NOT NULL,
  cost BIGINT NOT NULL,
  PRIMARY KEY (key_id, period, starts_at)
);

-- What a key is charged for a request whose tokens nobody counted, by what was seen of it.
ALTER TABLE usage_row ADD COLUMN charged_tokens BIGINT;
ALTER TABLE usage_row ADD COLUMN charged_cost BIGINT;

-- What the requests of a key hold and did at each gateway, written by that gateway alone and whole each time.
-- `beat` grows with every writing; a row that stays as it is has no gateway any more.
CREATE TABLE share (
  gateway_id TEXT NOT NULL,
  key_id TEXT NOT NULL,
  beat BIGINT NOT NULL,
  in_flight BIGINT NOT NULL,
  minute_n BIGINT NOT NULL,
  requests BIGINT NOT NULL,
  requests_before BIGINT NOT NULL,
  tokens BIGINT NOT NULL,
  tokens_before BIGINT NOT NULL,
  held_tokens BIGINT NOT NULL,
  held_cost BIGINT NOT NULL,
  PRIMARY KEY (gateway_id, key_id)
);
