//! This image's programs alone: `redis-image redis-server ARGS...`, `redis-image redis-cli ARGS...`.

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut args = std::env::args_os().skip(1);
    let name = args.next().unwrap_or_default();
    match name.to_str() {
        Some("redis-server") => redis_image::server_main(args.collect()),
        Some("redis-cli") => redis_image::cli_main(args.collect()),
        _ => {
            eprintln!("Usage: redis-image redis-server|redis-cli [ARGS]...");
            ExitCode::from(127)
        }
    }
}
