
-- Entries are removed up to the anchor alone, and it moves only forward, to an entry that is there, and with the
-- entry that says so as the log's last one.
DROP TRIGGER audit_is_not_shortened;
CREATE TRIGGER audit_is_not_shortened BEFORE DELETE ON audit
WHEN COALESCE(typeof(OLD.seq) <> 'integer' OR OLD.seq < 1 OR OLD.seq > (SELECT seq FROM audit_anchor), 1)
BEGIN SELECT RAISE(ABORT, 'entries of the audit log are only ever added'); END;
CREATE TRIGGER audit_begins_where_it_says BEFORE UPDATE ON audit_anchor
WHEN NEW.seq <= OLD.seq
  OR NOT EXISTS (SELECT 1 FROM audit WHERE seq = NEW.seq AND hash = NEW.hash)
  OR NOT EXISTS (SELECT 1 FROM audit WHERE seq = (SELECT seq FROM audit_head)
    AND event = 'audit.pruned' AND subject = NEW.seq || ' ' || NEW.hash)
BEGIN SELECT RAISE(ABORT, 'the audit log begins where an entry of it says'); END;
CREATE TRIGGER audit_anchor_is_kept BEFORE DELETE ON audit_anchor
BEGIN SELECT RAISE(ABORT, 'the audit log begins where an entry of it says'); END;
-- INSERT OR REPLACE asks neither of the triggers on what it removes. Nothing is added where an entry is: so the program
-- adds its own, too.
CREATE TRIGGER audit_anchor_is_one BEFORE INSERT ON audit_anchor
BEGIN SELECT RAISE(ABORT, 'the audit log begins where an entry of it says'); END;
CREATE TRIGGER audit_is_not_replaced BEFORE INSERT ON audit
WHEN EXISTS (SELECT 1 FROM audit WHERE seq = NEW.seq)
BEGIN SELECT RAISE(IGNORE); END;
