//! The document as a page: no scripts, nothing loaded from anywhere.

use std::fmt::{self, Write as _};

use serde_json::Value;

/// Descends no deeper into schemas that stand inside others.
const MAX_DEPTH: u32 = 4;

const STYLE: &str = "\
:root{color-scheme:light dark;--line:color-mix(in srgb,currentColor 18%,transparent);\
--soft:color-mix(in srgb,currentColor 6%,transparent);--dim:color-mix(in srgb,currentColor 65%,transparent)}\
body{font:16px/1.5 system-ui,sans-serif;margin:0 auto;max-width:60rem;padding:1rem 1rem 4rem}\
h1{margin:.5rem 0}h2{margin:2.5rem 0 .5rem;border-bottom:1px solid var(--line)}h3{margin:1.5rem 0 .25rem}\
code,pre{font:.875em/1.5 ui-monospace,monospace}code{background:var(--soft);padding:.1em .3em;border-radius:4px}\
pre{background:var(--soft);padding:.75rem;border-radius:6px;overflow:auto}pre code{background:none;padding:0}\
table{border-collapse:collapse;width:100%;margin:.5rem 0}th,td{text-align:left;vertical-align:top;\
padding:.3rem .6rem .3rem 0;border-top:1px solid var(--line)}th{font-weight:600}\
td:first-child,th:first-child{white-space:nowrap;width:14rem}td:nth-child(2){width:16rem}small,.dim{color:var(--dim)}\
.method{font-weight:700;text-transform:uppercase;margin-right:.5em}summary{cursor:pointer;margin:.5rem 0}\
nav ul{columns:2;padding-left:1.2rem}@media(max-width:40rem){nav ul{columns:1}table,tbody,tr,td{display:block}\
thead{display:none}td{border:0;padding:.1rem 0}tr{border-top:1px solid var(--line);padding:.4rem 0;display:block}}";

/// Text in HTML.
struct Escaped<'a>(&'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for character in self.0.chars() {
            match character {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                other => f.write_char(other)?,
            }
        }
        Ok(())
    }
}

/// Text whose parts between backticks are code.
struct Prose<'a>(&'a str);

impl fmt::Display for Prose<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, part) in self.0.split('`').enumerate() {
            let part = Escaped(part);
            if at % 2 == 1 {
                write!(f, "<code>{part}</code>")?;
            } else {
                write!(f, "{part}")?;
            }
        }
        Ok(())
    }
}

/// Renders the document.
pub(super) fn render(document: &Value) -> String {
    let mut html = String::with_capacity(128 * 1024);
    // Writing to a string does not fail.
    let _ = write_page(&mut html, document);
    html
}

fn write_page(html: &mut String, document: &Value) -> fmt::Result {
    let info = &document["info"];
    let title = Escaped(text(&info["title"]));
    write!(
        html,
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width\"><title>{title} API</title>\
         <style>{STYLE}</style></head><body><h1>{title} <small>{}</small></h1><p>{}</p>\
         <p>A base URL ends in <code>/v1</code>. Keys go as <code>Authorization: Bearer KEY</code>. \
         Every reply has an <code>x-request-id</code>. For programs: \
         <a href=\"openapi.json\">openapi.json</a>.</p>",
        Escaped(text(&info["version"])),
        Prose(text(&info["description"])),
    )?;
    write_contents(html, document)?;
    for tag in list(&document["tags"]) {
        let name = text(&tag["name"]);
        write!(
            html,
            "<h2>{}</h2><p>{}</p>",
            Escaped(name),
            Prose(text(&tag["description"]))
        )?;
        for (path, method, operation) in operations(document) {
            if list(&operation["tags"]).first().map(text) == Some(name) {
                write_operation(html, document, path, method, operation)?;
            }
        }
    }
    html.push_str("</body></html>");
    Ok(())
}

fn write_contents(html: &mut String, document: &Value) -> fmt::Result {
    html.push_str("<nav><ul>");
    for (path, method, operation) in operations(document) {
        write!(
            html,
            "<li><a href=\"#{}\"><span class=\"method\">{}</span>{}</a></li>",
            Escaped(text(&operation["operationId"])),
            Escaped(method),
            Escaped(path),
        )?;
    }
    html.push_str("</ul></nav>");
    Ok(())
}

