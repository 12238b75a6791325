//! Usage: sums, as JSON or as comma-separated values.

use http::StatusCode;

use super::{AdminApi, Stored, json as answer, problem::Problem, query::Parameters};
use crate::{
    admin::{Answer, of_type},
    store::{By, Query, is_name, report},
};

impl AdminApi {
    pub(super) async fn usage(&self, stored: &Stored, query: &str) -> Result<Answer, Problem> {
        let known = ["by", "since", "until", "key", "format"];
        let parameters = Parameters::read(query, &known)?;
        let query = Query {
            by: by(parameters.get("by").unwrap_or("key,model"))?,
            since: parameters.time("since")?,
            until: parameters.time("until")?,
            key: parameters.get("key").map(key).transpose()?,
        };
        let in_csv = match parameters.get("format") {
            None | Some("json") => false,
            Some("csv") => true,
            Some(_) => return Err(Problem::Value("format is json or csv")),
        };
        let _alone = self.report()?;
        let sums = stored.store.usage(&query).await?;
        if in_csv {
            let mut text = report::usage_csv(&query, &sums).join("\r\n");
            text.push_str("\r\n");
            return Ok(of_type("text/csv; charset=utf-8", text));
        }
        Ok(answer(StatusCode::OK, &report::usage(&query, &sums)))
    }
}

/// The name or the id of a key; nothing else is told to the database.
fn key(text: &str) -> Result<String, Problem> {
    const WRONG: Problem =
        Problem::Value("key is a name or an id: 1 to 64 visible ASCII characters");
    is_name(text).then(|| text.to_owned()).ok_or(WRONG)
}

/// What usage is summed by: a list with commas, each once.
fn by(list: &str) -> Result<Vec<By>, Problem> {
    const WRONG: Problem = Problem::Value("by is a list of key, model, node and day, with commas");
    let mut by = Vec::new();
    for name in list.split(',') {
        let one: By = name.parse().map_err(|_| WRONG)?;
        if by.contains(&one) {
            return Err(Problem::Twice(one));
        }
        by.push(one);
    }
    Ok(by)
}
