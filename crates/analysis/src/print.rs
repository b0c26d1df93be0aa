//! Messages as text, JSON and YAML.

use libyaml_safer::{Emitter, Encoding, Event, MappingStyle, ScalarStyle, SequenceStyle};

use crate::message::{Level, Message};
use crate::yaml::{Scalar, resolve};

/// A form of output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// One line a message.
    Log,
    /// A JSON list.
    Json,
    /// A YAML list.
    Yaml,
}

impl Format {
    /// The form with this name, in any case.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        match name.to_lowercase().as_str() {
            "log" => Some(Format::Log),
            "json" => Some(Format::Json),
            "yaml" => Some(Format::Yaml),
            _ => None,
        }
    }
}

/// All messages in one form, without a last line break except for YAML, as Istio has it.
#[must_use]
pub fn print(messages: &[Message], format: Format, color: bool) -> String {
    match format {
        Format::Log => {
            let lines: Vec<_> = messages
                .iter()
                .map(|message| line(message, color))
                .collect();
            lines.join("\n")
        }
        Format::Json => json(messages),
        Format::Yaml => yaml(messages),
    }
}

fn line(message: &Message, color: bool) -> String {
    if !color {
        return message.to_string();
    }
    let start = match message.level {
        Level::Error => "\u{1b}[1;31m",
        Level::Warning => "\u{1b}[33m",
        Level::Info => "",
    };
    format!("{start}{}\u{1b}[0m{}", message.level, message.rest())
}

/// The fields of a message, in alphabetical order.
fn fields(message: &Message) -> Vec<(&'static str, String)> {
    let mut fields = Vec::new();
    if message.with_cluster {
        fields.push(("cluster", message.origin.cluster.clone()));
    }
    fields.push(("code", message.code.to_owned()));
    fields.push(("documentationUrl", message.documentation()));
    fields.push(("level", message.level.to_string()));
    fields.push(("message", message.text.clone()));
    fields.push(("origin", message.origin.friendly_name()));
    if let Some(reference) = message.reference() {
        fields.push(("reference", reference));
    }
    fields
}

fn json(messages: &[Message]) -> String {
    if messages.is_empty() {
        return "[]".to_owned();
    }
    let objects: Vec<_> = messages
        .iter()
        .map(|message| {
            let fields: Vec<_> = fields(message)
                .into_iter()
                .map(|(name, value)| format!("\t\t\"{name}\": {}", json_text(&value)))
                .collect();
            format!("\t{{\n{}\n\t}}", fields.join(",\n"))
        })
        .collect();
    format!("[\n{}\n]", objects.join(",\n"))
}

/// A text as Go's encoder writes it, which spares HTML.
fn json_text(text: &str) -> String {
    let mut result = serde_json::Value::from(text).to_string();
    for (letter, escape) in [
        ('&', "\\u0026"),
        ('<', "\\u003c"),
        ('>', "\\u003e"),
        ('\u{2028}', "\\u2028"),
        ('\u{2029}', "\\u2029"),
    ] {
        result = result.replace(letter, escape);
    }
    result
}

fn yaml(messages: &[Message]) -> String {
    if messages.is_empty() {
        return "[]\n".to_owned();
    }
    let mut events = vec![
        Event::stream_start(Encoding::Utf8),
        Event::document_start(None, &[], true),
        Event::sequence_start(None, None, true, SequenceStyle::Block),
    ];
    for message in messages {
        events.push(Event::mapping_start(None, None, true, MappingStyle::Block));
        for (name, value) in fields(message) {
            events.push(scalar(name));
            events.push(scalar(&value));
        }
        events.push(Event::mapping_end());
    }
    events.extend([
        Event::sequence_end(),
        Event::document_end(true),
        Event::stream_end(),
    ]);
    let mut output = Vec::new();
    let mut emitter = Emitter::new();
    emitter.set_output(&mut output);
    emitter.set_unicode(true);
    for event in events {
        // Writing these events to memory cannot fail; were it to, the rest would be missing rather than the program gone.
        if emitter.emit(event).is_err() {
            break;
        }
    }
    drop(emitter);
    String::from_utf8_lossy(&output).into_owned()
}

/// A text, quoted where it would otherwise be read as something else.
fn scalar(text: &str) -> Event {
    let plain = matches!(resolve(text, true, None), Ok(Scalar::Text(_)));
    let style = if text.contains('\n') {
        ScalarStyle::Literal
    } else if plain {
        ScalarStyle::Plain
    } else {
        ScalarStyle::DoubleQuoted
    };
    Event::scalar(None, None, text, true, true, style)
}