fn write_operation(
    html: &mut String,
    document: &Value,
    path: &str,
    method: &str,
    operation: &Value,
) -> fmt::Result {
    write!(
        html,
        "<h3 id=\"{}\"><span class=\"method\">{}</span><code>{}</code></h3>\
         <p><b>{}.</b> {}</p>",
        Escaped(text(&operation["operationId"])),
        Escaped(method),
        Escaped(path),
        Escaped(text(&operation["summary"])),
        Prose(text(&operation["description"])),
    )?;
    write_example(html, path, operation)?;
    let parameters = list(&operation["parameters"]);
    if !parameters.is_empty() {
        let rows = parameters.iter().map(|it| {
            let required = it["required"] == true;
            (
                text(&it["name"]),
                required,
                &it["schema"],
                text(&it["description"]),
            )
        });
        write_members(html, document, rows)?;
    }
    for (media_type, content) in object(at(operation, "/requestBody/content")) {
        write!(
            html,
            "<p>Request, <code>{}</code>:</p>",
            Escaped(media_type)
        )?;
        write_schema(html, document, &content["schema"], 0)?;
    }
    for (media_type, content) in object(at(operation, "/responses/200/content")) {
        let schema = if content["itemSchema"].is_null() {
            &content["schema"]
        } else {
            &content["itemSchema"]
        };
        write!(
            html,
            "<details><summary>Reply, <code>{}</code></summary>",
            Escaped(media_type)
        )?;
        write_schema(html, document, schema, 0)?;
        html.push_str("</details>");
    }
    html.push_str("<details><summary>Errors</summary><table><tbody>");
    for (status, response) in object(&operation["responses"]) {
        if status != "200" {
            write!(html, "<tr><td><code>{}</code></td><td>", Escaped(status))?;
            for line in text(&response["description"]).split("\n\n") {
                write!(html, "{}<br>", Prose(line))?;
            }
            html.push_str("</td></tr>");
        }
    }
    html.push_str("</tbody></table></details>");
    Ok(())
}

fn write_example(html: &mut String, path: &str, operation: &Value) -> fmt::Result {
    let example = at(operation, "/requestBody/content/application~1json/example");
    if example.is_null() {
        return Ok(());
    }
    let body = example.to_string();
    let line = format!(
        "curl http://127.0.0.1:8080{path} -H 'authorization: Bearer KEY' \\\n  \
         -H 'content-type: application/json' -d '{body}'"
    );
    write!(html, "<pre><code>{}</code></pre>", Escaped(&line))
}

fn write_schema(html: &mut String, document: &Value, schema: &Value, depth: u32) -> fmt::Result {
    let resolved = resolve(document, schema);
    let properties = object(&resolved["properties"]);
    if properties.is_empty() {
        return write!(html, "<p>{}</p>", Escaped(&kind(document, schema)));
    }
    let required = list(&resolved["required"]);
    let rows = properties.iter().map(|(name, property)| {
        let description = [property, resolve(document, property)]
            .into_iter()
            .map(|it| text(&it["description"]))
            .find(|it| !it.is_empty());
        let is_required = required.iter().any(|it| it == name.as_str());
        (
            name.as_str(),
            is_required,
            *property,
            description.unwrap_or_default(),
        )
    });
    let rows: Vec<_> = rows.collect();
    write_members(html, document, rows.iter().copied())?;
    for (name, _, property, _) in rows {
        let inner = parts(document, property)
            .into_iter()
            .find(|part| !object(&part["properties"]).is_empty());
        if let Some(inner) = inner.filter(|_| depth < MAX_DEPTH) {
            write!(
                html,
                "<details><summary><code>{}</code></summary>",
                Escaped(name)
            )?;
            write_schema(html, document, inner, depth.saturating_add(1))?;
            html.push_str("</details>");
        }
    }
    Ok(())
}

