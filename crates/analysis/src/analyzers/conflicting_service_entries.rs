//! `serviceentry.ConflictingServiceEntryProtocolAnalyzer`: one host and port with several protocols (IST0177).

use std::collections::{BTreeMap, BTreeSet};

use crate::context::Context;
use crate::fields::Fields;
use crate::kind::Kind;
use crate::messages;
use crate::object::Object;
use crate::services::{EVERYBODY, scopes};

/// Protocols with their entries, by scope, host and port.
type Index<'a> = BTreeMap<(String, &'a str, i64), Vec<(String, &'a Object)>>;

/// Runs the analyzer.
pub fn analyze(context: &mut Context<'_>) {
    let mut index: Index<'_> = BTreeMap::new();
    for entry in context.each(Kind::ServiceEntry) {
        for scope in scopes(&entry.spec.texts("exportTo"), entry.namespace()) {
            for host in entry.spec.texts("hosts") {
                for port in entry.spec.items("ports") {
                    index
                        .entry((scope.clone(), host, port.number("number")))
                        .or_default()
                        .push((port.text("protocol").to_uppercase(), entry));
                }
            }
        }
    }
    // Each is told once, of one host and port.
    let mut told = BTreeSet::new();
    for ((scope, host, port), own) in &index {
        let mut entries = own.clone();
        if scope != EVERYBODY {
            let for_everybody = index.get(&(EVERYBODY.to_owned(), *host, *port));
            entries.extend(for_everybody.into_iter().flatten().cloned());
        }
        let protocols: BTreeSet<&str> = entries
            .iter()
            .map(|(protocol, _)| protocol.as_str())
            .collect();
        if protocols.len() < 2 {
            continue;
        }
        let names: BTreeSet<String> = entries.iter().map(|(_, entry)| entry.full_name()).collect();
        let names: Vec<String> = names.into_iter().collect();
        let protocols: Vec<&str> = protocols.into_iter().collect();
        for (_, entry) in &entries {
            if told.insert(entry.full_name()) {
                context.report(
                    messages::conflicting_service_entry_protocol(
                        entry,
                        &names.join(", "),
                        host,
                        *port,
                        &protocols.join(", "),
                    )
                    .at("metadata.name"),
                );
            }
        }
    }
}
