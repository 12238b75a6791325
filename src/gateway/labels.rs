//! Regions and tags: what the configuration says of nodes, and what a request wants of them.
//!
//! They are the operator's word, not the evidence's. Each has a bit, so that a wish is two masks and
//! is compared in one step.

use std::collections::HashMap;

use http::{HeaderMap, HeaderName};

use super::{error::Error, hardware::Hardware};
use crate::{
    config::gateway::{Label, MAX_LABELS, NodeConfig},
    openai::RequestError,
};

/// The field that names the region that a request is to stay in; several are separated by commas.
pub(super) const REGION: HeaderName = HeaderName::from_static("sealgate-region");
/// The field that names the tags that a node must have.
pub(super) const TAGS: HeaderName = HeaderName::from_static("sealgate-tags");

/// Most names in one field.
pub(super) const MAX_NAMES: usize = 16;

/// All that the configuration has, each with its bit.
#[derive(Clone, Debug, Default)]
pub(super) struct Labels {
    regions: HashMap<String, u64>,
    tags: HashMap<String, u64>,
}

/// What is wanted of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Wish {
    /// Every one of these.
    all: u64,
    /// One of these.
    any: u64,
    /// A post-quantum key in its verified statement.
    pq: bool,
    /// By its verified evidence.
    hardware: Hardware,
}

/// A key's wish that no node of the configuration could fulfil.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("no node has the region or tag {0:?}")]
pub(super) struct UnknownLabel(String);

impl Wish {
    /// Any node will do.
    pub(super) const ANY: Self = Self {
        all: 0,
        any: u64::MAX,
        pq: false,
        hardware: Hardware::ANY,
    };

    /// No node will do.
    pub(super) const NONE: Self = Self {
        all: 0,
        any: 0,
        pq: false,
        hardware: Hardware::ANY,
    };

    /// The same, and a post-quantum key where one is required.
    pub(super) const fn with_pq(self, is_required: bool) -> Self {
        Self {
            pq: self.pq || is_required,
            ..self
        }
    }

    /// The same for a node of any key.
    pub(super) const fn of_any_key(self) -> Self {
        Self { pq: false, ..self }
    }

    /// The same, on hardware that does for both.
    pub(super) const fn on(self, hardware: Hardware) -> Self {
        Self {
            hardware: self.hardware.and(hardware),
            ..self
        }
    }

    /// The same on any hardware.
    pub(super) const fn on_any_hardware(self) -> Self {
        Self {
            hardware: Hardware::ANY,
            ..self
        }
    }

    /// What the evidence has to show.
    pub(super) const fn hardware(self) -> Hardware {
        self.hardware
    }

    /// Whether nothing may be sealed but to a post-quantum key.
    pub(super) const fn requires_pq(self) -> bool {
        self.pq
    }

    /// Whether a node with these labels will do, if its key does.
    pub(super) const fn takes(self, labels: u64) -> bool {
        labels & self.all == self.all && (self.any == u64::MAX || labels & self.any != 0)
    }

    /// What both want. A node is in one region, so that it is of both when it is of what they share.
    pub(super) const fn and(self, other: Self) -> Self {
        Self {
            all: self.all | other.all,
            any: self.any & other.any,
            pq: self.pq || other.pq,
            hardware: self.hardware.and(other.hardware),
        }
    }
}

impl Labels {
    /// These and those of the nodes: what has a bit keeps it, since nodes that stay have theirs.
    /// Nothing if there are more than bits.
    pub(super) fn with(&self, nodes: &[NodeConfig]) -> Option<Self> {
        let mut labels = self.clone();
        for node in nodes {
            if let Some(region) = &node.region {
                labels.add(|labels| &mut labels.regions, region)?;
            }
            for tag in &node.tags {
                labels.add(|labels| &mut labels.tags, tag)?;
            }
        }
        Some(labels)
    }

    fn add(
        &mut self,
        kind: impl Fn(&mut Self) -> &mut HashMap<String, u64>,
        label: &Label,
    ) -> Option<()> {
        let count = self.regions.len().saturating_add(self.tags.len());
        let map = kind(self);
        if !map.contains_key(label.as_str()) {
            let bit = u32::try_from(count).ok().filter(|_| count < MAX_LABELS)?;
            map.insert(label.as_str().to_owned(), 1 << bit);
        }
        Some(())
    }