fn write_members<'a>(
    html: &mut String,
    document: &Value,
    rows: impl Iterator<Item = (&'a str, bool, &'a Value, &'a str)>,
) -> fmt::Result {
    html.push_str("<table><tbody>");
    for (name, required, schema, description) in rows {
        write!(
            html,
            "<tr><td><code>{}</code>{}</td><td>{}</td><td>{}</td></tr>",
            Escaped(name),
            if required {
                " <small>required</small>"
            } else {
                ""
            },
            Escaped(&kind(document, schema)),
            Prose(description),
        )?;
    }
    html.push_str("</tbody></table>");
    Ok(())
}

/// Bounds from here on are those of a type, and tell a reader nothing.
const MAX_SHOWN: f64 = 2_147_483_647.0;

/// What a value is, in words; that it may be null goes without saying.
fn kind(document: &Value, schema: &Value) -> String {
    let schema = resolve(document, schema);
    let variants = variants(schema);
    if !variants.is_empty() {
        let kinds = variants.iter().filter(|it| it["type"] != "null");
        let kinds = kinds.map(|it| kind(document, it));
        return kinds.collect::<Vec<_>>().join(" or ");
    }
    let values = list(&schema["enum"]);
    if !values.is_empty() {
        let words = values.iter().filter(|it| !it.is_null());
        let words = words.map(ToString::to_string);
        return words.collect::<Vec<_>>().join(", ");
    }
    if !schema["const"].is_null() {
        return schema["const"].to_string();
    }
    let types = match &schema["type"] {
        Value::String(one) => vec![one.as_str()],
        many => list(many)
            .iter()
            .map(text)
            .filter(|it| *it != "null")
            .collect(),
    };
    let types = types.into_iter().map(|it| match (it, &schema["items"]) {
        ("array", items) if !items.is_null() => format!("array of {}", kind(document, items)),
        (it, _) => it.to_owned(),
    });
    let mut words = types.collect::<Vec<_>>().join(" or ");
    if words.is_empty() {
        words.push_str("anything");
    }
    let is_shown = |bound: &&Value| bound.as_f64().is_some_and(|it| it.abs() < MAX_SHOWN);
    let bound = |name: &str| schema.get(name).filter(is_shown);
    let bounds = match (bound("minimum"), bound("maximum")) {
        (Some(least), Some(most)) => format!(" from {least} to {most}"),
        (Some(least), None) => format!(" from {least}"),
        _ => String::new(),
    };
    let default = schema
        .get("default")
        .map(|it| format!(", {it} unless given"));
    format!("{words}{bounds}{}", default.unwrap_or_default())
}

/// The schemas that a value can have, one for each variant; of an array, those of its items.
fn parts<'a>(document: &'a Value, schema: &'a Value) -> Vec<&'a Value> {
    let schema = resolve(document, schema);
    let variants = variants(schema);
    if !variants.is_empty() {
        return variants.iter().flat_map(|it| parts(document, it)).collect();
    }
    match (&schema["items"], &schema["contentSchema"]) {
        (Value::Null, Value::Null) => vec![schema],
        (Value::Null, content) => parts(document, content),
        (items, _) => parts(document, items),
    }
}

/// The schemas one of which a value has, if there is a choice.
fn variants(schema: &Value) -> &[Value] {
    match list(&schema["anyOf"]) {
        [] => list(&schema["oneOf"]),
        variants => variants,
    }
}

fn resolve<'a>(document: &'a Value, schema: &'a Value) -> &'a Value {
    let path = text(&schema["$ref"]).strip_prefix('#');
    path.map_or(schema, |path| at(document, path))
}

/// All operations, with their path and method.
fn operations(document: &Value) -> impl Iterator<Item = (&str, &str, &Value)> {
    object(&document["paths"])
        .into_iter()
        .flat_map(|(path, methods)| {
            let methods = object(methods).into_iter();
            methods.map(move |(method, operation)| (path.as_str(), method.as_str(), operation))
        })
}

/// What stands at a path (RFC 6901), or null.
fn at<'a>(value: &'a Value, path: &str) -> &'a Value {
    value.pointer(path).unwrap_or(&Value::Null)
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn object(value: &Value) -> Vec<(&String, &Value)> {
    value
        .as_object()
        .map_or_else(Vec::new, |it| it.iter().collect())
}
