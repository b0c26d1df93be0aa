//! Lines about the server itself, on standard output as Redis writes them.

use std::io::Write;

/// Writes one line.
pub(crate) fn line(text: impl std::fmt::Display) {
    let format = time::macros::format_description!(
        "[day] [month repr:short] [year] [hour]:[minute]:[second].[subsecond digits:3]"
    );
    let now = time::OffsetDateTime::now_utc()
        .format(format)
        .unwrap_or_default();
    // A closed output must not end the server.
    let _ = writeln!(std::io::stdout(), "{}:M {now} * {text}", std::process::id());
}
