//! Structured logs on standard error.

use std::io::IsTerminal;
use std::sync::OnceLock;

use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Registry, reload};

static HANDLE: OnceLock<reload::Handle<Targets, Registry>> = OnceLock::new();

/// The environment variable that sets the level: `info`, or per target `info,theater_proxy=debug`.
pub const LEVEL_VARIABLE: &str = "THEATER_LOG";

/// Starts logging to standard error, once per process; later calls do nothing.
///
/// `default_level` applies where [`LEVEL_VARIABLE`] is unset or cannot be read.
pub fn init(default_level: LevelFilter) {
    let targets = std::env::var(LEVEL_VARIABLE)
        .ok()
        .and_then(|text| text.parse::<Targets>().ok())
        .unwrap_or_else(|| Targets::new().with_default(default_level));
    let layer = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    let (targets, handle) = reload::Layer::new(targets);
    // A second initialisation (tests) is not an error: the first one stays.
    if tracing_subscriber::registry()
        .with(targets)
        .with(layer)
        .try_init()
        .is_ok()
    {
        let _ = HANDLE.set(handle);
    }
}

/// Sets new levels while the process runs: one for everything, others for the targets that begin with a name.
/// Without [`init`] nothing is logged and nothing changes.
pub fn set_levels(default: LevelFilter, targets: &[(&str, LevelFilter)]) {
    let all = Targets::new().with_default(default).with_targets(
        targets
            .iter()
            .map(|(name, level)| ((*name).to_owned(), *level)),
    );
    if let Some(handle) = HANDLE.get() {
        let _ = handle.reload(all);
    }
}

pub use tracing_subscriber::filter::LevelFilter as Level;
