
-- Against mistakes: who may change the schema can take these away, and the chain tells what he does then.
CREATE TRIGGER audit_is_not_changed BEFORE UPDATE ON audit
BEGIN SELECT RAISE(ABORT, 'entries of the audit log are only ever added'); END;
CREATE TRIGGER audit_is_not_shortened BEFORE DELETE ON audit
BEGIN SELECT RAISE(ABORT, 'entries of the audit log are only ever added'); END;
