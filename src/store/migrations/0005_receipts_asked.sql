-- When a node was asked for the evidence that a receipt rests on: evidence is as fresh as it was then, however often
-- it was judged anew since. Not known of receipts of before.
ALTER TABLE receipt ADD COLUMN asked_at BIGINT;
