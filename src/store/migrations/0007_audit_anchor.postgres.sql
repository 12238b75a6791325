
-- Entries are removed up to the anchor alone, and it moves only forward, to an entry that is there, and with the
-- entry that says so as the log's last one.
DROP TRIGGER audit_is_not_changed ON audit;
CREATE TRIGGER audit_is_not_changed BEFORE UPDATE ON audit
FOR EACH ROW EXECUTE FUNCTION audit_is_kept();
CREATE FUNCTION audit_is_kept_after_its_anchor() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF COALESCE(OLD.seq < 1 OR OLD.seq > (SELECT seq FROM audit_anchor), TRUE) THEN
    RAISE EXCEPTION 'entries of the audit log are only ever added';
  END IF;
  RETURN OLD;
END;
$$;
CREATE TRIGGER audit_is_not_shortened BEFORE DELETE ON audit
FOR EACH ROW EXECUTE FUNCTION audit_is_kept_after_its_anchor();
CREATE FUNCTION audit_anchor_is_said() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF TG_OP = 'UPDATE' THEN
    IF NEW.seq > OLD.seq
      AND EXISTS (SELECT 1 FROM audit WHERE seq = NEW.seq AND hash = NEW.hash)
      AND EXISTS (SELECT 1 FROM audit WHERE seq = (SELECT seq FROM audit_head)
        AND event = 'audit.pruned' AND subject = NEW.seq || ' ' || NEW.hash)
    THEN
      RETURN NEW;
    END IF;
  END IF;
  RAISE EXCEPTION 'the audit log begins where an entry of it says';
END;
$$;
CREATE TRIGGER audit_begins_where_it_says BEFORE UPDATE OR DELETE ON audit_anchor
FOR EACH ROW EXECUTE FUNCTION audit_anchor_is_said();
CREATE TRIGGER audit_anchor_is_not_emptied BEFORE TRUNCATE ON audit_anchor
FOR EACH STATEMENT EXECUTE FUNCTION audit_anchor_is_said();
