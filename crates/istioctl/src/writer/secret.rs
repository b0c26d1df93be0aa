//! `proxy-config secret`.

use anyhow::{Context as _, Result, anyhow};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use x509_parser::extensions::GeneralName;
use x509_parser::pem::Pem;

use super::{Format, message};
use crate::dump::{Dump, list, text};
use crate::table::Table;

const KIND: &str = "SecretsConfigDump";

/// One certificate of a secret.
#[derive(Debug, Default)]
struct Item {
    name: String,
    state: &'static str,
    certificate: Certificate,
}

/// What is told about a certificate; empty when there is none.
#[derive(Debug, Default)]
struct Certificate {
    kind: &'static str,
    valid: bool,
    serial: String,
    not_after: String,
    not_before: String,
    trust_domain: String,
}

/// The table. `named`: with the kind of the resource before its name, as `all` shows it.
///
/// # Errors
/// When the dump has no secrets.
pub fn summary(dump: &Dump, named: bool, now: OffsetDateTime) -> Result<String> {
    let section = dump.section(KIND)?;
    let (warming, active) = (
        list(section, "dynamic_warming_secrets"),
        list(section, "dynamic_active_secrets"),
    );
    if warming.is_empty() && active.is_empty() {
        return Ok("No active or warming secrets found.\n".to_owned());
    }
    let mut items = Vec::new();
    for (entries, state) in [(warming, "WARMING"), (active, "ACTIVE")] {
        items.extend(entries.iter().flat_map(|entry| items_of(entry, state, now)));
    }
    if items.is_empty() {
        return Ok("No secret items to show.\n".to_owned());
    }
    // A column for trust domains only where each certificate tells one.
    let domains = items
        .iter()
        .all(|item| !item.certificate.trust_domain.is_empty());
    let mut header = vec![
        "RESOURCE NAME",
        "TYPE",
        "STATUS",
        "VALID CERT",
        "SERIAL NUMBER",
        "NOT AFTER",
        "NOT BEFORE",
    ];
    if domains {
        header.push("TRUST DOMAIN");
    }
    let mut table = Table::new(&header);
    for item in items {
        let certificate = item.certificate;
        let prefix = if named { "secret/" } else { "" };
        let mut row = vec![
            format!("{prefix}{}", item.name),
            certificate.kind.to_owned(),
            item.state.to_owned(),
            certificate.valid.to_string(),
            certificate.serial,
            certificate.not_after,
            certificate.not_before,
        ];
        if domains {
            row.push(certificate.trust_domain);
        }
        table.row(&row);
    }
    Ok(table.render(5))
}

/// The secrets themselves.
///
/// # Errors
/// When the dump has no secrets.
pub fn dump(dump: &Dump, format: Format) -> Result<String> {
    let section = dump
        .section(KIND)
        .map_err(|error| anyhow!("sidecar doesn't support secrets: {error}"))?;
    Ok(message(
        "envoy.admin.v3.SecretsConfigDump",
        section,
        format,
        true,
    ))
}

/// The authority of the mesh as the proxy knows it, in PEM.
///
/// # Errors
/// When the dump does not have it.
pub fn root_ca(dump: &Dump) -> Result<Vec<u8>> {
    let section = dump
        .section(KIND)
        .map_err(|error| anyhow!("sidecar doesn't support secrets: {error}"))?;
    let secret = list(section, "dynamic_active_secrets")
        .iter()
        .find(|entry| text(entry, "name") == "ROOTCA")
        .context("cannot find ROOTCA from secret")?;
    inline(&secret["secret"]["validation_context"]["trusted_ca"]).context(
        "can not dump ROOTCA from secret: cannot retrieve inlineBytes from trustCA section",
    )
}

fn inline(source: &Value) -> Option<Vec<u8>> {
    STANDARD.decode(source["inline_bytes"].as_str()?).ok()
}

fn items_of(entry: &Value, state: &'static str, now: OffsetDateTime) -> Vec<Item> {
    let name = text(entry, "name").to_owned();
    let secret = &entry["secret"];
    let item = |certificate| Item {
        name: name.clone(),
        state,
        certificate,
    };
    let context = &secret["validation_context"];
    let pem = inline(&secret["tls_certificate"]["certificate_chain"])
        .or_else(|| inline(&context["trusted_ca"]));
    if let Some(pem) = pem {
        return vec![item(describe(&pem, "", now))];
    }
    let validator = &context["custom_validator_config"]["typed_config"];
    if text(validator, "@type").ends_with(".SPIFFECertValidatorConfig") {
        return list(validator, "trust_domains")
            .iter()
            .map(|domain| {
                let pem = inline(&domain["trust_bundle"]).unwrap_or_default();
                item(describe(&pem, text(domain, "name"), now))
            })
            .collect();
    }
    vec![item(Certificate::default())]
}

/// The first certificate of a PEM text.
fn describe(pem: &[u8], trust_domain: &str, now: OffsetDateTime) -> Certificate {
    let Some(Ok(pem)) = Pem::iter_from_buffer(pem).next() else {
        return Certificate::default();
    };
    let Ok(certificate) = pem.parse_x509() else {
        return Certificate::default();
    };
    let (after, before) = (
        certificate.validity().not_after.to_datetime(),
        certificate.validity().not_before.to_datetime(),
    );
    let authority = certificate
        .basic_constraints()
        .ok()
        .flatten()
        .is_some_and(|constraints| constraints.value.ca);
    let named = certificate.subject_alternative_name().ok().flatten();
    let spiffe = named.and_then(|names| {
        names
            .value
            .general_names
            .iter()
            .rev()
            .find_map(|name| match name {
                GeneralName::URI(uri) => uri.strip_prefix("spiffe://")?.split('/').next(),
                _ => None,
            })
    });
    let trust_domain = if trust_domain.is_empty() {
        spiffe.unwrap_or_default()
    } else {
        trust_domain
    };
    Certificate {
        kind: if authority { "CA" } else { "Cert Chain" },
        valid: now > before && now < after,
        serial: format!("{:0>32}", certificate.serial.to_str_radix(16)),
        not_after: after.format(&Rfc3339).unwrap_or_default(),
        not_before: before.format(&Rfc3339).unwrap_or_default(),
        trust_domain: trust_domain.to_owned(),
    }
}
