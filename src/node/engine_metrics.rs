//! What an engine's `/metrics` tells of its load, in Prometheus' text format 0.0.4.
//!
//! A page counts as a whole or not at all: what cannot be read may be cut short or something else.

/// Most bytes of a page.
pub(super) const MAX_PAGE: usize = 4 * 1024 * 1024;
/// Most bytes of one of its lines.
const MAX_LINE: usize = 16 * 1024;
/// More requests than any engine has.
const MAX_REQUESTS: f64 = 1e9;

/// Names of vLLM and of llama.cpp for what is read.
const RUNNING: [&str; 2] = ["vllm:num_requests_running", "llamacpp:requests_processing"];
const WAITING: [&str; 2] = ["vllm:num_requests_waiting", "llamacpp:requests_deferred"];
const KV_CACHE: [&str; 3] = [
    "vllm:kv_cache_usage_perc",
    "vllm:gpu_cache_usage_perc",
    "llamacpp:kv_cache_usage_ratio",
];

/// What an engine says of its load; nothing where it does not.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Load {
    /// Requests that it works on.
    pub(super) running: Option<u64>,
    /// Requests that wait in it.
    pub(super) waiting: Option<u64>,
    /// The used part of its cache of keys and values, from 0 to 1; of several the fullest.
    pub(super) kv_cache: Option<f64>,
}

/// A page that cannot be read, with the number of the line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum PageError {
    #[error("the page is longer than {MAX_PAGE} bytes, or no text")]
    Text,
    #[error("line {0} is no sample")]
    Line(usize),
    #[error("line {0} has no sensible number")]
    Number(usize),
}

impl Load {
    /// Reads a page. What an engine tells of several models or parts of itself is added up.
    ///
    /// # Errors
    /// [`PageError`] at the first line that is none of the format.
    pub(super) fn read(page: &[u8]) -> Result<Self, PageError> {
        let text = str::from_utf8(page).ok();
        let text = text.filter(|text| text.len() <= MAX_PAGE);
        let mut load = Self::default();
        for (number, line) in (1..).zip(text.ok_or(PageError::Text)?.split('\n')) {
            let line = line.strip_suffix('\r').unwrap_or(line);
            if line.len() > MAX_LINE {
                return Err(PageError::Line(number));
            }
            if line.trim_matches(BLANKS).is_empty() || line.starts_with('#') {
                continue;
            }
            let (name, value) = sample(line).ok_or(PageError::Line(number))?;
            load.add(name, value).ok_or(PageError::Number(number))?;
        }
        Ok(load)
    }

    fn add(&mut self, name: &str, value: f64) -> Option<()> {
        if RUNNING.contains(&name) {
            self.running = Some(self.running.unwrap_or(0).saturating_add(requests(value)?));
        } else if WAITING.contains(&name) {
            self.waiting = Some(self.waiting.unwrap_or(0).saturating_add(requests(value)?));
        } else if KV_CACHE.contains(&name) {
            let value = Some(value).filter(|it| it.is_finite())?.clamp(0.0, 1.0);
            self.kv_cache = Some(self.kv_cache.unwrap_or(0.0).max(value));
        }
        Some(())
    }
}

const BLANKS: [char; 2] = [' ', '\t'];

fn requests(value: f64) -> Option<u64> {
    let sensible = (0.0..=MAX_REQUESTS).contains(&value);
    // In this range the conversion drops a fraction and nothing else.
    sensible.then_some(value as u64)
}

/// A sample's name and value: `name{label="value",…} value timestamp`.
fn sample(line: &str) -> Option<(&str, f64)> {
    let (name, rest) = word(line, |byte| byte == b':')?;
    let rest = match rest.trim_start_matches(BLANKS).strip_prefix('{') {
        Some(labels) => after_labels(labels)?,
        None => rest.strip_prefix(BLANKS)?,
    };
    let mut words = rest.split(BLANKS).filter(|word| !word.is_empty());
    let value = words.next()?.parse().ok()?;
    if let Some(timestamp) = words.next() {
        timestamp.parse::<i64>().ok()?;
    }
    words.next().is_none().then_some((name, value))
}

/// A name at the front of a text, in which `also` may stand too, and what follows it.
fn word(text: &str, also: impl Fn(u8) -> bool) -> Option<(&str, &str)> {
    let is_of_name = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || also(byte);
    let end = text.bytes().position(|byte| !is_of_name(byte));
    let (name, rest) = text.split_at_checked(end.unwrap_or(text.len()))?;
    let sound = name
        .bytes()
        .next()
        .is_some_and(|first| !first.is_ascii_digit());
    sound.then_some((name, rest))
}

/// What follows the labels whose brace was opened.
fn after_labels(mut text: &str) -> Option<&str> {
    loop {
        text = text.trim_start_matches(BLANKS);
        if let Some(rest) = text.strip_prefix('}') {
            return Some(rest);
        }
        let (_, rest) = word(text, |_| false)?;
        let rest = rest.trim_start_matches(BLANKS).strip_prefix('=')?;
        let rest = rest.trim_start_matches(BLANKS).strip_prefix('"')?;
        text = after_value(rest)?.trim_start_matches(BLANKS);
        text = match text.strip_prefix(',') {
            Some(rest) => rest,
            None if text.starts_with('}') => text,
            None => return None,
        };
    }
}

