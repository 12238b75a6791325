//! The audit log: listed page by page, and verified.

use http::StatusCode;
use serde_json::json;

use super::{AdminApi, Stored, json as answer, problem::Problem, query::Parameters};
use crate::{
    admin::Answer,
    store::{Kept, report},
};

/// Entries of a page, unless it is said, and at most.
const PAGE: u32 = 100;
const MAX_PAGE: u32 = 1000;

impl AdminApi {
    pub(super) async fn audit(&self, stored: &Stored, query: &str) -> Result<Answer, Problem> {
        let parameters = Parameters::read(query, &["after", "since", "limit"])?;
        let after = parameters.number("after")?.map_or(0, i64::from);
        let since = parameters.time("since")?;
        let limit = parameters.number("limit")?.unwrap_or(PAGE);
        if !(1..=MAX_PAGE).contains(&limit) {
            return Err(Problem::Value("limit is 1 to 1000"));
        }
        let _alone = self.report()?;
        let entries = stored.store.audit(after, since, limit).await?;
        let is_full = u32::try_from(entries.len()) == Ok(limit);
        let next = entries.last().filter(|_| is_full).map(|last| last.seq);
        let told: Vec<_> = entries.iter().map(report::audit_entry).collect();
        let page = json!({ "audit": told, "next": next });
        Ok(answer(StatusCode::OK, &page))
    }

    pub(super) async fn verify(&self, stored: &Stored, query: &str) -> Result<Answer, Problem> {
        let parameters = Parameters::read(query, &["head"])?;
        let kept = parameters.get("head");
        let kept = kept.map(|text| Kept::hash(text).ok_or(Problem::Value("head is 64 hex digits")));
        let kept = kept.transpose()?;
        let _alone = self.walk.try_lock().map_err(|_| Problem::Walking)?;
        let audited = stored.store.verify_audit(kept.as_ref()).await?;
        Ok(answer(StatusCode::OK, &report::audited(&audited)))
    }
}
