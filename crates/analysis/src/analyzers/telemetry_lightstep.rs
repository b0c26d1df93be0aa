//! `telemetry.LightstepAnalyzer`: tracing with a provider that is going away (IST0002).

use crate::context::Context;
use crate::fields::Fields;
use crate::kind::Kind;
use crate::messages;

/// Runs the analyzer.
pub fn analyze(context: &mut Context<'_>) {
    let providers: Vec<&str> = context
        .mesh()
        .items("extensionProviders")
        .iter()
        .filter(|provider| provider.has("lightstep"))
        .map(|provider| provider.text("name"))
        .collect();
    for telemetry in context.each(Kind::Telemetry) {
        for tracing in telemetry.spec.items("tracing") {
            for provider in tracing.items("providers") {
                let name = provider.text("name");
                if providers.contains(&name) {
                    context.report(messages::deprecated(
                        telemetry,
                        &format!(
                            "The Lightstep provider {name} is deprecated, please migrate to OpenTelemetry provider."
                        ),
                    ));
                }
            }
        }
    }
}