    /// The bits of a node.
    pub(super) fn bits(&self, region: Option<&Label>, tags: &[Label]) -> u64 {
        let of = |map: &HashMap<String, u64>, label: &Label| {
            map.get(label.as_str()).copied().unwrap_or(0)
        };
        let region = region.map_or(0, |region| of(&self.regions, region));
        tags.iter()
            .fold(region, |bits, tag| bits | of(&self.tags, tag))
    }

    /// What a key's requests want.
    ///
    /// # Errors
    /// [`UnknownLabel`] if no node could ever take one.
    pub(super) fn wish(
        &self,
        regions: Option<&[Label]>,
        tags: &[Label],
    ) -> Result<Wish, UnknownLabel> {
        let regions = regions.map(|regions| regions.iter().map(Label::as_str));
        self.wish_of(regions, tags.iter().map(Label::as_str))
            .map_err(|unknown| UnknownLabel(unknown.to_owned()))
    }

    /// What the fields of a request want.
    ///
    /// # Errors
    /// [`Error::Request`] if they name what no node has.
    pub(super) fn wished(&self, headers: &HeaderMap) -> Result<Wish, Error> {
        if !headers.contains_key(REGION) && !headers.contains_key(TAGS) {
            return Ok(Wish::ANY);
        }
        let flaw = |field: HeaderName| {
            Error::Request(RequestError::Invalid {
                param: Some(field.as_str().to_owned().into()),
                expected: "at most 16 names that nodes of this gateway have, separated by commas",
            })
        };
        let regions = names(headers, &REGION).ok_or_else(|| flaw(REGION))?;
        let tags = names(headers, &TAGS).ok_or_else(|| flaw(TAGS))?;
        let regions = (!regions.is_empty()).then_some(regions.into_iter());
        let region = self.wish_of(regions, std::iter::empty());
        let region = region.map_err(|_| flaw(REGION))?;
        let tag = self.wish_of(None::<std::iter::Empty<&str>>, tags.into_iter());
        let tag = tag.map_err(|_| flaw(TAGS))?;
        Ok(region.and(tag))
    }

    fn wish_of<'a>(
        &self,
        regions: Option<impl Iterator<Item = &'a str>>,
        mut tags: impl Iterator<Item = &'a str>,
    ) -> Result<Wish, &'a str> {
        let all = tags.try_fold(0, |bits, tag| {
            self.tags.get(tag).map(|bit| bits | bit).ok_or(tag)
        })?;
        let any = match regions {
            None => u64::MAX,
            Some(mut regions) => regions.try_fold(0, |bits, region| {
                let bit = self.regions.get(region);
                bit.map(|bit| bits | bit).ok_or(region)
            })?,
        };
        Ok(Wish {
            all,
            any,
            ..Wish::ANY
        })
    }
}

/// The names in all fields of this name, or `None` if they are no names or too many.
fn names<'a>(headers: &'a HeaderMap, field: &HeaderName) -> Option<Vec<&'a str>> {
    let mut names = Vec::new();
    for value in headers.get_all(field) {
        for name in value.to_str().ok()?.split(',') {
            if names.len() == MAX_NAMES {
                return None;
            }
            names.push(name.trim_matches([' ', '\t']));
        }
    }
    Some(names)
}

#[cfg(test)]
pub(super) mod tests {
    use http::HeaderValue;

    use super::*;

    type Fields<'a> = &'a [(&'a str, &'a str)];

    fn label(text: &str) -> Label {
        Label::new(text).unwrap()
    }

    fn labels() -> Labels {
        let table = |region: &str, tags: &str| {
            format!("url = \"http://{region}\"\nregion = \"{region}\"\ntags = [{tags}]")
        };
        let nodes = [table("eu", "\"gdpr\", \"h100\""), table("us", "\"h100\"")];
        let nodes: Vec<NodeConfig> = nodes.iter().map(|it| toml::from_str(it).unwrap()).collect();
        Labels::default().with(&nodes).unwrap()
    }

    /// Nodes with both of the first two labels.
    pub(in crate::gateway) const fn two_tags() -> Wish {
        Wish {
            all: 3,
            ..Wish::ANY
        }
    }

