//! The part of XML that is read: elements, attributes and text, in bounds.

use std::collections::HashSet;

use roxmltree::{Document, Node, ParsingOptions};

/// Deepest nesting of elements; a manifest has 6 levels.
const MAX_DEPTH: usize = 16;
/// Most nodes; a manifest has about 200.
const MAX_NODES: u32 = 4096;
/// Most equals signs, and so attributes; a manifest has about 600. The parser compares each
/// attribute of an element with each.
const MAX_EQUALS: usize = 4096;
/// Most declarations of namespaces; a manifest has 6. The parser copies those in force to each
/// element that declares one.
const MAX_NAMESPACES: usize = 32;

/// What is wrong with a document before anything is looked for in it.
#[derive(Debug, thiserror::Error)]
pub enum DocumentError {
    /// Not UTF-8.
    #[error("not UTF-8 text")]
    Utf8,
    /// XML with a part that no manifest has.
    #[error("XML with {0}, which no manifest has")]
    Refused(&'static str),
    /// More of something than any manifest has.
    #[error("more than {limit} {what}")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// The limit.
        limit: usize,
    },
    /// Not well formed.
    #[error("not well-formed XML: {0}")]
    Xml(#[from] roxmltree::Error),
}

/// The text of a document, once it holds nothing but elements, attributes and text, apart from an
/// XML declaration at its start.
pub(crate) fn text(bytes: &[u8]) -> Result<&str, DocumentError> {
    let text = std::str::from_utf8(bytes).map_err(|_| DocumentError::Utf8)?;
    let body = text.strip_prefix("<?xml ").unwrap_or(text);
    let refused = [
        ("<!", "a comment, document type or CDATA section"),
        ("<?", "a processing instruction"),
        ("&", "a reference"),
        ("xml:", "an attribute of XML itself"),
        ("xmlns:xml", "a declaration of XML's own prefix"),
        // The parser takes it for a declaration of the default namespace.
        (":xmlns", "a declaration under a prefix"),
    ];
    for (mark, what) in refused {
        if body.contains(mark) {
            return Err(DocumentError::Refused(what));
        }
    }
    let bounded = [
        ("=", "attributes", MAX_EQUALS),
        ("xmlns", "namespaces", MAX_NAMESPACES),
    ];
    for (mark, what, limit) in bounded {
        if body.matches(mark).count() > limit {
            return Err(DocumentError::TooMany { what, limit });
        }
    }
    Ok(text)
}

/// The tree of a [`text`].
pub(crate) fn parse(text: &str) -> Result<Document<'_>, DocumentError> {
    let options = ParsingOptions {
        allow_dtd: false,
        nodes_limit: MAX_NODES,
        ..ParsingOptions::default()
    };
    let document = Document::parse_with_options(text, options)?;
    check(document.root_element(), MAX_DEPTH)?;
    Ok(document)
}

/// Checks that an element, and what is below it, has `levels` of elements at most, and declares no
/// namespace twice: the parser lets the default one pass, and goes by the first where the canonical
/// form would have the last.
fn check(element: Node<'_, '_>, levels: usize) -> Result<(), DocumentError> {
    let below = levels.checked_sub(1).ok_or(DocumentError::TooMany {
        what: "levels of elements",
        limit: MAX_DEPTH,
    })?;
    let mut prefixes = HashSet::new();
    if !element.namespaces().all(|it| prefixes.insert(it.name())) {
        return Err(DocumentError::Refused("a namespace declared twice"));
    }
    let mut children = element.children().filter(Node::is_element);
    children.try_for_each(|child| check(child, below))
}
