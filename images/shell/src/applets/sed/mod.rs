//! `sed`: addresses, blocks, `s`, `y`, `p`, `d`, `q`, `n`, `N`, `a`, `i`, `c`, `=`, `h`, `g`, `x`,
//! labels and jumps.

mod machine;
mod script;

use std::collections::VecDeque;
use std::io::Write;
use std::path::Path;

use machine::run;
use script::parsed;

use super::{complain, open};
use crate::options::{Ended, Failure, Options, about};
use crate::output;

pub(super) fn sed(args: &[String]) -> Ended {
    let options = Options::parse(args, "nEre:f:i")?;
    let mut names = options.operands.clone();
    let mut scripts: Vec<String> = options.values('e').map(str::to_owned).collect();
    for name in options.values('f') {
        scripts.push(std::fs::read_to_string(name).map_err(|error| about(name, &error))?);
    }
    if scripts.is_empty() {
        if names.is_empty() {
            return Err(Failure::Usage("a script is expected".into()));
        }
        scripts.push(names.remove(0));
    }
    let source = scripts.join("\n");
    let extended = options.has('E') || options.has('r');
    let quiet = options.has('n');
    parsed(&source, extended)?;
    let mut status = 0;
    if options.has('i') {
        for name in &names {
            let mut text = Vec::new();
            let reader = match open(name) {
                Ok(reader) => reader,
                Err(failure) => {
                    complain("sed", &failure);
                    status = 1;
                    continue;
                }
            };
            run(
                parsed(&source, extended)?,
                quiet,
                VecDeque::from([reader]),
                &mut text,
            )?;
            replace(Path::new(name), &text).map_err(|error| about(name, &error))?;
        }
        return Ok(status);
    }
    if names.is_empty() {
        names.push("-".into());
    }
    let mut readers = VecDeque::new();
    for name in &names {
        match open(name) {
            Ok(reader) => readers.push_back(reader),
            Err(failure) => {
                complain("sed", &failure);
                status = 1;
            }
        }
    }
    let mut out = output::stdout();
    let ended = run(parsed(&source, extended)?, quiet, readers, &mut out)?;
    out.flush()?;
    Ok(if ended == 0 { status } else { ended })
}

/// The file is the old one or the new one, never half of it.
fn replace(path: &Path, text: &[u8]) -> std::io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(format!(".sed{}", std::process::id()));
    let temporary = path.with_file_name(name);
    std::fs::write(&temporary, text)?;
    std::fs::set_permissions(&temporary, path.metadata()?.permissions())?;
    std::fs::rename(&temporary, path)
}
