//! This image's programs alone: `shell-image NAME ARGS...`, or under their own names.

use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let mut args = std::env::args_os();
    let own = args.next().unwrap_or_default();
    let own = Path::new(&own)
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    let name = if shell_image::APPLETS.contains(&own.as_str()) {
        own
    } else {
        args.next()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned()
    };
    if !shell_image::APPLETS.contains(&name.as_str()) {
        eprintln!(
            "Usage: shell-image NAME [ARGS]...\nNames: {}",
            shell_image::APPLETS.join(" ")
        );
        return ExitCode::from(127);
    }
    shell_image::main(&name, args.collect())
}