/// What follows a label's value whose quotation was opened.
fn after_value(text: &str) -> Option<&str> {
    let mut characters = text.chars();
    loop {
        match characters.next()? {
            '"' => return Some(characters.as_str()),
            '\\' => match characters.next()? {
                '\\' | '"' | 'n' => {}
                _ => return None,
            },
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As llama.cpp's server writes it.
    const LLAMA: &str = "# HELP llamacpp:n_tokens_max Largest observed sequence length\n\
        # TYPE llamacpp:n_tokens_max counter\nllamacpp:n_tokens_max 7\n\
        # HELP llamacpp:predicted_tokens_seconds Average generation throughput in tokens/s\n\
        # TYPE llamacpp:predicted_tokens_seconds gauge\n\
        llamacpp:predicted_tokens_seconds 1.25e+02\n\
        # TYPE llamacpp:requests_processing gauge\nllamacpp:requests_processing 4\n\
        # TYPE llamacpp:requests_deferred gauge\nllamacpp:requests_deferred 3\n";

    /// In the shape of vLLM's, with two parts.
    const VLLM: &str = "# HELP python_info Python platform information\n\
        python_info{implementation=\"CPython\",version=\"3.12\"} 1.0\n\
        vllm:num_requests_running{engine=\"0\",model_name=\"a/b\"} 5.0\n\
        vllm:num_requests_running{engine=\"1\",model_name=\"a/b\"} 6.0\n\
        vllm:num_requests_waiting{engine=\"0\",model_name=\"a\\\\}\\\" \\nb\"} 2.0 1763000000000\n\
        vllm:kv_cache_usage_perc{engine=\"0\",model_name=\"a/b\"} 0.25\n\
        vllm:kv_cache_usage_perc{engine=\"1\",model_name=\"a/b\"} 0.5\n\
        vllm:e2e_request_latency_seconds_bucket{le=\"+Inf\",model_name=\"a/b\"} 0.0\n\
        vllm:request_max_num_generation_tokens_created{model_name=\"a/b\"} 1.763e+09\n";

    fn load(running: u64, waiting: u64, kv_cache: Option<f64>) -> Load {
        Load {
            running: Some(running),
            waiting: Some(waiting),
            kv_cache,
        }
    }

    #[test]
    fn pages_of_engines_are_read() {
        let cases = [
            (LLAMA, load(4, 3, None)),
            (VLLM, load(11, 2, Some(0.5))),
            ("", Load::default()),
            ("\n \t\n#\n# any { text\n", Load::default()),
            (
                "a 1\r\nb{} +Inf\r\nc { x = \"y\" , } NaN 5\n",
                Load::default(),
            ),
            ("vllm:num_requests_running_total 5", Load::default()),
        ];
        for (page, expected) in cases {
            assert_eq!(Load::read(page.as_bytes()), Ok(expected), "{page}");
        }
        let older = VLLM.replace("kv_cache_usage", "gpu_cache_usage");
        assert_eq!(Load::read(older.as_bytes()), Ok(load(11, 2, Some(0.5))));
        let full = "llamacpp:kv_cache_usage_ratio 1.5";
        assert_eq!(Load::read(full.as_bytes()).unwrap().kv_cache, Some(1.0));
    }

    #[test]
    fn a_page_that_is_none_is_not_read_in_part() {
        let lines = [
            "<html>",
            "{\"error\":\"no\"}",
            "a",
            "a ",
            "a b",
            "a 1 b",
            "a 1 2 3",
            "1a 1",
            "a-b 1",
            "a{ 1",
            "a{b} 1",
            "a{b=c} 1",
            "a{b=\"c} 1",
            "a{b=\"\\x\"} 1",
            "a{b=\"c\" d=\"e\"} 1",
            "a{b:c=\"d\"} 1",
            "a{,} 1",
            " a 1",
        ];
        for line in lines {
            let page = format!("{LLAMA}{line}\n");
            let expected = Err(PageError::Line(11));
            assert_eq!(Load::read(page.as_bytes()), expected, "{line}");
        }
        for value in ["-1", "NaN", "+Inf", "1e10"] {
            let page = format!("llamacpp:requests_deferred {value}");
            assert_eq!(
                Load::read(page.as_bytes()),
                Err(PageError::Number(1)),
                "{value}"
            );
        }
        let long = format!("a{{b=\"{}\"}} 1", "c".repeat(MAX_LINE));
        assert_eq!(Load::read(long.as_bytes()), Err(PageError::Line(1)));
        assert_eq!(Load::read(&[0xFF]), Err(PageError::Text));
        let long = "#\n".repeat(MAX_PAGE / 2 + 1);
        assert_eq!(Load::read(long.as_bytes()), Err(PageError::Text));
    }
}
