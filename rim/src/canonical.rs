//! Canonical XML 1.1 without comments (W3C, 2 May 2008), of a whole element.
//!
//! Only what [`document`](crate::document) lets through is written: no attributes of XML itself, so
//! that nothing but namespaces is inherited from outside the element.

use std::collections::BTreeMap;

use roxmltree::{Attribute, Node, NodeId};

/// The canonical form of `apex` and all below it but the element `without`.
///
/// Namespaces in force at the apex are written there, whoever declared them (section 2.4).
pub(crate) fn canonical(apex: Node<'_, '_>, without: Option<NodeId>) -> Vec<u8> {
    let mut out = String::new();
    write_element(&mut out, apex, &BTreeMap::new(), without);
    out.into_bytes()
}

/// Prefix to namespace; the default namespace's prefix is empty.
type Namespaces<'a> = BTreeMap<&'a str, &'a str>;

/// Recursion is bounded by the document's depth.
fn write_element(
    out: &mut String,
    element: Node<'_, '_>,
    outside: &Namespaces<'_>,
    without: Option<NodeId>,
) {
    let name = name_of(element);
    let inside: Namespaces<'_> = element
        .namespaces()
        .map(|namespace| (namespace.name().unwrap_or_default(), namespace.uri()))
        .collect();
    out.push('<');
    out.push_str(name);
    for (prefix, uri) in &inside {
        // Leaving the default namespace is written only where there is one to leave.
        let before = outside.get(prefix).copied();
        if before.unwrap_or_default() == *uri {
            continue;
        }
        let colon = if prefix.is_empty() { "" } else { ":" };
        write_attribute(out, &format!("xmlns{colon}{prefix}"), uri);
    }
    for attribute in sorted(element) {
        write_attribute(out, qualified_name(element, &attribute), attribute.value());
    }
    out.push('>');
    for child in element.children() {
        if child.is_element() && Some(child.id()) != without {
            write_element(out, child, &inside, without);
        } else if let Some(text) = child.text().filter(|_| child.is_text()) {
            escape_text(out, text);
        }
    }
    out.push_str("</");
    out.push_str(name);
    out.push('>');
}

/// By namespace, then by local name; those without a namespace first.
fn sorted<'a, 'input>(element: Node<'a, 'input>) -> Vec<Attribute<'a, 'input>> {
    let mut attributes: Vec<_> = element.attributes().collect();
    attributes.sort_by_key(|it| (it.namespace().unwrap_or_default().to_owned(), it.name()));
    attributes
}

fn write_attribute(out: &mut String, name: &str, value: &str) {
    out.push(' ');
    out.push_str(name);
    out.push_str("=\"");
    escape_value(out, value);
    out.push('"');
}

/// An element's name with its prefix, which stands in the text after `<`.
fn name_of<'input>(element: Node<'_, 'input>) -> &'input str {
    let text = element.document().input_text();
    let tag = text.get(element.range()).unwrap_or_default();
    let tag = tag.strip_prefix('<').unwrap_or_default();
    let ends = |c: char| matches!(c, ' ' | '\t' | '\r' | '\n' | '/' | '>');
    tag.split(ends).next().unwrap_or_default()
}

fn qualified_name<'input>(
    element: Node<'_, 'input>,
    attribute: &Attribute<'_, 'input>,
) -> &'input str {
    let text = element.document().input_text();
    text.get(attribute.range_qname()).unwrap_or_default()
}

fn escape_text(out: &mut String, text: &str) {
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '\r' => out.push_str("&#xD;"),
            _ => out.push(c),
        }
    }
}

fn escape_value(out: &mut String, value: &str) {
    for c in value.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '"' => out.push_str("&quot;"),
            '\t' => out.push_str("&#x9;"),
            '\n' => out.push_str("&#xA;"),
            '\r' => out.push_str("&#xD;"),
            _ => out.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use roxmltree::Document;

    use super::*;

    fn of(xml: &str, apex: &str, without: Option<&str>) -> String {
        let document = Document::parse(xml).unwrap();
        let find = |name: &str| {
            let mut all = document.descendants();
            all.find(|node| node.is_element() && node.tag_name().name() == name)
                .unwrap()
        };
        let out = canonical(find(apex), without.map(|name| find(name).id()));
        String::from_utf8(out).unwrap()
    }

    /// Expected values are those of `xmllint --c14n11`, where it can be asked for them.
    #[test]
    fn writes_what_the_standard_says() {
        let cases = [
            (
                "empty elements, blanks in tags, quotes",
                "<a  b = 'x'\n c=\"y\" />",
                "a",
                None,
                r#"<a b="x" c="y"></a>"#,
            ),
            (
                "attributes by namespace then name, namespaces by prefix",
                r#"<a xmlns:z="u:1" xmlns:y="u:2" z:b="1" y:a="2" c="3" a="4" z:a="5"/>"#,
                "a",
                None,
                r#"<a xmlns:y="u:2" xmlns:z="u:1" a="4" c="3" z:a="5" z:b="1" y:a="2"></a>"#,
            ),
            (
                "a namespace declared again is not written again",
                r#"<a xmlns="u:0" xmlns:p="v:0"><p:b xmlns:p="v:0" xmlns="u:0"><c xmlns:p="w:0"/></p:b></a>"#,
                "a",
                None,
                r#"<a xmlns="u:0" xmlns:p="v:0"><p:b><c xmlns:p="w:0"></c></p:b></a>"#,
            ),
            (
                "the default namespace is left only where there is one",
                r#"<a xmlns=""><b xmlns="u:0"><c xmlns=""><d xmlns=""/></c></b></a>"#,
                "a",
                None,
                r#"<a><b xmlns="u:0"><c xmlns=""><d></d></c></b></a>"#,
            ),
            (
                "two prefixes of one namespace stay apart",
                r#"<p:a xmlns:p="u:0" xmlns:q="u:0" xmlns="u:0"><q:b/><c/></p:a>"#,
                "a",
                None,
                r#"<p:a xmlns="u:0" xmlns:p="u:0" xmlns:q="u:0"><q:b></q:b><c></c></p:a>"#,
            ),
            (
                "an apex inherits namespaces, and no attribute",
                r#"<a xmlns="u:0" xmlns:p="v:0" x="1"><b xmlns:q="w:0"><c p:y="2">t</c></b></a>"#,
                "c",
                None,
                r#"<c xmlns="u:0" xmlns:p="v:0" xmlns:q="w:0" p:y="2">t</c>"#,
            ),
            (
                "what stands around the element left out stays",
                "<a>\n<b/>\n<c><b2/></c>\n</a>",
                "a",
                Some("c"),
                "<a>\n<b></b>\n\n</a>",
            ),
            (
                "text and values are escaped each in its way",
                "<a b=\"&lt;&gt;&amp;&quot;'&#9;&#10;&#13;\tx\">&lt;&gt;&amp;\"'&#13;\t\r\n</a>",
                "a",
                None,
                "<a b=\"&lt;>&amp;&quot;'&#x9;&#xA;&#xD; x\">&lt;&gt;&amp;\"'&#xD;\t\n</a>",
            ),
        ];
        for (name, xml, apex, without, expected) in cases {
            assert_eq!(of(xml, apex, without), expected, "{name}");
        }
    }
}
