//! `region/zone/subzone`.

/// Where something runs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Locality {
    /// The region.
    pub region: String,
    /// The zone in the region.
    pub zone: String,
    /// The part of the zone.
    pub subzone: String,
}

impl Locality {
    /// From `region/zone/subzone`; parts may be missing.
    pub fn parse(text: &str) -> Self {
        let mut parts = text.splitn(3, '/').map(str::to_owned);
        Self {
            region: parts.next().unwrap_or_default(),
            zone: parts.next().unwrap_or_default(),
            subzone: parts.next().unwrap_or_default(),
        }
    }

    /// Whether nothing is known.
    pub fn is_empty(&self) -> bool {
        self.region.is_empty() && self.zone.is_empty() && self.subzone.is_empty()
    }

    /// Whether a rule such as `region/*` covers this locality.
    pub(crate) fn covered_by(&self, rule: &str) -> bool {
        let mut parts = rule.splitn(3, '/');
        for own in [&self.region, &self.zone, &self.subzone] {
            match parts.next() {
                None => return true,
                Some("*") => return true,
                Some("") => return true,
                Some(part) if part == own => {}
                Some(_) => return false,
            }
        }
        true
    }

    pub(crate) fn to_proto(&self) -> xds::envoy::config::core::v3::Locality {
        xds::envoy::config::core::v3::Locality {
            region: self.region.clone(),
            zone: self.zone.clone(),
            sub_zone: self.subzone.clone(),
        }
    }
}
