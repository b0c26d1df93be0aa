//! `--help` in Korean. In English it is what the declarations of the commands say.

use clap::{Arg, ArgAction, Command};

use crate::language::{self, Language};

/// The command line in the language of this process.
pub fn in_current_language(command: Command) -> Command {
    match language::current() {
        Language::English => command,
        Language::Korean => korean(command),
    }
}

fn korean(command: Command) -> Command {
    let mut command = in_korean(command, "");
    // The command `help` comes with the build.
    command.build();
    let about = language::korean_help("help").unwrap_or_default();
    command.mut_subcommand("help", |help| help.about(about))
}

/// `path`: the command's name and those above it, without the program's.
fn in_korean(mut command: Command, path: &str) -> Command {
    let text = |key: &str| {
        let key = [path, key].join(" ");
        language::korean_help(key.trim()).unwrap_or_default()
    };
    command = command
        .about(text(""))
        .help_template("{about-with-newline}\n사용법: {usage}\n\n{all-args}")
        .subcommand_help_heading("명령")
        .mut_args(|arg| {
            let heading = if arg.is_positional() {
                "인자"
            } else {
                "옵션"
            };
            let help = text(arg.get_id().as_str());
            // Defaults and possible values are in the text.
            let takes_values = arg.get_action().takes_values();
            let arg = arg.help(help).help_heading(heading);
            if takes_values {
                arg.hide_default_value(true).hide_possible_values(true)
            } else {
                arg
            }
        });
    let built_in = |name: &'static str, letter, action| {
        Arg::new(name)
            .long(name)
            .short(letter)
            .action(action)
            .help(language::korean_help(name).unwrap_or_default())
            .help_heading("옵션")
    };
    // Programs of their own print their own help.
    if !command.is_disable_help_flag_set() {
        command = command
            .disable_help_flag(true)
            .arg(built_in("help", 'h', ArgAction::Help));
    }
    if path.is_empty() {
        command =
            command
                .disable_version_flag(true)
                .arg(built_in("version", 'V', ArgAction::Version));
    }
    command.mut_subcommands(|sub| {
        let path = [path, sub.get_name()].join(" ").trim().to_owned();
        in_korean(sub, &path)
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use clap::CommandFactory;

    use super::*;
    use crate::Arguments;

    /// What a person may read in the help of a command and of those below it.
    fn keys(command: &Command, path: &str, keys: &mut BTreeSet<String>) {
        let mut add = |key: &str| keys.insert([path, key].join(" ").trim().to_owned());
        add("");
        if path.is_empty() {
            add("help");
            add("version");
        }
        let own_help = command.is_disable_help_flag_set();
        for arg in command.get_arguments().filter(|_| !own_help) {
            add(arg.get_id().as_str());
        }
        for sub in command.get_subcommands().filter(|sub| !sub.is_hide_set()) {
            let path = [path, sub.get_name()].join(" ").trim().to_owned();
            self::keys(sub, &path, keys);
        }
    }

    #[test]
    fn every_text_of_the_help_is_there_in_korean_and_names_defaults_and_values() {
        let command = Arguments::command();
        let mut wanted = BTreeSet::new();
        keys(&command, "", &mut wanted);
        let there: BTreeSet<String> = language::korean_help_keys().map(str::to_owned).collect();
        assert_eq!(there, wanted);
        for sub in command.get_subcommands().filter(|sub| !sub.is_hide_set()) {
            for arg in sub.get_arguments() {
                let key = format!("{} {}", sub.get_name(), arg.get_id());
                let text = language::korean_help(&key).unwrap_or_default();
                let values = arg.get_possible_values();
                let values = values.iter().map(|value| value.get_name().to_owned());
                let takes_value = arg.get_action().takes_values();
                let defaults = arg.get_default_values().iter().filter(|_| takes_value);
                let defaults = defaults.map(|value| value.to_string_lossy().into_owned());
                for part in values.filter(|_| takes_value).chain(defaults) {
                    assert!(text.contains(&part), "{key}: {part} is missing in {text:?}");
                }
            }
        }
    }

    #[test]
    fn korean_help_has_no_english_headings() {
        let mut command = korean(Arguments::command());
        let whole = command.render_long_help();
        // `theater help help` alone is clap's.
        let subcommands = command.get_subcommands_mut();
        let others = subcommands.filter(|sub| sub.get_name() != "help" && !sub.is_hide_set());
        for help in std::iter::once(whole).chain(others.map(Command::render_long_help)) {
            let help = help.to_string();
            for heading in ["Usage:", "Options:", "Commands:", "Arguments:", "Print "] {
                assert!(!help.contains(heading), "{heading} in\n{help}");
            }
        }
    }
}
