//! Running analyzers.

use std::collections::BTreeSet;

use crate::analyzers::Analyzer;
use crate::context::{Context, Store};
use crate::files::{self, File, FileObjects};
use crate::kind::Kind;
use crate::message::{self, Message, Suppression};

/// What is asked for.
#[derive(Debug, Default)]
pub struct Options {
    /// The namespace whose messages are told; empty for all.
    pub namespace: String,
    /// What is not told.
    pub suppressions: Vec<Suppression>,
    /// The time, in seconds since 1970.
    pub now: i64,
}

/// What was found.
#[derive(Debug, Default)]
pub struct Report {
    /// The messages in order.
    pub messages: Vec<Message>,
    /// Analyzers that were asked for.
    pub executed: Vec<String>,
    /// Those of them that did not run, because kinds they need were not looked for.
    pub skipped: Vec<String>,
}

/// The kinds that `analyzers` need.
#[must_use]
pub fn kinds(analyzers: &[Analyzer]) -> BTreeSet<Kind> {
    analyzers
        .iter()
        .flat_map(|analyzer| analyzer.inputs.iter().copied())
        .collect()
}

/// Adds the objects of files to `store`; they have precedence over objects that are added later. Workloads are not taken from files.
pub fn offer_files(
    store: &mut Store,
    files: &[File],
    kinds: &BTreeSet<Kind>,
    default_namespace: &str,
) -> FileObjects {
    let mut readable = BTreeSet::new();
    for kind in kinds.iter().copied() {
        if !kind.only_live() && !kind.synthetic() {
            store.offer(kind);
        }
        if kind.in_files() {
            readable.insert(kind);
        }
    }
    let mut read = files::read(files, &readable, default_namespace);
    for object in std::mem::take(&mut read.objects) {
        store.add(object);
    }
    read
}

/// Runs `analyzers` over the objects of `store`.
#[must_use]
pub fn analyze(analyzers: &[Analyzer], store: &Store, options: &Options) -> Report {
    let mut report = Report::default();
    let mut context = Context::new(store, options.now);
    for analyzer in analyzers {
        report.executed.push(analyzer.name.to_string());
        if analyzer
            .inputs
            .iter()
            .all(|kind| store.kinds().contains(kind))
        {
            analyzer.run(&mut context);
        } else {
            report.skipped.push(analyzer.name.to_string());
        }
    }
    report.messages = context.into_messages();
    message::filter(
        &mut report.messages,
        &options.namespace,
        &options.suppressions,
    );
    message::sort(&mut report.messages);
    report
}