    #[test]
    fn a_node_is_taken_if_it_has_every_tag_and_one_of_the_regions() {
        let labels = labels();
        let eu = labels.bits(Some(&label("eu")), &[label("gdpr"), label("h100")]);
        let us = labels.bits(Some(&label("us")), &[label("h100")]);
        let cases: [(Fields<'_>, [bool; 3]); 8] = [
            (&[], [true, true, true]),
            (&[("sealgate-region", "eu")], [true, false, false]),
            (&[("sealgate-region", "eu, us")], [true, true, false]),
            (
                &[("sealgate-region", "eu"), ("sealgate-region", "us")],
                [true, true, false],
            ),
            (&[("sealgate-tags", "h100")], [true, true, false]),
            (&[("sealgate-tags", "h100,gdpr")], [true, false, false]),
            (
                &[("sealgate-region", "us"), ("sealgate-tags", "gdpr")],
                [false, false, false],
            ),
            (
                &[("sealgate-region", "us"), ("sealgate-tags", "h100")],
                [false, true, false],
            ),
        ];
        for (fields, expected) in cases {
            let mut headers = HeaderMap::new();
            for (name, value) in fields {
                headers.append(*name, HeaderValue::from_str(value).unwrap());
            }
            let wish = labels.wished(&headers).unwrap();
            assert_eq!(
                [eu, us, 0].map(|bits| wish.takes(bits)),
                expected,
                "{fields:?}"
            );
        }
    }

    #[test]
    fn a_label_keeps_its_bit_and_bits_come_to_an_end() {
        let first = labels();
        let tagged = |tags: &[String]| -> NodeConfig {
            let tags: Vec<_> = tags.iter().map(|tag| format!("\"{tag}\"")).collect();
            toml::from_str(&format!("url = \"http://a\"\ntags = [{}]", tags.join(","))).unwrap()
        };
        let names: Vec<_> = (0..MAX_LABELS).map(|i| format!("t{i}")).collect();
        let next = first.with(&[tagged(&names[..4])]).unwrap();
        for name in ["gdpr", "h100"] {
            let bits = |labels: &Labels| labels.bits(None, &[label(name)]);
            assert_eq!(bits(&first), bits(&next));
        }
        assert!(first.with(&[tagged(&names[..MAX_LABELS - 4])]).is_some());
        assert!(first.with(&[tagged(&names[..MAX_LABELS - 3])]).is_none());
    }

    #[test]
    fn what_no_node_has_is_refused_by_its_field() {
        let many = ["eu"; MAX_NAMES + 1].join(",");
        let cases = [
            ("sealgate-region", "mars"),
            ("sealgate-region", ""),
            ("sealgate-region", "eu,"),
            ("sealgate-region", "h100"),
            ("sealgate-tags", "EU"),
            ("sealgate-tags", "h100 gdpr"),
            ("sealgate-region", many.as_str()),
        ];
        for (name, value) in cases {
            let headers = HeaderMap::from_iter([(
                HeaderName::from_static(name),
                HeaderValue::from_str(value).unwrap(),
            )]);
            match labels().wished(&headers) {
                Err(Error::Request(RequestError::Invalid { param, .. })) => {
                    assert_eq!(param.as_deref(), Some(name));
                }
                other => panic!("{name}: {value}: {other:?}"),
            }
        }
    }

    #[test]
    fn a_request_can_only_narrow_what_its_key_may() {
        let labels = labels();
        let key = labels.wish(Some(&[label("eu")]), &[]).unwrap();
        let [eu, us] = ["eu", "us"].map(|name| labels.bits(Some(&label(name)), &[]));
        let headers = HeaderMap::from_iter([(REGION, HeaderValue::from_static("us"))]);
        let both = key.and(labels.wished(&headers).unwrap());
        assert!(!both.takes(us) && !both.takes(eu) && !both.takes(0));
        assert!(key.and(Wish::ANY).takes(eu));
        assert!(!key.and(Wish::ANY).takes(us));
        let none = labels.wish(Some(&[]), &[]).unwrap();
        assert!(!none.takes(eu), "no region at all");
        let careful = Wish::ANY
            .with_pq(true)
            .and(labels.wished(&headers).unwrap());
        assert!(careful.requires_pq() && !key.requires_pq());
        assert_eq!(careful.of_any_key(), labels.wished(&headers).unwrap());
        let on_one = Hardware::of(None, true);
        let kept = key.on(on_one).and(labels.wished(&headers).unwrap());
        assert_eq!(kept.hardware(), on_one);
        assert_eq!(kept.on_any_hardware().hardware(), Hardware::ANY);
        let unknown = labels.wish(None, &[label("mars")]);
        assert_eq!(unknown, Err(UnknownLabel("mars".to_owned())));
    }
}
