//! `telemetry.ProviderAnalyzer`: access logs to nowhere (IST0157).

use crate::context::Context;
use crate::fields::Fields;
use crate::kind::Kind;
use crate::messages;

/// Runs the analyzer.
pub fn analyze(context: &mut Context<'_>) {
    let defaults = context.mesh().field("defaultProviders");
    if !defaults.items("accessLogging").is_empty() {
        return;
    }
    for telemetry in context.each(Kind::Telemetry) {
        for log in telemetry.spec.items("accessLogging") {
            if log.field("disabled") != true && log.items("providers").is_empty() {
                context.report(messages::invalid_telemetry_provider(
                    telemetry,
                    telemetry.name(),
                    telemetry.namespace(),
                ));
            }
        }
    }
}
