//! The enveloped signature (XML Signature 1.1), in the one form that manifests have.

use attestation::chain::ChainKey;
use aws_lc_rs::digest::{SHA384, digest};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use roxmltree::{Document, Node};

use crate::canonical::canonical;

const DS: &str = "http://www.w3.org/2000/09/xmldsig#";
const C14N_11: &str = "http://www.w3.org/2006/12/xml-c14n11";
const ECDSA_SHA384: &str = "http://www.w3.org/2001/04/xmldsig-more#ecdsa-sha384";
const ENVELOPED: &str = "http://www.w3.org/2000/09/xmldsig#enveloped-signature";
const SHA384_URI: &str = "http://www.w3.org/2001/04/xmldsig-more#sha384";

/// Certificates in a manifest, the root among them.
const CHAIN_LEN: usize = 4;

/// What is wrong with a signature.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum SignatureError {
    /// Not exactly one signature, at the end of the document's element.
    #[error("{0} signatures, not one directly in the document's element")]
    Count(usize),
    /// An element that the form has is missing, or another stands in its place.
    #[error("`{0}` is not where and what it must be")]
    Element(&'static str),
    /// Another algorithm, or another address of what is signed.
    #[error("`{0}` is not as manifests have it")]
    Algorithm(&'static str),
    /// Not base64, or not of the right length.
    #[error("`{0}` is not base64 of the right length")]
    Base64(&'static str),
    /// Another number of certificates.
    #[error("{0} certificates, not {CHAIN_LEN}")]
    Certificates(usize),
    /// The document is not the one that was signed.
    #[error("the document's digest is not the signed one")]
    Digest,
    /// The leaf's key did not sign this.
    #[error("the signature does not verify")]
    Signature,
}

/// The signature of a document, taken apart; nothing about it is verified.
pub(crate) struct Signed<'a, 'input> {
    element: Node<'a, 'input>,
    signed_info: Node<'a, 'input>,
    digest: [u8; 48],
    signature: [u8; 96],
    chain: Vec<Vec<u8>>,
}

impl<'a, 'input> Signed<'a, 'input> {
    pub(crate) fn find(document: &'a Document<'input>) -> Result<Self, SignatureError> {
        let root = document.root_element();
        let signatures = document
            .descendants()
            .filter(|node| node.has_tag_name((DS, "Signature")));
        let signatures: Vec<_> = signatures.collect();
        let element = match signatures.as_slice() {
            [element] if element.parent() == Some(root) => *element,
            others => return Err(SignatureError::Count(others.len())),
        };
        let [signed_info, value, key_info] =
            children(element, ["SignedInfo", "SignatureValue", "KeyInfo"])?;
        Ok(Self {
            element,
            signed_info,
            digest: check_signed_info(signed_info)?,
            signature: bytes(value, "SignatureValue")?,
            chain: certificates(key_info)?,
        })
    }

    /// Leaf first, root last.
    pub(crate) fn chain(&self) -> &[Vec<u8>] {
        &self.chain
    }

    /// Checks that the document without its signature is the one that `SignedInfo` speaks of.
    pub(crate) fn check_digest(&self, document: &Document<'input>) -> Result<(), SignatureError> {
        let signed = canonical(document.root_element(), Some(self.element.id()));
        let same = digest(&SHA384, &signed).as_ref() == self.digest;
        same.then_some(()).ok_or(SignatureError::Digest)
    }

    /// Checks that the leaf's key signed `SignedInfo`.
    pub(crate) fn check_signature(&self, key: &ChainKey) -> Result<(), SignatureError> {
        let signed = canonical(self.signed_info, None);
        let verifies = key.verifies(&signed, &self.signature);
        verifies.then_some(()).ok_or(SignatureError::Signature)
    }
}

/// Checks the one form, and gives the digest in it.
fn check_signed_info(signed_info: Node<'_, '_>) -> Result<[u8; 48], SignatureError> {
    let [canonicalization, method, reference] = children(
        signed_info,
        ["CanonicalizationMethod", "SignatureMethod", "Reference"],
    )?;
    check_algorithm(canonicalization, "CanonicalizationMethod", C14N_11)?;
    check_algorithm(method, "SignatureMethod", ECDSA_SHA384)?;
    check_attribute(reference, "Reference", "URI", "")?;
    let [transforms, digest_method, value] =
        children(reference, ["Transforms", "DigestMethod", "DigestValue"])?;
    let [enveloped, canonical] = children(transforms, ["Transform", "Transform"])?;
    check_algorithm(enveloped, "Transform", ENVELOPED)?;
    check_algorithm(canonical, "Transform", C14N_11)?;
    check_algorithm(digest_method, "DigestMethod", SHA384_URI)?;
    bytes(value, "DigestValue")
}

fn certificates(key_info: Node<'_, '_>) -> Result<Vec<Vec<u8>>, SignatureError> {
    const NAME: &str = "X509Certificate";
    let [data] = children(key_info, ["X509Data"])?;
    let found: Vec<_> = elements(data).collect();
    if found.len() != CHAIN_LEN {
        return Err(SignatureError::Certificates(found.len()));
    }
    let read = |element: Node<'_, '_>| {
        if !element.has_tag_name((DS, NAME)) {
            return Err(SignatureError::Element(NAME));
        }
        let text: String = text_of(element, NAME)?.split_ascii_whitespace().collect();
        STANDARD
            .decode(text)
            .map_err(|_| SignatureError::Base64(NAME))
    };
    found.into_iter().map(read).collect()
}

fn elements<'a, 'input>(parent: Node<'a, 'input>) -> impl Iterator<Item = Node<'a, 'input>> {
    parent.children().filter(Node::is_element)
}

/// The child elements, which must be these and no others.
fn children<'a, 'input, const N: usize>(
    parent: Node<'a, 'input>,
    names: [&'static str; N],
) -> Result<[Node<'a, 'input>; N], SignatureError> {
    let found: Vec<_> = elements(parent).collect();
    for (at, name) in names.iter().enumerate() {
        let is_there = found.get(at).is_some_and(|it| it.has_tag_name((DS, *name)));
        if !is_there {
            return Err(SignatureError::Element(name));
        }
    }
    let last = names.last().copied().unwrap_or_default();
    found.try_into().map_err(|_| SignatureError::Element(last))
}

fn check_algorithm(
    element: Node<'_, '_>,
    name: &'static str,
    algorithm: &str,
) -> Result<(), SignatureError> {
    check_attribute(element, name, "Algorithm", algorithm)?;
    // A parameter would change what the algorithm does.
    let bare = elements(element).next().is_none();
    bare.then_some(()).ok_or(SignatureError::Algorithm(name))
}

/// Checks that an element has this one attribute with this value, and no other.
fn check_attribute(
    element: Node<'_, '_>,
    name: &'static str,
    attribute: &str,
    value: &str,
) -> Result<(), SignatureError> {
    let only = element.attributes().len() == 1;
    if only && element.attribute(attribute) == Some(value) {
        return Ok(());
    }
    Err(SignatureError::Algorithm(name))
}

fn text_of<'a>(element: Node<'a, '_>, name: &'static str) -> Result<&'a str, SignatureError> {
    let mut children = element.children();
    match (children.next(), children.next()) {
        (Some(text), None) if text.is_text() => text.text(),
        _ => None,
    }
    .ok_or(SignatureError::Element(name))
}

fn bytes<const N: usize>(
    element: Node<'_, '_>,
    name: &'static str,
) -> Result<[u8; N], SignatureError> {
    let text: String = text_of(element, name)?.split_ascii_whitespace().collect();
    let decoded = STANDARD.decode(text).ok();
    let bytes = decoded.and_then(|bytes| bytes.try_into().ok());
    bytes.ok_or(SignatureError::Base64(name))
}
