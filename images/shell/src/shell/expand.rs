//! From words to arguments.

use super::arithmetic;
use super::ast::{Operation, Part, PartKind, Word};
use super::pattern::{self, Mark};
use super::state::{Run, Shell};

/// Arguments while they grow.
#[derive(Default)]
struct Fields {
    done: Vec<Vec<Mark>>,
    current: Option<Vec<Mark>>,
}

impl Fields {
    fn push(&mut self, text: &str, quoted: bool) {
        let current = self.current.get_or_insert_default();
        current.extend(text.chars().map(|c| (c, quoted)));
    }

    fn end(&mut self) {
        self.done.extend(self.current.take());
    }

    /// Adds text that is split at the characters of `IFS`.
    fn push_split(&mut self, text: &str, separators: &str) {
        let is_blank = |c: char| c.is_whitespace() && separators.contains(c);
        let mut chars = text.chars().peekable();
        while let Some(c) = chars.next() {
            if !separators.contains(c) {
                self.push(c.encode_utf8(&mut [0; 4]), false);
                continue;
            }
            if !is_blank(c) {
                // Every one of these ends a field, be it empty.
                self.current.get_or_insert_default();
                self.end();
                while chars.next_if(|c| is_blank(*c)).is_some() {}
                continue;
            }
            while chars.next_if(|c| is_blank(*c)).is_some() {}
            if self.current.is_some()
                && let Some(next) = chars.peek()
                && separators.contains(*next)
            {
                continue;
            }
            self.end();
        }
    }
}

impl Shell {
    /// All arguments that `words` become: split, and with file names for patterns.
    pub fn arguments(&mut self, words: &[Word]) -> Run<Vec<String>> {
        let mut arguments = Vec::new();
        for word in words {
            let mut fields = Fields::default();
            self.fill(word, &mut fields, true)?;
            fields.end();
            for field in fields.done {
                let wild = field
                    .iter()
                    .any(|mark| matches!(mark, ('*' | '?' | '[', false)));
                if wild && !self.no_globbing {
                    let files = pattern::files(&field);
                    if !files.is_empty() {
                        arguments.extend(files);
                        continue;
                    }
                }
                arguments.push(field.into_iter().map(|(c, _)| c).collect());
            }
        }
        Ok(arguments)
    }

    /// The one text that a word becomes.
    pub fn text_of(&mut self, word: &[Part]) -> Run<String> {
        Ok(self.marks_of(word)?.into_iter().map(|(c, _)| c).collect())
    }

    /// The pattern that a word becomes.
    pub fn marks_of(&mut self, word: &[Part]) -> Run<Vec<Mark>> {
        let mut fields = Fields::default();
        self.fill(word, &mut fields, false)?;
        fields.end();
        let mut marks = Vec::new();
        for (index, field) in fields.done.into_iter().enumerate() {
            if index > 0 {
                marks.push((' ', true));
            }
            marks.extend(field);
        }
        Ok(marks)
    }

    fn fill(&mut self, word: &[Part], fields: &mut Fields, split: bool) -> Run<()> {
        for (index, part) in word.iter().enumerate() {
            match &part.kind {
                PartKind::Text(text) => {
                    let rest = (index == 0 && !part.quoted)
                        .then(|| text.strip_prefix('~'))
                        .flatten()
                        .filter(|rest| {
                            rest.starts_with('/') || (rest.is_empty() && word.len() == 1)
                        });
                    match (rest, self.get("HOME")) {
                        (Some(rest), Some(home)) => {
                            fields.push(home, true);
                            fields.push(rest, false);
                        }
                        _ => fields.push(text, part.quoted),
                    }
                }
                PartKind::Substitution(list) => {
                    let text = self.substitute(list)?;
                    self.value(&text, part.quoted, fields, split);
                }
                PartKind::Arithmetic(word) => {
                    let text = self.text_of(word)?;
                    let value =
                        arithmetic::evaluate(&text, self).map_err(|error| self.fatal(error))?;
                    self.value(&value.to_string(), part.quoted, fields, split);
                }
                PartKind::Parameter { name, operation } => {
                    self.parameter(name, operation, part.quoted, fields, split)?;
                }
            }
        }
        Ok(())
    }

    fn value(&self, text: &str, quoted: bool, fields: &mut Fields, split: bool) {
        if quoted || !split {
            fields.push(text, quoted);
        } else {
            fields.push_split(text, self.get("IFS").unwrap_or(" \t\n"));
        }
    }

    /// A parameter's value; several for `$@`.
    fn lookup(&self, name: &str) -> Option<String> {
        match name {
            "?" => Some(self.status.to_string()),
            "$" => Some(self.pid.to_string()),
            "#" => Some(self.parameters.len().to_string()),
            "!" => self.last_background.map(|pid| pid.to_string()),
            "-" => Some(self.option_letters()),
            "0" => Some(self.name.clone()),
            "@" | "*" => (!self.parameters.is_empty()).then(|| {
                let separator: String = self.get("IFS").unwrap_or(" ").chars().take(1).collect();
                self.parameters.join(&separator)
            }),
            name => match name.parse::<usize>() {
                Ok(index) => self.parameters.get(index.wrapping_sub(1)).cloned(),
                Err(_) => self.get(name).map(str::to_owned),
            },
        }
    }

    fn all_parameters(&self, name: &str, quoted: bool, fields: &mut Fields, split: bool) {
        if (name == "*" && quoted) || !split {
            let joined = self.lookup("*").unwrap_or_default();
            fields.push(&joined, quoted);
            return;
        }
        if quoted
            && self.parameters.is_empty()
            && fields.current.as_ref().is_some_and(Vec::is_empty)
        {
            // "$@" without parameters is nothing at all, not an empty argument.
            fields.current = None;
        }
        for (index, parameter) in self.parameters.iter().enumerate() {
            if index > 0 {
                fields.end();
            }
            self.value(parameter, quoted, fields, split);
        }
    }

    fn parameter(
        &mut self,
        name: &str,
        operation: &Operation,
        quoted: bool,
        fields: &mut Fields,
        split: bool,
    ) -> Run<()> {
        let value = self.lookup(name);
        let missing = |colon: bool| match &value {
            None => true,
            Some(value) => colon && value.is_empty(),
        };
        let unset_matters = self.unset_is_error && !matches!(name, "@" | "*");
        match operation {
            Operation::Default { colon, word } if missing(*colon) => {
                return self.fill_quoted(word, quoted, fields, split);
            }
            Operation::Alternative { colon, word } => {
                if missing(*colon) {
                    return Ok(());
                }
                return self.fill_quoted(word, quoted, fields, split);
            }
            Operation::Assign { colon, word } if missing(*colon) => {
                let text = self.text_of(word)?;
                if !super::parse::is_name(name) {
                    return Err(self.fatal(format!("{name}: bad variable name")));
                }
                self.set(name, text.clone())
                    .map_err(|error| self.fatal(error))?;
                self.value(&text, quoted, fields, split);
                return Ok(());
            }
            Operation::Require { colon, word } if missing(*colon) => {
                let text = self.text_of(word)?;
                let text = if text.is_empty() {
                    "parameter not set".to_owned()
                } else {
                    text
                };
                return Err(self.fatal(format!("{name}: {text}")));
            }
            Operation::Default { .. } | Operation::Assign { .. } | Operation::Require { .. } => {}
            _ if value.is_none() && unset_matters => {
                return Err(self.fatal(format!("{name}: parameter not set")));
            }
            _ => {}
        }
        match operation {
            Operation::Length => {
                let length = match name {
                    "@" | "*" => self.parameters.len(),
                    _ => value.unwrap_or_default().chars().count(),
                };
                self.value(&length.to_string(), quoted, fields, split);
            }
            Operation::RemovePrefix { longest, pattern } => {
                let marks = self.marks_of(pattern)?;
                let text: Vec<char> = value.unwrap_or_default().chars().collect();
                let mut cuts: Vec<usize> = (0..=text.len()).collect();
                if *longest {
                    cuts.reverse();
                }
                let cut = cuts
                    .into_iter()
                    .find(|cut| pattern::matches(&marks, &text[..*cut]))
                    .unwrap_or(0);
                let text: String = text[cut..].iter().collect();
                self.value(&text, quoted, fields, split);
            }
            Operation::RemoveSuffix { longest, pattern } => {
                let marks = self.marks_of(pattern)?;
                let text: Vec<char> = value.unwrap_or_default().chars().collect();
                let mut cuts: Vec<usize> = (0..=text.len()).collect();
                if !*longest {
                    cuts.reverse();
                }
                let cut = cuts
                    .into_iter()
                    .find(|cut| pattern::matches(&marks, &text[*cut..]));
                let text: String = text[..cut.unwrap_or(text.len())].iter().collect();
                self.value(&text, quoted, fields, split);
            }
            _ if matches!(name, "@" | "*") => self.all_parameters(name, quoted, fields, split),
            _ => {
                let value = value.unwrap_or_default();
                self.value(&value, quoted, fields, split);
            }
        }
        Ok(())
    }

    /// The word of `${a:-word}`: within quotes it stays one argument, be it empty.
    fn fill_quoted(
        &mut self,
        word: &[Part],
        quoted: bool,
        fields: &mut Fields,
        split: bool,
    ) -> Run<()> {
        if quoted {
            fields.push("", true);
            return self.fill(word, fields, split);
        }
        // Unquoted text in it is split like a value.
        for part in word {
            match &part.kind {
                PartKind::Text(text) if !part.quoted => self.value(text, false, fields, split),
                _ => self.fill(std::slice::from_ref(part), fields, split)?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::Fields;

    fn split(text: &str, separators: &str) -> Vec<String> {
        let mut fields = Fields::default();
        fields.push_split(text, separators);
        fields.end();
        fields
            .done
            .into_iter()
            .map(|field| field.into_iter().map(|(c, _)| c).collect())
            .collect()
    }

    #[test]
    fn splitting() {
        assert_eq!(split("  a  b ", " \t\n"), ["a", "b"]);
        assert_eq!(split("a:b::c:", ":"), ["a", "b", "", "c"]);
        assert_eq!(split("a : b", " :"), ["a", "b"]);
        assert_eq!(split(":a", ":"), ["", "a"]);
        assert_eq!(split("a b", ""), ["a b"]);
    }
}
